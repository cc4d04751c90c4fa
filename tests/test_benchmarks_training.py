"""The end-to-end benchmark: its rivals compute the same, its parts are the whole step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks import evaluation, training
from benchmarks.stock_head import StockFCN
from benchmarks.training_memory import full_resolution_bytes, peak_bytes
from benchmarks.training_step import PARTS, Contender, checked_pair, our_network, ours, stock
from fcnkern.data import collate, open_dataset, preset
from fcnkern.models import FCN

DATA = "scenes:count=3,size=64x80"


@pytest.mark.parametrize("body", ["alexnet", "caffenet", "googlenet"])
def test_stock_head_is_the_network(body: str) -> None:
    model = our_network(body, 0.1, 5).eval()
    x = torch.randn(2, 3, 97, 130)
    with torch.no_grad():
        expected = model(x)
        assert torch.allclose(StockFCN(model).eval()(x), expected, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("body", ["vgg16", "googlenet"])
@pytest.mark.parametrize("make", [ours, stock])
def test_a_step_in_parts_has_the_gradient_of_the_whole(body: str, make: Callable[[FCN], Contender]) -> None:
    dataset = open_dataset(DATA, "train")
    contender = make(our_network(body, 0.05, len(dataset.classes)))
    network = contender.network
    batch = collate([dataset[0]], preset("torchvision"))
    parts = contender.step(batch)
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    loss = F.cross_entropy(network(batch.images), batch.labels.long(), ignore_index=255)
    loss.backward()
    assert contender.value == pytest.approx(loss.item(), rel=1e-5)
    assert tuple(parts) == PARTS
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None
            error = (found[name] - parameter.grad).norm() / parameter.grad.norm()
            assert error < 1e-4, name


def test_rivals_that_differ_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StockFCN, "upsample", lambda self, scores, size: F.interpolate(scores, size=size))
    with pytest.raises(AssertionError, match="googlenet: loss"):
        checked_pair("googlenet", 0.05, open_dataset(DATA, "train"))
    with pytest.raises(AssertionError, match="counted differently"):
        evaluation.measure_evaluation(DATA, 1)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell peaks")
@pytest.mark.parametrize(("width", "size", "classes"), [(0.05, (192, 256), 40), (1.0, (360, 480), 11)])
def test_peak_is_lower_by_the_full_resolution(width: float, size: tuple[int, int], classes: int) -> None:
    peaks = {name: peak_bytes("googlenet", width, size, classes, name) for name in ("ours", "stock")}
    assert peaks["ours"] is not None
    assert peaks["stock"] is not None
    counted = full_resolution_bytes(size, classes)
    assert counted == 3 * 4 * classes * size[0] * size[1]
    assert (
        peaks["stock"] - peaks["ours"] >= 0.98 * counted
    )  # pages are counted, of which the heap keeps a few


def test_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(evaluation, "SECONDS", 0.1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = [f"--data={DATA}", "--bodies=googlenet", "--width=0.05", "--seconds=0.1", "--images=2"]
    monkeypatch.setattr(sys, "argv", ["training", *words, f"--out={tmp_path / 'v1.2'}"])
    assert training.main() == 0
    text = (tmp_path / "v1.2.md").read_text()
    assert (tmp_path / "v1.2.json").is_file()
    assert text.startswith("`OMP_NUM_THREADS=1 python -m benchmarks.training --data=scenes:")
    assert text.strip() == capsys.readouterr().out.strip()
    assert "| googlenet 0.05, 64×80, ours |" in text
    assert "2 images of scenes" in text
