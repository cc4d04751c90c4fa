"""`upsample_add` with the C++ kernels, and its transposed convolution alone, band by band."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from fcnkern._tensors import accumulation_type, crop
from fcnkern.backends._arguments import TensorArguments, tensor_view
from fcnkern.backends.cpu._extension import kernels
from fcnkern.backends.cpu._memory import in_huge_pages
from fcnkern.backends.cpu.conv1x1 import score_backward
from fcnkern.ops._checks import dense_format
from fcnkern.ops.upsample_add import is_depthwise, outputs_of
from fcnkern.resample import Pair

_DENSE, _DEPTHWISE, _SHARED = range(3)


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
    """Upsampled ``x`` plus the cropped skip, in one pass; of features only the crop is read."""
    deconv = _Deconv.of(x, weight, stride)
    size = deconv.out_size
    shape = (len(x), deconv.outputs, *size)
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=dense_format(x))
    if out.numel() == 0:
        return out
    window = None if skip is None else crop(skip, skip_offset, size)
    channels = 0 if skip is None or skip_weight is None else skip.shape[1]
    views = (tensor_view(window), channels, tensor_view(skip_weight), tensor_view(skip_bias), skip_scale)
    kernels.upsample_add_forward(*deconv.arguments((0, 0), size, in_huge_pages(out)), *views)
    return out


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
    grad_x, grad_weight = deconv_rows_bwd(grad, x, weight, stride, (0, size[0]), (0, size[1]), needs[:2])
    grad_skip = grad_skip_weight = grad_skip_bias = None
    if skip is None:
        return grad_x, grad_weight, None, None, None
    if needs[2]:
        grad_skip = in_huge_pages(torch.empty_like(skip, memory_format=dense_format(skip))).zero_()
    window = None if grad_skip is None else crop(grad_skip, skip_offset, size)
    if skip_weight is None:
        if window is not None:
            torch.mul(grad, skip_scale, out=window)
        return grad_x, grad_weight, grad_skip, None, None
    if needs[3]:
        grad_skip_weight = skip_weight.new_empty(skip_weight.shape)
    if needs[4]:
        grad_skip_bias = skip_weight.new_empty(len(skip_weight))
    features = crop(skip, skip_offset, size)
    score_backward(grad, features, skip_weight, skip_scale, window, grad_skip_weight, grad_skip_bias)
    return grad_x, grad_weight, grad_skip, grad_skip_weight, grad_skip_bias


def deconv_rows_fwd(x: Tensor, weight: Tensor | None, stride: Pair, rows: Pair, cols: Pair) -> Tensor:
    """Output[:, :, rows, cols] of the transposed convolution of ``x`` without padding, alone.

    Bands of rows put together are bit for bit the whole output. A band reads only the source rows
    (rows[0] - kh) // sy + 1 to (rows[1] - 1) // sy, so ``x`` may be a slice of rows [i0, i1) that holds them, with
    both bounds of ``rows`` less i0 * sy.

    Args:
        x: N×Cin×h×w. weight: as for upsample_add. stride: (sy, sx).
        rows: first row and end, inside the full output. cols: the same for columns.
    """
    deconv = _Deconv.of(x, weight, stride)
    shape = (len(x), deconv.outputs, rows[1] - rows[0], cols[1] - cols[0])
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=dense_format(x))
    if out.numel() > 0:
        arguments = deconv.arguments((rows[0], cols[0]), (rows[1], cols[1]), in_huge_pages(out))
        kernels.upsample_add_forward(*arguments, None, 0, None, None, 1.0)
    return out


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

    Both have the shape and type of their tensor; sum them over the bands. ``x`` may be a slice of rows, as for
    `deconv_rows_fwd`; its gradient is then that of the slice.
    """
    if not any(needs):
        return None, None
    deconv = _Deconv.of(x, weight, stride)
    grad_x = torch.zeros_like(deconv.x) if needs[0] else None
    grad_weight = torch.zeros_like(deconv.weight) if needs[1] else None
    if grad.numel() > 0:
        arguments = deconv.arguments((rows[0], cols[0]), (rows[1], cols[1]), grad)
        addresses = (0 if each is None else each.data_ptr() for each in (grad_x, grad_weight))
        kernels.deconv_backward(*arguments, *addresses)
    if grad_x is not None:
        grad_x = grad_x.to(x.dtype, memory_format=dense_format(x))
    return grad_x, None if grad_weight is None else grad_weight.to(x.dtype)


class _Deconv(NamedTuple):
    """A transposed convolution with its tensors dense and in the accumulation type: both are small."""

    x: Tensor
    weight: Tensor
    kind: int
    outputs: int
    stride: Pair

    @staticmethod
    def of(x: Tensor, weight: Tensor | None, stride: Pair) -> _Deconv:
        dtype = accumulation_type(x.dtype)
        dense = x.to(dtype).contiguous()
        if weight is None:
            return _Deconv(dense, _bilinear_kernel(stride, dtype), _SHARED, x.shape[1], stride)
        kind = _DEPTHWISE if is_depthwise(weight, x.shape[1]) else _DENSE
        return _Deconv(dense, weight.to(dtype).contiguous(), kind, outputs_of(x, weight), stride)

    @property
    def kernel(self) -> Pair:
        return self.weight.shape[-2], self.weight.shape[-1]

    @property
    def out_size(self) -> Pair:
        (h, w), (kh, kw), (sy, sx) = self.x.shape[2:], self.kernel, self.stride
        return (h - 1) * sy + kh, (w - 1) * sx + kw

    def arguments(self, begin: Pair, end: Pair, y: Tensor) -> tuple[object, ...]:
        """What the kernels take first; ``y`` is the output's window [begin, end) or its gradient."""
        n, inputs, h, w = self.x.shape
        sizes = (n, inputs, self.outputs, h, w)
        addresses = (self.x.data_ptr(), self.weight.data_ptr())
        view: TensorArguments | None = tensor_view(y)
        return (
            sizes,
            self.kernel,
            self.stride,
            (*begin, *end),
            self.kind,
            *addresses,
            view,
            torch.get_num_threads(),
        )


@lru_cache(maxsize=64)
def _bilinear_kernel(stride: Pair, dtype: torch.dtype) -> Tensor:
    """kh×kw weights of Caffe's bilinear filler: k = 2s - s % 2, falling linearly from the centre."""
    lines = []
    for s in stride:
        k = 2 * s - s % 2
        places = torch.arange(k, dtype=torch.float64, device="cpu")
        lines.append(1 - (places - (k - 1) / 2).abs() / s)
    return torch.outer(*lines).to(dtype)
