"""The random changes of training images that a run's settings ask for."""

from __future__ import annotations

from pathlib import Path

from fcnkern.data import Augment, load_pipeline
from fcnkern.engine.settings import TrainSettings

PAPER_SHIFT = 32
"""Pixels in each direction, the coarsest stride (CVPR section 4.3)."""


def augmentation(settings: TrainSettings) -> Augment | None:
    """What changes the samples, or None where nothing does: ``augment`` is the paper's mirror and shift.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: as ``load_pipeline``.
    """
    shift = settings.shift
    if shift is None:
        shift = PAPER_SHIFT if settings.augment else 0
    pipeline = None if settings.pipeline is None else load_pipeline(Path(settings.pipeline))
    if not (settings.augment or shift or settings.scale or settings.crop or pipeline):
        return None
    return Augment(
        settings.seed,
        mirror=settings.augment,
        scale=settings.scale,
        translate=shift,
        crop=settings.crop,
        pipeline=pipeline,
    )
