"""The settings of one `upsample_cross_entropy` call, as they travel from the operation to a backend."""

from __future__ import annotations

from typing import Any, NamedTuple

from fcnkern.resample import Resample

SETTINGS_SCHEMA = (
    "str resample, int ignore_index, float label_smoothing, str reduction, float[] keep, int cell, "
    "float[] hard, bool need_grad, bool need_weight_grad, bool need_stats"
)
REDUCTIONS = ("valid", "batch", "sum", "none")


class LossCall(NamedTuple):
    """What a backend needs beside the tensors."""

    resample: Resample
    ignore_index: int
    label_smoothing: float
    reduction: str
    keep: tuple[float, ...]
    """Probability of keeping a pixel: () keeps all, one entry for every pixel, or one per class."""
    cell: int
    hard: tuple[float, int] | None
    """(threshold, min_kept) of hard-pixel mining."""
    need_grad: bool
    """Whether the gradient for the scores is wanted; ``need_weight_grad``: that for a learned weight."""
    need_weight_grad: bool
    need_stats: bool

    @property
    def need_any_grad(self) -> bool:
        """Whether any gradient is wanted."""
        return self.need_grad or self.need_weight_grad

    def plain_losses(self) -> LossCall:
        """The call for a map of losses alone, by which hard pixels are found."""
        return self._replace(
            reduction="none", label_smoothing=0.0, need_grad=False, need_weight_grad=False, need_stats=False
        )

    def settings(self) -> tuple[Any, ...]:
        """The values of SETTINGS_SCHEMA."""
        hard = [] if self.hard is None else [self.hard[0], float(self.hard[1])]
        return (self.resample.spec, *self[1:4], list(self.keep), self.cell, hard, *self[7:])

    @staticmethod
    def of(resample: str, *settings: Any) -> LossCall:
        """The call whose `settings` these are."""
        ignore_index, label_smoothing, reduction, keep, cell, hard, *needs = settings
        mining = (hard[0], int(hard[1])) if hard else None
        numbers = (ignore_index, label_smoothing, reduction, tuple(keep), cell, mining)
        return LossCall(Resample.parse(resample), *numbers, *needs)
