"""The networks as ONNX files: standard operators, and the labels of `predict` in onnxruntime at every size."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fcnkern import cli, export
from fcnkern.data import open_dataset, preset
from fcnkern.engine import load_trained
from fcnkern.export import to_onnx
from fcnkern.models import FCN, create, list_models
from tests.data.miniature import make_nyud
from tests.engine._runs import tiny
from tests.models import _caffe

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'fcnkern[onnx]'")
pytest.importorskip("onnxscript", reason="needs onnxscript: pip install 'fcnkern[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install onnxruntime")

SIZES = ((1, 1), (31, 33), (64, 47), (97, 130), (225, 96))
# Every body and every head; each on each (two minutes more) with FCNKERN_TEST_EXPORT=full.
FULL = os.environ.get("FCNKERN_TEST_EXPORT") == "full"
NETWORKS = list_models() if FULL else ["fcn32s_vgg16", "fcn8s_caffenet", "fcn16s_alexnet", "fcn32s_googlenet"]


def network(name: str, upsampling: str = "fixed") -> FCN:
    """Random weights, but with scores of equal means, so that images have several labels."""
    model = create(name, 5, width=1 / 64, upsampling=upsampling).eval()
    _caffe.randomize(model)
    image = torch.randn(1, 3, 97, 130, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.get_parameter("score_fr.bias").sub_(model(image).mean((0, 2, 3)))
    return model


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def check_labels(model: FCN, path: Path) -> None:
    """Equal labels, except where the two best scores are equal to rounding."""
    runtime = session(path)
    for count, (height, width) in enumerate(SIZES):
        generator = torch.Generator().manual_seed(height)
        image = torch.randn(1 + count % 2, 3, height, width, generator=generator)
        (labels,) = runtime.run(None, {"images": image.numpy()})
        with torch.no_grad():
            best = model(image).topk(2, dim=1).values
        clear = (best[:, 0] - best[:, 1] > 1e-5).numpy()
        expected = model.predict(image).numpy()
        assert labels.dtype == expected.dtype
        assert labels.shape == expected.shape
        assert (labels == expected)[clear].all()
        assert clear.mean() > 0.99
    assert len(np.unique(labels)) > 1


@pytest.mark.parametrize("name", NETWORKS)
def test_labels_are_those_of_predict(name: str, tmp_path: Path) -> None:
    model, path = network(name), tmp_path / "net.onnx"
    to_onnx(model, path)
    check_labels(model, path)
    graph = onnx.load(path)
    assert {node.domain for node in graph.graph.node} == {""}
    assert [(each.domain, each.version) for each in graph.opset_import] == [("", 18)]
    assert len(graph.functions) == 0
    pools = [node for node in graph.graph.node if node.op_type == "MaxPool"]
    assert pools
    assert not any(each.name == "ceil_mode" and each.i for node in pools for each in node.attribute)
    sides = [
        [each.dim_param or each.dim_value for each in value.type.tensor_type.shape.dim]
        for value in (graph.graph.input[0], graph.graph.output[0])
    ]
    assert sides == [["batch", 3, "height", "width"], ["batch", "height", "width"]]
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


def test_normalisation_is_one_operator(tmp_path: Path) -> None:
    model, path = create("fcn32s_caffenet", 3, width=1 / 12).eval(), tmp_path / "net.onnx"
    _caffe.randomize(model)
    to_onnx(model, path, logits=True)
    nodes = [node.op_type for node in onnx.load(path).graph.node]
    assert nodes.count("LRN") == 2
    assert len(nodes) < 60
    image = 3000 * torch.randn(1, 3, 70, 90, generator=torch.Generator().manual_seed(0))
    (logits,) = session(path).run(None, {"images": image.numpy()})
    with torch.no_grad():
        expected = model(image)
        scale = expected.abs().max().item()
        torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-5, atol=1e-5 * scale)
        model.body.norm1 = model.body.norm2 = torch.nn.Identity()
        assert (model(image) - expected).abs().max() > 0.1 * scale


def test_logits_of_learned_upsampling_in_a_later_opset(tmp_path: Path) -> None:
    model, path = network("fcn16s_alexnet", "learned"), tmp_path / "net.onnx"
    to_onnx(model, path, logits=True, opset=20, metadata={"made by": "a test"})
    stored = onnx.load(path)
    assert stored.opset_import[0].version == 20
    properties = {each.key: each.value for each in stored.metadata_props}
    assert properties == {"preprocess": "torchvision", "made by": "a test"}
    for size in SIZES:
        image = torch.randn(1, 3, *size)
        (logits,) = session(path).run(["logits"], {"images": image.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), model(image), rtol=1e-5, atol=1e-4)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny(tmp_path, arch="fcn16s_alexnet").run()
    words = ["export", "--checkpoint", str(tmp_path / "last.pt"), "--out"]
    capsys.readouterr()
    trained = load_trained(tmp_path / "last.pt")
    picture = np.random.default_rng(0).integers(0, 256, (50, 41, 3), dtype=np.uint8)
    images = preset(trained.model.preprocess)(picture)[None]
    expected = trained.model.predict(images).numpy()
    assert cli.main([*words, str(tmp_path / "net.onnx")]) == 0
    output = capsys.readouterr()
    assert output.out.endswith("net.onnx: labels of images N,3,H,W of any size, prepared as 'torchvision'\n")
    assert output.err == ""
    runtime = session(tmp_path / "net.onnx")
    (labels,) = runtime.run(None, {"images": images.numpy()})
    assert (labels == expected).mean() > 0.999
    about = runtime.get_modelmeta().custom_metadata_map
    assert about["classes"].split("\n") == trained.classes
    colours = about["palette"].split("\n")
    assert colours[1] == "#{:02x}{:02x}{:02x}".format(*trained.palette[1])
    assert cli.main([*words, str(tmp_path / "net.pt2")]) == 0
    extra = {"preprocess": "", "classes": ""}
    program = torch.export.load(tmp_path / "net.pt2", extra_files=extra)
    assert (program.module()(images).numpy() == expected).mean() > 0.999
    assert extra["preprocess"] == "torchvision"


@pytest.mark.parametrize(("source", "channels"), [("rgbd", 4), ("depth", 1)])
def test_networks_on_depth(
    source: str, channels: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = f"nyud:{make_nyud(tmp_path / 'nyud', train=['5001'], val=['5004'])},input={source}"
    tiny(tmp_path, data=data, arch="fcn32s_alexnet", iterations=1, lr=1.0).run()
    checkpoint = tmp_path / "last.pt"
    trained = load_trained(checkpoint)
    images = preset(f"nyud-{source}")(open_dataset(data, "val")[0].image)[None]
    expected = trained.model(images).detach().numpy()
    assert expected.std() > 1e-3
    words = ["export", "--logits", "--checkpoint", str(checkpoint), "--out"]
    for file in ("net.onnx", "net.pt2"):
        assert cli.main([*words, str(tmp_path / file)]) == 0
        assert f"images N,{channels},H,W of any size, prepared as 'nyud-{source}'" in capsys.readouterr().out
    runtime = session(tmp_path / "net.onnx")
    assert runtime.get_inputs()[0].shape == ["batch", channels, "height", "width"]
    (logits,) = runtime.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    logits = torch.export.load(tmp_path / "net.pt2").module()(images).detach().numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("fcn32s_alexnet")
    with pytest.raises(ValueError, match="opset must be at least 18, got 11"):
        to_onnx(model, tmp_path / "net.onnx", opset=11)
    with pytest.raises(ValueError, match="evaluation mode"):
        to_onnx(model.train(), tmp_path / "net.onnx")
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"needs onnx and onnxscript: pip install 'fcnkern\[onnx\]'"):
        to_onnx(model, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_command_refuses_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", "--checkpoint", str(tmp_path / "last.pt"), "--out", str(tmp_path / "net.pb")]
    assert cli.main(words) == 2
    assert "out must end in .onnx or .pt2, got " in capsys.readouterr().err
