"""Neither training nor evaluation nor prediction ever holds full-resolution scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fcnkern.data import open_dataset, preset
from fcnkern.engine import confusion_over, load_trained, predict_image
from tests.engine._runs import tiny

CLASSES, HEIGHT, WIDTH = 11, 24, 32


class FullResolution(TorchDispatchMode):
    """Collects the shapes of floating-point tensors that hold a score per class and pixel, in any layout."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
                shape = tuple(leaf.shape)
                # A transposed convolution has weights of C x C.
                if shape.count(CLASSES) == 1 and leaf.numel() >= CLASSES * HEIGHT * WIDTH:
                    self.found.append(shape)
        return result


@pytest.mark.parametrize("upsampling", ["fixed", "learned"])
def test_no_full_resolution_scores(tmp_path: Path, upsampling: str) -> None:
    extras = {"sampling": 0.5, "aux": 0.5, "ema": 0.9, "accumulate": 2}
    trainer = tiny(tmp_path, iterations=1, val_split="val", upsampling=upsampling, **extras)
    with FullResolution() as seen:
        trainer.run()
        trained = load_trained(trainer.last)
        dataset = open_dataset("scenes:count=1,size=24x32", "val")
        confusion_over(trained.model, dataset, preset("torchvision"))
        labels = predict_image(trained, dataset[0].image)
    assert seen.found == []
    with FullResolution() as seen, torch.no_grad():
        scores = trained.model(preset("torchvision")(dataset[0].image)[None])
    assert (1, CLASSES, HEIGHT, WIDTH) in seen.found
    assert (scores.argmax(1)[0].numpy() == labels).mean() > 0.99
