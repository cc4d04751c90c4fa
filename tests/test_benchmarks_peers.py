"""Other libraries: measured where they are here and work, else named with the reason."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from benchmarks.cases import LOSS, chosen
from benchmarks.contenders import everyone
from benchmarks.peers import cross_entropies, unmeasured

CASE = next(case for case in chosen("cpu") if case.operation == LOSS)


def install(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    """Puts a module in the place of an installed one."""
    for package in (name.partition(".")[0], name):
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
    vars(sys.modules[name]).update(contents)


def test_every_peer_is_measured_or_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("liger_kernel", "segmentation_models_pytorch", "torchvision"):
        monkeypatch.setitem(sys.modules, name, None)
    for device in ("cpu", "cuda"):
        assert cross_entropies(device) == {}
        why = unmeasured(device)
        assert set(why) == {"liger", "smp", "torchvision"}
        assert "is another network" in why["torchvision"]
        assert why["smp"].startswith("ModuleNotFoundError")
    assert unmeasured("cpu")["liger"] == "its kernels need a GPU"
    assert unmeasured("cuda")["liger"].startswith("ModuleNotFoundError")


def test_an_installed_peer_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def liger(ignore_index: int) -> Any:
        return lambda pixels, labels: F.cross_entropy(pixels, labels, ignore_index=ignore_index)

    install(monkeypatch, "liger_kernel.transformers", LigerCrossEntropyLoss=liger)
    logits, labels = torch.randn(2, 5, 4, 3), torch.randint(0, 5, (2, 4, 3))
    labels[0, :2] = 255
    found = cross_entropies("cuda")["interpolate, liger"](logits, labels)
    torch.testing.assert_close(found, F.cross_entropy(logits, labels, ignore_index=255))
    assert "liger" not in unmeasured("cuda")


def test_an_incompatible_peer_is_named_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(**_: object) -> SimpleNamespace:
        raise TypeError("another signature\nand more")

    install(monkeypatch, "liger_kernel.transformers")
    install(monkeypatch, "segmentation_models_pytorch.losses", SoftCrossEntropyLoss=refuses)
    why = unmeasured("cuda")
    assert "has no attribute 'LigerCrossEntropyLoss'" in why["liger"]
    assert why["smp"] == "TypeError: another signature"
    assert everyone(CASE, "cpu")[0] == "ours"
