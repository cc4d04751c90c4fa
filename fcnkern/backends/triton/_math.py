"""Device functions shared by the kernels: matrix products, and elementary functions, fast where the target can."""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import libdevice
from triton.runtime.driver import driver

from fcnkern.backends.triton._launch import INTERPRETED

_INTERPRETED = tl.constexpr(INTERPRETED)
_NVIDIA = tl.constexpr(not INTERPRETED and torch.version.hip is None and not torch.xpu.is_available())

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


def precision(tensor: Tensor) -> str:
    """How `dot` forms products of fp32: by three TF32 products with compensation where those are fast.

    Their error is that of fp32 sums. One TF32 product only where the user allowed it for matrix products.
    """
    if tensor.dtype != torch.float32 or not _has_tf32(tensor.device):
        return "ieee"
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "tf32x3"


@lru_cache(maxsize=16)
def _has_tf32(device: torch.device) -> bool:
    """``device``, which is current, stands for what it is in the cache: the target is what counts."""
    if INTERPRETED:
        return False
    target = driver.active.get_current_target()
    return target.backend == "cuda" and target.arch >= 80


@triton.jit
def log2(x):
    """Binary logarithm of normal positive fp32 numbers: one MUFU.LG2 on NVIDIA (absolute error 2^-22 near 1)."""
    return libdevice.fast_log2f(x) if _NVIDIA else tl.log2(x)


@triton.jit
def divide(a, b):
    """``a / b`` in fp32 for ``|b|`` in 2^-126..2^126: one MUFU.RCP and one multiplication on NVIDIA (2 ulp)."""
    return libdevice.fast_dividef(a, b) if _NVIDIA else a / b


@triton.jit
def dot(a, b, total, PRECISION: tl.constexpr):
    """``total + a b`` in fp32. The interpreter multiplies the bits of bf16 operands, so it gets fp32 ones."""
    if _INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    if PRECISION == "tf32x3" and a.dtype == tl.float32:
        # Tensor cores truncate as they accumulate: only the products of one step, which then are added rounded.
        product = tl.dot(a, b, input_precision=PRECISION)
        total = tl.fma(product, tl.full(total.shape, 1.0, tl.float32), total)
    else:
        total = tl.dot(a, b, total, input_precision=PRECISION)
    return total
