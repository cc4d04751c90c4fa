"""What the operations must compute, in plain PyTorch that shares no code with the library; and how near is near.

The rule: the error of a backend is at most twice that of plain PyTorch at the same precision, both against the
same computation in fp64, or at most the floor where PyTorch happens to be luckier than that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnkern import Resample

FLOOR = {torch.float64: 1e-12, torch.float32: 5e-7, torch.bfloat16: 8e-3, torch.float16: 1e-3}

# (h, w), (H, W), resampling: integer and other factors, up and down, ragged sizes, single rows and pixels.
GEOMETRIES = {
    "deconv8": ((4, 5), (21, 26), Resample.deconv(8, 11)),
    "deconv8-border": ((2, 3), (24, 32), Resample.deconv(8)),
    "deconv4": ((5, 6), (20, 21), Resample.deconv(4, 2)),
    "deconv2": ((9, 8), (17, 16), Resample.deconv(2, 1)),
    "deconv3": ((5, 6), (14, 15), Resample.deconv(3, 2)),
    "deconv32": ((2, 3), (40, 67), Resample.deconv(32, 19)),
    "deconv8-odd": ((4, 5), (21, 26), Resample.deconv(8, 6, odd=True)),
    "deconv32-odd": ((2, 3), (40, 67), Resample.deconv(32, 18, odd=True)),
    "deconv-uneven": ((4, 6), (25, 17), Resample.deconv((8, 3), (5, 1))),
    "half8": ((3, 4), (24, 32), Resample.half_pixel()),
    "half-ragged": ((7, 5), (50, 33), Resample.half_pixel()),
    "half-scale": ((7, 5), (17, 12), Resample.half_pixel(scale_factor=2.5)),
    "half-down": ((14, 12), (5, 7), Resample.half_pixel()),
    "corners": ((4, 4), (25, 22), Resample.align_corners()),
    "corners-one": ((4, 4), (1, 9), Resample.align_corners()),
    "identity": ((9, 13), (9, 13), Resample.identity()),
    "one-pixel": ((1, 1), (8, 5), Resample.half_pixel()),
}


def bilinear(channels: int, factor: tuple[int, int], dtype: torch.dtype, *, odd: bool = False) -> Tensor:
    """Caffe's bilinear filler, channels×1×kh×kw."""
    lines = []
    for f in factor:
        k = 2 * f - 1 if odd else 2 * f - f % 2
        centre = f - 1 if k % 2 else f - 0.5
        lines.append(torch.tensor([1 - abs(i - centre) / f for i in range(k)], dtype=torch.float64))
    return torch.outer(*lines).expand(channels, 1, -1, -1).to(dtype)


def upsampled(
    scores: Tensor, resample: Resample, size: Sequence[int], weight: Tensor | None = None
) -> Tensor:
    """Full-resolution scores by conv_transpose2d or F.interpolate."""
    height, width = size
    if resample.kind == "identity":
        return scores
    if resample.kind == "deconv":
        fixed = bilinear(scores.shape[1], resample.factor, scores.dtype, odd=resample.odd)
        kernel = fixed if weight is None else weight
        groups = scores.shape[1] if kernel.shape[1] == 1 and scores.shape[1] > 1 else 1
        full = F.conv_transpose2d(scores, kernel, stride=resample.factor, groups=groups)
        oy, ox = resample.offset
        return full[:, :, oy : oy + height, ox : ox + width]
    if resample.scale_factor is not None:
        return F.interpolate(scores, scale_factor=resample.scale_factor, mode="bilinear")
    corners = resample.kind == "align_corners"
    return F.interpolate(scores, size=(height, width), mode="bilinear", align_corners=corners)


def relative_error(value: Tensor, truth: Tensor) -> float:
    """Norm of the difference over the norm of the truth."""
    difference = (value.double() - truth.double()).norm()
    return float(difference / truth.double().norm().clamp_min(1e-300))


def assert_as_exact_as_torch(
    ours: Tensor, compute: Callable[[torch.dtype], Tensor], dtype: torch.dtype, what: str
) -> None:
    """Checks the rule at the top; ``compute(dtype)`` is plain PyTorch at a precision."""
    truth = compute(torch.float64)
    error = relative_error(ours, truth)
    allowed = max(2 * relative_error(compute(dtype), truth), FLOOR[dtype])
    assert error <= allowed, f"{what}: relative error {error:.3g}, allowed {allowed:.3g}"
