"""Loss sampling: which pixels of which images count (CVPR sections 3.4 and 4.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fcnkern.data import IGNORE
from fcnkern.engine.settings import TrainSettings
from fcnkern.sampling import Sampling


def balanced_probabilities(shares: Sequence[float], p: float) -> list[float]:
    """Probability to keep a pixel of each class so that the classes count alike and the share ``p`` is kept.

    Each class keeps the same number of pixels, but for those that have fewer, which keep all of theirs. A class that
    never occurs keeps all too.

    Args:
        shares: of the classes among the pixels; their sum is 1.
        p: share of all pixels to keep, in (0, 1].
    """
    kept = [1.0] * len(shares)
    left = p
    rising = sorted((share, index) for index, share in enumerate(shares) if share > 0)
    for rank, (share, index) in enumerate(rising):
        quota = min(share, left / (len(rising) - rank))
        kept[index] = quota / share
        left -= quota
    return kept


class LossSampling:
    """The ``Sampling`` of each batch, or None; seeds come from torch's generator, whose state checkpoints hold.

    To keep the expected number of pixels per iteration, a batch has 1/p times the images.

    Args:
        settings: ``sampling`` (p), ``sampling_mode``, ``cell``, ``batch_size``. ``uniform`` keeps cells with
            probability p, ``balanced`` the pixels of each class with its own, ``hard`` the share p of the pixels
            of least target probability.
        class_p: probabilities of the classes, for ``balanced``.

    Attributes:
        images: images per batch.
        images_ratio: those divided by ``batch_size``.
    """

    def __init__(self, settings: TrainSettings, class_p: Sequence[float] | None = None) -> None:
        self._p, self._mode, self._cell = settings.sampling, settings.sampling_mode, settings.cell
        self.class_p = class_p
        self.images = round(settings.batch_size / (self._p or 1.0))
        self.images_ratio = self.images / settings.batch_size

    def __call__(self, labels: Tensor) -> Sampling | None:
        """The sampling for a batch of labels N,H,W."""
        if self._p is None:
            return None
        if self._mode == "hard":
            valid = int((labels != IGNORE).sum())
            return Sampling.hard(threshold=0.0, min_kept=round(self._p * valid))
        seed = int(torch.randint(2**62, ()).item())
        if self._mode == "balanced":
            assert self.class_p is not None
            return Sampling.balanced(self.class_p, cell=self._cell, seed=seed)
        return Sampling(self._p, cell=self._cell, seed=seed)
