"""Learning-rate schedules: a factor of the base rate as a function of the training's progress in [0, 1]."""

from __future__ import annotations

import math

SCHEDULES = ("constant", "poly", "step", "cosine")
POLY_POWER = 0.9
STEP_POINTS = (0.6, 0.85)
STEP_FACTOR = 0.1


def schedule_factor(kind: str, progress: float) -> float:
    """The factor of the base learning rate at ``progress`` (0 at the start, 1 at the end).

    ``constant``: 1 (the paper's solvers). ``poly``: (1 - progress)^0.9. ``step``: divided by ten at 60 % and at
    85 %. ``cosine``: half a cosine from 1 to 0.

    Raises:
        ValueError: the schedule is unknown.
    """
    progress = min(max(progress, 0.0), 1.0)
    if kind == "constant":
        return 1.0
    if kind == "poly":
        return float((1.0 - progress) ** POLY_POWER)
    if kind == "step":
        return STEP_FACTOR ** sum(progress >= point for point in STEP_POINTS)
    if kind == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {kind!r}")


def warmup_factor(iteration: int, warmup: int) -> float:
    """Linear warm-up: 1/warmup at iteration 0, 1 from iteration ``warmup - 1`` on."""
    return 1.0 if iteration >= warmup else (iteration + 1) / warmup
