"""How many variants of the kernels a range of image sizes compiles, by the keys under which Triton keeps them."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from tests.compiled.front_end import Call, variant

SIZES = [(height, 500) for height in range(333, 436)] + [(500, width) for width in range(333, 435)]
"""Those of photographs whose longer side is 500."""


def specialisations() -> dict[str, int]:
    """The number of variants by kernel, in a process that compiles; nothing is compiled."""
    from triton.runtime.driver import driver
    from triton.runtime.jit import JITFunction

    from benchmarks.launches import _Absent
    from fcnkern.backends.triton import _argmax_plan, _loss_cells

    found: defaultdict[str, set[str]] = defaultdict(set)

    def note(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        found[self.__name__].add(variant(self, args, options))

    driver.set_active(_Absent(90))
    torch.use_deterministic_algorithms(True)  # nothing is tuned
    torch.utils.deterministic.fill_uninitialized_memory = False
    with (
        mock.patch.object(JITFunction, "run", note),
        mock.patch.object(_argmax_plan, "resident_warps", return_value=4096),
        mock.patch.object(_loss_cells, "_resident_warps", return_value=1584),
    ):
        for size in SIZES:
            for call in (*_label_maps(*size), *_skip_step(*size), *_pool(*size), _loss(*size)):
                call()
    return {name: len(keys) for name, keys in found.items()}


def _label_maps(height: int, width: int) -> tuple[Call, ...]:
    from fcnkern import Resample
    from fcnkern.backends.triton.confusion_matrix import _count_scores
    from fcnkern.backends.triton.upsample_argmax import upsample_argmax

    scores, resample = _image(21, -(-height // 8), -(-width // 8)), Resample.half_pixel()
    target, counts = torch.empty(1, height, width, dtype=torch.uint8), torch.zeros(64, 21, 21)
    return (
        partial(upsample_argmax, scores, None, resample, (height, width), torch.uint8, True),
        partial(_count_scores, scores, target, counts, resample, 255),
    )


def _loss(height: int, width: int) -> Call:
    from fcnkern import Resample
    from fcnkern.backends.triton.upsample_cross_entropy import upsample_cross_entropy_fwd
    from fcnkern.ops._loss_call import LossCall

    call = LossCall(Resample.half_pixel(), 255, 0.0, "valid", (), 1, None, True, False, False)
    target = torch.empty(1, height, width, dtype=torch.uint8)
    scores = _image(21, -(-height // 8), -(-width // 8))
    return partial(upsample_cross_entropy_fwd, scores, target, None, None, None, None, call)


def _pool(height: int, width: int) -> tuple[Call, ...]:
    """VGG16's first."""
    from fcnkern.backends.triton.max_pool2d import max_pool2d_bwd, max_pool2d_fwd
    from fcnkern.ops._window import Window

    window, x = Window.of(2, 2, 0, True), _image(64, height + 198, width + 198)
    grad = _image(64, *window.out_size(*x.shape[2:]))
    winners = torch.empty_like(grad, dtype=torch.uint8)
    return (
        partial(max_pool2d_fwd, x, window, True, True),
        partial(max_pool2d_bwd, grad, winners, window, (x.shape[2], x.shape[3])),
    )


def _skip_step(height: int, width: int) -> tuple[Call, ...]:
    """Of FCN-8s: scores of stride 16 doubled, with features of stride 8; and upsampled by 8 after that."""
    from fcnkern.backends.triton.upsample_add import upsample_add_bwd, upsample_add_fwd

    h, w = -(-height // 16), -(-width // 16)
    x, features, grad = _image(21, h, w), _image(64, 2 * h + 12, 2 * w + 12), _image(21, 2 * h + 2, 2 * w + 2)
    weight, score = torch.empty(21, 21, 4, 4), torch.empty(21, 64, 1, 1)
    settings = ((2, 2), (5, 5), 1.0)
    large, depthwise = _image(21, 16 * h + 24, 16 * w + 24), torch.empty(21, 1, 16, 16)
    alone = (None, None, (8, 8), (0, 0), 1.0)
    return (
        partial(upsample_add_fwd, x, weight, features, score, None, *settings),
        partial(upsample_add_bwd, grad, x, weight, features, score, *settings, (True,) * 5),
        partial(upsample_add_fwd, grad, depthwise, None, *alone),
        partial(upsample_add_bwd, large, grad, depthwise, *alone, (True, True, False, False, False)),
    )


def _image(channels: int, height: int, width: int) -> Tensor:
    return torch.empty(1, channels, height, width)
