"""The paper's recipes, and the converter between summed and mean losses, on a real network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fcnkern.engine import RECIPES, Rates, TrainSettings, convert_rate, with_recipe
from fcnkern.engine.trainer import Trainer
from tests.engine._runs import Images, tiny

END = {"iterations": 1}


def test_the_released_solvers() -> None:
    # solver.prototxt of voc-fcn32s, 16s, 8s and 8s-atonce
    for arch, lr in {"fcn32s": 1e-10, "fcn16s": 1e-12, "fcn8s": 1e-14, "fcn8s-atonce": 1e-10}.items():
        settings = TrainSettings(**with_recipe({**END, "recipe": "heavy", "arch": arch}))
        assert settings.lr == pytest.approx(lr)
        assert (settings.momentum, settings.weight_decay, settings.accumulate) == (0.99, 5e-4, 1)
        assert (settings.reduction, settings.schedule, settings.clip, settings.warmup) == (
            "batch",
            "constant",
            None,
            0,
        )


def test_the_rates_of_the_article() -> None:
    for arch, lr in {"fcn32s_alexnet": 1e-3, "fcn32s": 1e-4, "fcn32s_googlenet": 5e-5}.items():
        accumulated, online = (
            TrainSettings(**with_recipe({**END, "recipe": name, "arch": arch}))
            for name in ("accumulated", "online")
        )
        assert accumulated.lr == online.lr == pytest.approx(lr)
        assert (accumulated.accumulate, online.accumulate) == (20, 1)
        assert accumulated.momentum == online.momentum == 0.9
        assert accumulated.reduction == online.reduction == "valid"


def test_stages_begin_at_the_rate_of_their_first() -> None:
    values = with_recipe({"recipe": "heavy", "stages": (32, 16, 8)})
    assert (values["lr"], values["stage_lr"]) == (1e-10, 0.01)
    assert with_recipe({"recipe": "heavy", "stages": (16, 8)})["lr"] == pytest.approx(1e-12)


def test_what_is_given_comes_before_the_recipe() -> None:
    values = with_recipe({"recipe": "heavy", "momentum": 0.5, "lr": 1.0, "clip": 3.0})
    assert (values["momentum"], values["lr"], values["clip"], values["reduction"]) == (0.5, 1.0, 3.0, "batch")
    assert "recipe" not in values


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"recipe": "light"}, "recipe must be one of accumulated, online, heavy, got 'light'"),
        ({"recipe": ["heavy"]}, r"recipe must be one of accumulated, online, heavy, got \['heavy'\]"),
        (
            {"recipe": "heavy", "arch": "fcn32s_googlenet"},
            "heavy has a rate for vgg16, none for googlenet: give lr",
        ),
    ],
)
def test_bad_recipes_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_recipe(given)


def test_converted_rates_make_the_same_steps(tmp_path: Path) -> None:
    """Three images of the same number of labelled pixels: summed and mean losses move the weights alike."""
    rng = np.random.default_rng(0)
    images = Images([rng.integers(0, 3, (24, 32)).astype(np.uint8) for _ in range(3)], classes=11)
    summed = Rates(2e-5, 0.5)
    mean = convert_rate(summed, "batch", "valid", 24 * 32)
    moved = {}
    for reduction, rates in (("batch", summed), ("valid", mean)):
        out = tmp_path / reduction
        settings = {"lr": rates.lr, "weight_decay": rates.weight_decay, "schedule": "constant", "clip": None}
        ready = tiny(out, reduction=reduction, dropout=0.0, iterations=3, **settings)
        before = ready.model.score_fr.weight.detach().clone()
        Trainer(ready.settings, ready.model, images, None, out, quiet=True).run()
        moved[reduction] = ready.model.score_fr.weight.detach() - before
        moved[f"body {reduction}"] = ready.model.get_parameter("conv1_1.weight").detach().clone()
    assert moved["batch"].abs().max() > 1e-4
    torch.testing.assert_close(moved["valid"], moved["batch"], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(moved["body valid"], moved["body batch"], rtol=1e-4, atol=1e-7)


def test_convert_rate_by_hand() -> None:
    assert convert_rate(Rates(1e-10, 5e-4), "batch", "valid", 187_500) == pytest.approx(
        Rates(1.875e-5, 2.667e-9), rel=1e-3
    )
    there = convert_rate(Rates(0.1, 0.2), "valid", "batch", 50)
    assert convert_rate(there, "batch", "valid", 50) == pytest.approx((0.1, 0.2))
    assert convert_rate(Rates(0.1, 0.2), "valid", "valid", 50) == (0.1, 0.2)
    with pytest.raises(ValueError, match="source must be one of valid, batch, got 'sum'"):
        convert_rate(Rates(1, 1), "sum", "valid", 5)
    with pytest.raises(ValueError, match="pixels must be more than 0, got 0"):
        convert_rate(Rates(1, 1), "batch", "valid", 0)


def test_every_recipe_trains(tmp_path: Path) -> None:
    for name in RECIPES:
        settings = with_recipe({"recipe": name, "iterations": 1, "arch": "fcn32s"})
        assert tiny(tmp_path / name, **settings).run().iteration == 1
