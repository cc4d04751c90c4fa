"""`Sampling`: which pixels of the loss are kept (patchwise training as loss sampling)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fcnkern.resample import as_whole, check_share


def _probabilities(name: str, values: Sequence[float], wanted: str) -> tuple[float, ...]:
    try:
        kept = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be {wanted}, got {values!r}") from None
    if not kept or not all(0.0 <= value <= 1.0 for value in kept):
        raise ValueError(f"{name} must lie in 0..1, got {values!r}")
    return kept


@dataclass(frozen=True)
class Sampling:
    """Keeps a random or a hard part of the pixels in a loss (Long et al. 2015, sections 3.4 and 4.3).

    ``Sampling(p, cell)`` keeps each cell of ``cell``×``cell`` output pixels of each image with probability
    ``p``, independently. Pixel (n, Y, X) is kept iff the first word of Philox4x32-10 with the 64-bit ``seed`` as
    key and (X // cell, Y // cell, n, 0) as counter is below p·2³²: a pure function, the same on every backend.

    Args:
        p: probability in 0..1.
        cell: side of a cell in output pixels, less than 2**31; 32 is the paper's final-layer cell.
        seed: whole number or int64 tensor of one element; None draws one from torch's generator at each call.
    """

    p: float | tuple[float, ...] = 1.0
    cell: int = 1
    seed: int | Tensor | None = None
    threshold: float | None = None
    min_kept: int = 0

    def __post_init__(self) -> None:
        _probabilities("p", self.keep, "a number or a tuple of them")
        if as_whole("cell", self.cell) < 1:
            raise ValueError(f"cell must be at least 1 pixel, got {self.cell}")
        if self.cell >= 2**31:
            raise ValueError(f"cell must be less than 2**31 pixels, got {self.cell}")
        if self.threshold is not None:
            check_share("threshold", self.threshold)
        if self.seed is not None and not isinstance(self.seed, Tensor):
            as_whole("seed", self.seed, "a whole number or an int64 tensor")
        if as_whole("min_kept", self.min_kept) < 0:
            raise ValueError(f"min_kept must not be negative, got {self.min_kept}")

    @classmethod
    def balanced(cls, class_p: Sequence[float], cell: int = 1, seed: int | Tensor | None = None) -> Sampling:
        """Keeps a pixel with the probability of its class: ``class_p`` has C entries in 0..1.

        All pixels of a cell share one draw, so within a cell the pixels of a likelier class include those kept
        of a rarer one.
        """
        return cls(_probabilities("class_p", class_p, "several numbers, one per class"), cell, seed)

    @classmethod
    def hard(cls, threshold: float = 0.7, min_kept: int = 0) -> Sampling:
        """Keeps the pixels whose target probability is below ``threshold``, and at least ``min_kept`` of the batch.

        Where fewer lie below, the ``min_kept`` valid pixels of least target probability are kept, with all that
        tie with the last of them (online hard example mining).
        """
        return cls(threshold=threshold, min_kept=min_kept)

    @property
    def keep(self) -> tuple[float, ...]:
        """Probability of keeping a pixel: one number, or one per class."""
        return self.p if isinstance(self.p, tuple) else (self.p,)

    @property
    def is_random(self) -> bool:
        """Whether a draw decides: False for the hard mode and where everything is kept."""
        return self.threshold is None and self.keep != (1.0,)
