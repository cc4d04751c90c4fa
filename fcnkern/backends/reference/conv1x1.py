"""conv1x1 in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnkern.backends.reference.philox import element_words


def _kept(shape: torch.Size, dropout_p: float, seed: Tensor) -> Tensor:
    return (element_words(seed, shape.numel()) >= dropout_p * 2**32).view(shape)


def conv1x1_fwd(
    x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, dropout_p: float, seed: Tensor | None
) -> Tensor:
    """F.conv2d, ReLU, and dropout by the mask of the seed."""
    out = F.conv2d(x, weight, bias)
    if relu:
        out = out.relu()
    if seed is not None:
        out = torch.where(_kept(out.shape, dropout_p, seed), out / (1 - dropout_p), 0)
    return out


def conv1x1_bwd(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    out: Tensor | None,
    relu: bool,
    dropout_p: float,
    seed: Tensor | None,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients for x, weight and bias."""
    if seed is not None:
        grad = torch.where(_kept(grad.shape, dropout_p, seed), grad / (1 - dropout_p), 0)
    if out is not None:
        grad = grad.masked_fill(out <= 0, 0)
    need_x, need_weight, need_bias = needs
    return (
        F.conv2d(grad, weight.transpose(0, 1)) if need_x else None,
        torch.einsum("nohw,nchw->oc", grad, x)[:, :, None, None] if need_weight else None,
        grad.sum((0, 2, 3)) if need_bias else None,
    )
