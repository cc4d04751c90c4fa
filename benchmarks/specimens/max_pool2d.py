"""Compiled specimens of max_pool2d: VGG16's first pool, both ways, and AlexNet's in channels_last."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.specimen import ARCHS, Case, Claims, Specimen

VGG = (8, 64, 698, 698)
ALEXNET = (8, 96, 173, 173)


def _launch(shape: tuple[int, int, int, int], side: int, dtype: torch.dtype, backward: bool) -> None:
    from fcnkern.backends.triton.max_pool2d import max_pool2d_bwd, max_pool2d_fwd
    from fcnkern.ops._window import Window

    window = Window.of(side, 2, 0, True)
    layout = torch.channels_last if shape == ALEXNET else torch.contiguous_format
    x, grad = (
        torch.empty(each, dtype=dtype, memory_format=layout)
        for each in (shape, (*shape[:2], *window.out_size(*shape[2:])))
    )
    if backward:
        max_pool2d_bwd(grad, torch.empty_like(grad, dtype=torch.uint8), window, shape[2:])
    else:
        max_pool2d_fwd(x, window, relu=True, need_winners=True)


def _case(shape: tuple[int, int, int, int], element: int, backward: bool) -> Case:
    """Units are the numbers that are written: outputs, or elements of the gradient."""
    n, c, h, w = shape
    inputs, outputs = n * c * h * w, n * c * (h // 2) * (w // 2)
    name = f"{n}×{c}×{h}×{w}"
    moved = inputs * element + outputs * (element + 1)
    return Case(
        name, unit="element" if backward else "output", units=inputs if backward else outputs, bytes=moved
    )


def _specimen(
    name: str,
    shape: tuple[int, int, int, int],
    side: int,
    dtype: torch.dtype,
    backward: bool,
    loops: tuple[int, ...] = (),
) -> Specimen:
    """``loops``: the architectures for which the loop over a window's elements is not unrolled."""
    return Specimen(
        name=f"{name}, {side}×{side}, {'gradient' if backward else 'with winners'}",
        launch=partial(_launch, shape, side, dtype, backward),
        kernel=f"_max_pool2d_{'bwd' if backward else 'fwd'}_kernel",
        case=_case(shape, dtype.itemsize, backward),
        trips={arch: (side * side,) if arch in loops else () for arch in ARCHS},
        claims=Claims(max_registers=64),
    )


SPECIMENS = [
    _specimen("fp32", VGG, 2, torch.float32, backward=False),
    _specimen("bf16", VGG, 2, torch.bfloat16, backward=False),
    _specimen("fp32", VGG, 2, torch.float32, backward=True),
    _specimen("fp32, channels_last", ALEXNET, 3, torch.float32, backward=False, loops=(80, 90)),
    _specimen("fp32, channels_last", ALEXNET, 3, torch.float32, backward=True),
]
