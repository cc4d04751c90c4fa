"""The paper's ways to train, and what a learning rate for one kind of loss is for the other.

Sources: CVPR 2015 section 4.3 (rates by body, accumulated batches of 20), the released solvers (summed loss, momentum
0.99) and Table 2 of the PAMI article (the three regimes).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fcnkern.engine.settings import REDUCTIONS
from fcnkern.models.registry import parse_name

SKIP_RATE = 0.01
"""With each skip connection the rate falls to a hundredth (CVPR section 4.2, the released solvers), and so for two
trained networks that are fused late (the released solver of NYUDv2's color-hha)."""
PLAIN: dict[str, Any] = {
    "batch_size": 1,
    "weight_decay": 5e-4,
    "score_lr": 1.0,
    "schedule": "constant",
    "warmup": 0,
    "clip": None,
    "stage_lr": SKIP_RATE,
}
MEAN_RATES = {"alexnet": 1e-3, "caffenet": 1e-3, "vgg16": 1e-4, "googlenet": 5e-5}
SUMMED_RATES = {"vgg16": 1e-10}
RECIPES: dict[str, tuple[dict[str, float], dict[str, Any]]] = {
    "accumulated": (MEAN_RATES, {"accumulate": 20, "momentum": 0.9, "reduction": "valid"}),
    "online": (MEAN_RATES, {"accumulate": 1, "momentum": 0.9, "reduction": "valid"}),
    "heavy": (SUMMED_RATES, {"accumulate": 1, "momentum": 0.99, "reduction": "batch"}),
}
"""Rate of an FCN-32s by body, and the settings, of each recipe."""


def with_recipe(given: dict[str, Any]) -> dict[str, Any]:
    """Settings with those of the recipe that their entry ``recipe`` names; what is given otherwise stays.

    The rate is that of the network: of the first of the stages, where there are stages, else of ``arch``.

    Raises:
        ValueError: the recipe is unknown, or no rate is published for the body and none is given.
    """
    given = dict(given)
    name = given.pop("recipe", None)
    if name is None:
        return given
    if not isinstance(name, str) or name not in RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, got {name!r}")
    rates, values = RECIPES[name]
    values = {**PLAIN, **values, **given}
    if "lr" not in given:
        head, body, late = parse_name(given.get("arch", "fcn8s"))
        if body not in rates:
            raise ValueError(f"recipe {name} has a rate for {', '.join(rates)}, none for {body}: give lr")
        first = f"fcn{given['stages'][0]}s" if given.get("stages") else head
        values["lr"] = rates[body] * SKIP_RATE ** ({"fcn16s": 1, "fcn8s": 2}.get(first, 0) + late)
    return values


class Rates(NamedTuple):
    """What depends on the kind of loss."""

    lr: float
    weight_decay: float


def convert_rate(rates: Rates, source: str, target: str, pixels: float) -> Rates:
    """Learning rate and weight decay that make the same steps with the other kind of loss.

    The loss summed over the pixels of an image (``batch``) is ``pixels`` times their mean (``valid``), and so is its
    gradient: the rate is divided by as much. Weight decay joins the gradient before the rate, so it is multiplied.
    The released 1e-10 is 1.9e-5 for the mean over 500x375 pixels; its weight decay of 5e-4 is 2.7e-9 there, which is
    none. Momentum is the same for both. Exact for images with as many labelled pixels; an average otherwise.

    Args:
        source, target: ``batch`` or ``valid``, the values of the setting ``reduction``.
        pixels: labelled pixels per image.

    Raises:
        ValueError: another kind of loss, or pixels not above 0.
    """
    for name, kind in (("source", source), ("target", target)):
        if kind not in REDUCTIONS:
            raise ValueError(f"{name} must be one of {', '.join(REDUCTIONS)}, got {kind!r}")
    if not pixels > 0:
        raise ValueError(f"pixels must be more than 0, got {pixels}")
    factor = {("batch", "valid"): pixels, ("valid", "batch"): 1 / pixels}.get((source, target), 1.0)
    return Rates(rates.lr * factor, rates.weight_decay / factor)
