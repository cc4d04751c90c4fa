"""`upsample_add` with the CUDA kernels, and its transposed convolution alone, band by band."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fcnkern._tensors import crop
from fcnkern.backends._arguments import tensor_view
from fcnkern.backends.cuda._extension import kernels, stream_of
from fcnkern.backends.cuda._structs import filled
from fcnkern.backends.cuda.conv1x1 import SKINNY, score_backward, wide_backward
from fcnkern.ops._checks import dense_format
from fcnkern.ops.upsample_add import is_depthwise, out_shape
from fcnkern.resample import Pair

_DENSE, _DEPTHWISE, _BILINEAR = range(3)
_BLOCKS = 528
"""Blocks wanted for a weight's gradient: a constant, so that every GPU sums in the same order."""
_LEAST_PIXELS = 512
"""Pixels that a part of such a sum has at least."""


def upsample_add_fwd(
    x: Tensor,
    weight: Tensor | None,
    skip: Tensor | None,
    skip_weight: Tensor | None,
    skip_bias: Tensor | None,
    stride: Pair,
    skip_offset: Pair,
    skip_scale: float,
) -> Tensor:
    """Upsampled ``x`` plus the cropped skip, in one launch; of features only the crop is read."""
    size = out_shape(x, weight, stride)[2:]
    deconv = _Deconv(x, weight, stride, (0, size[0]), (0, size[1]))
    window = None if skip is None else crop(skip, skip_offset, size)
    features = 0 if skip is None or skip_weight is None else skip.shape[1]
    return _forward(
        deconv,
        skip=tensor_view(window),
        features=features,
        skip_weight=tensor_view(skip_weight),
        skip_bias=tensor_view(skip_bias),
        skip_scale=skip_scale,
    )


def upsample_add_bwd(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    skip: Tensor | None,
    skip_weight: Tensor | None,
    stride: Pair,
    skip_offset: Pair,
    skip_scale: float,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Gradients for x, weight, skip, skip_weight and skip_bias."""
    size = (grad.shape[2], grad.shape[3])
    grads = deconv_rows_bwd(grad, x, weight, stride, (0, size[0]), (0, size[1]), needs[:2])
    if skip is None:
        return *grads, None, None, None
    grad_skip = window = None
    if needs[2]:
        grad_skip = torch.empty_like(skip, memory_format=dense_format(skip))
        window = crop(grad_skip, skip_offset, size)
        _clear_around(grad_skip, skip_offset, size)
    if skip_weight is None:
        if window is not None:
            torch.mul(grad, skip_scale, out=window)
        return *grads, grad_skip, None, None
    features = crop(skip, skip_offset, size)
    grad_weight = skip_weight.new_empty(skip_weight.shape) if needs[3] else None
    grad_bias = skip_weight.new_empty(len(skip_weight)) if needs[4] else None
    if window is not None:
        score_backward(grad, features, skip_weight, skip_scale, window, None, None, 1.0)
    backward = score_backward if len(skip_weight) <= SKINNY else wide_backward
    backward(grad, features, skip_weight, skip_scale, None, grad_weight, grad_bias, 1.0)
    return *grads, grad_skip, grad_weight, grad_bias


def _clear_around(grad: Tensor, offset: Pair, size: Pair) -> None:
    """Zeros outside the window."""
    (top, left), bottom, right = offset, offset[0] + size[0], offset[1] + size[1]
    rows = grad[:, :, top:bottom]
    for border in (grad[:, :, :top], grad[:, :, bottom:], rows[..., :left], rows[..., right:]):
        if border.numel() > 0:
            border.zero_()


def deconv_rows_fwd(x: Tensor, weight: Tensor | None, stride: Pair, rows: Pair, cols: Pair) -> Tensor:
    """Output[:, :, rows, cols] of the transposed convolution of ``x`` without padding, alone.

    Bands of rows put together are bit for bit the whole output.

    Args:
        x: N×Cin×h×w. weight: as for upsample_add. stride: (sy, sx).
        rows: first row and end, inside the full output. cols: the same for columns.
    """
    return _forward(_Deconv(x, weight, stride, rows, cols))


def deconv_rows_bwd(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    stride: Pair,
    rows: Pair,
    cols: Pair,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None]:
    """What the gradient of output[:, :, rows, cols] contributes to those of ``x`` and ``weight``.

    Both have the shape and type of their tensor; sum them over the bands.
    """
    deconv = _Deconv(x, weight, stride, rows, cols)
    grad_x = torch.empty_like(x, memory_format=dense_format(x)) if needs[0] else None
    if grad_x is not None:
        kernels.upsample_add_grad_x(deconv.struct(grad), tensor_view(grad_x), stream_of(x))
    if not needs[1] or weight is None:
        return grad_x, None
    parts = deconv.parts()
    partials = torch.empty((parts, *weight.shape), dtype=torch.float32, device=x.device)
    kernels.upsample_add_grad_weight(deconv.struct(grad), partials.data_ptr(), parts, stream_of(x))
    return grad_x, partials.sum(0).to(weight.dtype)


class _Deconv(NamedTuple):
    """A transposed convolution, and the rows and columns of its output that are wanted."""

    x: Tensor
    weight: Tensor | None
    stride: Pair
    rows: Pair
    cols: Pair

    @property
    def kind(self) -> int:
        if self.weight is None:
            return _BILINEAR
        return _DEPTHWISE if is_depthwise(self.weight, self.x.shape[1]) else _DENSE

    @property
    def outputs(self) -> int:
        return out_shape(self.x, self.weight, self.stride)[1]

    @property
    def kernel(self) -> Pair:
        if self.weight is None:
            sy, sx = self.stride
            return 2 * sy - sy % 2, 2 * sx - sx % 2
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def size(self) -> Pair:
        return self.rows[1] - self.rows[0], self.cols[1] - self.cols[0]

    def struct(self, y: Tensor) -> Any:
        """The kernels' parameters; ``y`` is the output or its gradient."""
        images, inputs, height, width = self.x.shape
        return filled(
            "Deconv",
            x=tensor_view(self.x),
            weight=tensor_view(self.weight),
            y=tensor_view(y),
            kind=self.kind,
            images=images,
            inputs=inputs,
            outputs=self.outputs,
            height=height,
            width=width,
            kernel=self.kernel,
            stride=self.stride,
            begin=(self.rows[0], self.cols[0]),
            size=self.size,
        )

    def parts(self) -> int:
        """How many partial sums the gradient of the weight is formed in: enough blocks, not too short sums."""
        n, inputs, h, w = self.x.shape
        pairs = -(-inputs // 8) * -(-self.outputs // 8) if self.kind == _DENSE else self.outputs
        blocks = self.kernel[0] * self.kernel[1] * pairs
        return max(1, min(_BLOCKS // blocks, n * h * w // _LEAST_PIXELS))


def _forward(deconv: _Deconv, **skip: Any) -> Tensor:
    x = deconv.x
    shape = (len(x), deconv.outputs, *deconv.size)
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=dense_format(x))
    if out.numel() > 0:
        kernels.upsample_add_fwd(filled("UpsampleAdd", deconv=deconv.struct(out), **skip), stream_of(x))
    return out
