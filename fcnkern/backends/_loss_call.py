"""What the launchers of the fused loss share: how pixels count, on GPUs as kernel arguments, and which are hard."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fcnkern.backends._tables import kept_tables, to_device
from fcnkern.ops._loss_call import LossCall


class Pixels(NamedTuple):
    """All that says how much each pixel counts."""

    target: Tensor
    class_weight: Tensor | None
    seed: Tensor | None
    pixel_weight: Tensor | None
    call: LossCall
    keep: tuple[float, ...]
    hard_losses: Tensor | None = None
    cuts: Tensor | None = None
    """Two numbers; pixels are kept where their loss is > the first or >= the second."""

    @staticmethod
    def of(
        target: Tensor,
        class_weight: Tensor | None,
        seed: Tensor | None,
        pixel_weight: Tensor | None,
        call: LossCall,
    ) -> Pixels:
        """The pixels of a call, before hard ones are mined."""
        return Pixels(
            target,
            None if class_weight is None else class_weight.float().contiguous(),
            seed,
            None if pixel_weight is None else pixel_weight.float().contiguous(),
            call,
            () if seed is None else call.keep,
        )

    def for_mining(self) -> Pixels:
        """The same pixels, with equal weights, for a map of plain losses."""
        return Pixels(self.target, None, None, None, self.call.plain_losses(), ())

    def only_hard(self, mined: tuple[Tensor, Any, Any, Tensor]) -> Pixels:
        """These pixels where they are hard; ``mined``: the result of a run over those `for_mining`."""
        assert self.call.hard is not None
        losses, _, _, stats = mined
        rank_losses(losses)
        threshold, min_kept = self.call.hard
        above = losses.new_full((), -math.log(threshold) if threshold > 0 else math.inf)
        least = torch.full_like(above, math.inf)
        most = min(min_kept, losses.numel())
        if most > 0:
            largest = losses.flatten().topk(most).values
            count = stats[:1].clamp(max=most)
            least = torch.where(count > 0, largest.gather(0, (count - 1).clamp(min=0)), math.inf)[0]
        return self._replace(hard_losses=losses, cuts=torch.stack((above, least)))

    @property
    def divisor(self) -> float:
        """What a sum over pixels is divided by; 0 stands for the sum of the weights."""
        return {"valid": 0.0, "batch": float(self.target.shape[0])}.get(self.call.reduction, 1.0)

    @property
    def sampling(self) -> int:
        """0 keeps all pixels, 1 with one probability, 2 with one per class."""
        return 0 if not self.keep else 1 if len(self.keep) == 1 else 2

    def modes(self) -> dict[str, Any]:
        """The constants that kernels specialise on."""
        return {
            "MAP": self.call.reduction == "none",
            "WEIGHTED": self.class_weight is not None,
            "SMOOTH": self.call.label_smoothing > 0,
            "PIXEL_WEIGHT": self.pixel_weight is not None,
            "SAMPLING": self.sampling,
            "HARD": self.cuts is not None,
        }

    def selection(self) -> tuple[Tensor, ...]:
        """Pointers that decide which pixels count: limits, seed, losses and cuts of the hard mode."""
        none = self.target
        limits = limits_of(self.keep, self.target.device) if self.keep else none
        return limits, given(self.seed, none), given(self.hard_losses, none), given(self.cuts, none)

    def weights(self) -> tuple[Tensor, ...]:
        """Pointers to the class weights, their sum, and the pixel weights."""
        none = self.target
        total = none
        if self.class_weight is not None and self.call.label_smoothing > 0:
            total = self.class_weight.sum()
        return given(self.class_weight, none), total, given(self.pixel_weight, none)


def rank_losses(losses: Tensor) -> None:
    """Makes losses that hard pixels are mined from comparable, in place.

    Ignored pixels, which have 0, rank behind all others, where rounding left less than 0 too; NaN ranks first, so
    that it is kept and seen.
    """
    losses.clamp_(min=0).nan_to_num_(nan=math.inf, posinf=math.inf)


def given(tensor: Tensor | None, none: Tensor) -> Tensor:
    """The tensor, or one that stands for none: a kernel does not touch it."""
    return none if tensor is None else tensor


@kept_tables(64)
def limits_of(keep: tuple[float, ...], device: torch.device) -> Tensor:
    """Largest random word that keeps a pixel, for each probability."""
    return to_device(np.ceil(np.array(keep) * 2.0**32).astype(np.int64) - 1, torch.int64, device)
