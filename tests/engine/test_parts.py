"""Schedules, optimiser, settings, log, class weights: each against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fcnkern.engine.class_weights import class_frequencies, class_weights
from fcnkern.engine.log import CsvLog, read_log
from fcnkern.engine.optim import make_optimizer, set_rate
from fcnkern.engine.schedules import schedule_factor, warmup_factor
from fcnkern.engine.settings import TrainSettings
from fcnkern.models import FCN8s
from tests.engine._runs import Images


@pytest.mark.parametrize(
    ("kind", "progress", "factor"),
    [
        ("constant", 0.7, 1.0),
        ("poly", 0.0, 1.0),
        ("poly", 0.5, 0.5**0.9),
        ("poly", 1.0, 0.0),
        ("poly", 1.5, 0.0),
        ("step", 0.59, 1.0),
        ("step", 0.6, 0.1),
        ("step", 0.9, 0.01),
        ("cosine", 0.0, 1.0),
        ("cosine", 1 / 3, 0.75),
        ("cosine", 1.0, 0.0),
    ],
)
def test_schedules(kind: str, progress: float, factor: float) -> None:
    assert schedule_factor(kind, progress) == pytest.approx(factor, abs=1e-12)


def test_warmup_is_linear_and_ends_at_one() -> None:
    assert [warmup_factor(i, 4) for i in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert warmup_factor(0, 0) == 1.0


def test_an_unknown_schedule_is_named() -> None:
    with pytest.raises(ValueError, match=r"constant, poly, step, cosine, got 'linear'"):
        schedule_factor("linear", 0.0)


def groups_of(model: FCN8s, **settings: Any) -> dict[str, tuple[float, float]]:
    optimizer = make_optimizer(model, momentum=0.9, weight_decay=5e-4, **settings)
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: (group["lr_mult"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_parameter_groups_are_the_papers() -> None:
    groups = groups_of(FCN8s(3, width=0.01), score_lr=10.0)
    assert groups["conv1_1.weight"] == groups["fc7.weight"] == (1.0, 5e-4)
    assert groups["conv1_1.bias"] == groups["fc7.bias"] == (2.0, 0.0)
    assert groups["score_pool3.weight"] == (10.0, 5e-4)
    assert groups["score_fr.bias"] == (20.0, 0.0)
    assert not any(name.startswith("up") for name in groups)


def test_learned_upsampling_learns_without_decay() -> None:
    model = FCN8s(3, width=0.01, upsampling="learned")
    groups = groups_of(model)
    assert set(groups) == {name for name, _ in model.named_parameters()}
    assert groups["upscore2.weight"] == (1.0, 0.0)


def test_a_step_moves_biases_twice_as_far_and_decays_weights_only() -> None:
    layer = torch.nn.Conv2d(1, 1, 1)
    torch.nn.init.constant_(layer.weight, 2.0)
    torch.nn.init.constant_(layer.bias, 2.0)
    optimizer = make_optimizer(torch.nn.ModuleDict({"conv": layer}), momentum=0.5, weight_decay=0.25)
    for _ in range(2):
        layer.weight.grad, layer.bias.grad = torch.ones_like(layer.weight), torch.ones_like(layer.bias)
        set_rate(optimizer, 0.1)
        optimizer.step()
    # weight: v = 1 + 0.25*2 = 1.5 -> 1.85; v = 0.75 + 1 + 0.4625 -> 1.62875. bias: v = 1 -> 1.8; v = 1.5 -> 1.5
    assert layer.weight.item() == pytest.approx(1.62875)
    assert layer.bias.item() == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({}, "needs an end"),
        ({"iterations": 0}, "iterations must be more than 0, got 0"),
        ({"iterations": 1, "arch": "unet"}, "arch must be one of fcn32s.*got 'unet'"),
        ({"iterations": 1, "momentum": 1.0}, "momentum must be less than 1, got 1.0"),
        ({"iterations": 1, "sampling": 0.0}, "sampling must be more than 0, got 0.0"),
        ({"iterations": 1, "crop": (0, 5)}, "crop must be a positive height and width"),
        ({"time_limit": -1.0}, "time_limit must be more than 0"),
        ({"iterations": 1, "lr": float("nan")}, "lr must be more than 0, got nan"),
        ({"iterations": 1, "lr": None}, "lr must be a number, got None"),
        ({"iterations": 1, "lr": "0.1"}, "lr must be a number, got '0.1'"),
        ({"iterations": 1, "batch_size": 2.5}, "batch_size must be a whole number, got 2.5"),
        ({"iterations": "100"}, "iterations must be a whole number or None, got '100'"),
        ({"iterations": 1, "seed": True}, "seed must be a whole number, got True"),
        ({"iterations": 1, "augment": 1}, "augment must be true or false, got 1"),
        ({"iterations": 1, "weights": 5}, "weights must be text or None, got 5"),
        ({"iterations": 1, "upsampling": ["fixed"]}, r"upsampling must be text, got \['fixed'\]"),
        ({"iterations": 1, "crop": 5}, "crop must be whole numbers in a tuple or list or None, got 5"),
        ({"iterations": 1, "scale": ("1", "2")}, "scale must be numbers in a tuple or list or None, got"),
    ],
)
def test_bad_settings_are_named(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainSettings(**bad)


def test_lists_are_taken_for_tuples() -> None:
    settings = TrainSettings(iterations=1, stages=[32, 16, 8], crop=[10, 20], scale=[1, 2])  # type: ignore[arg-type]
    assert (settings.stages, settings.crop, settings.scale) == ((32, 16, 8), (10, 20), (1, 2))


def test_settings_survive_a_checkpoint_and_refuse_to_change_the_past() -> None:
    settings = TrainSettings(iterations=5, crop=(10, 20), clip=None)
    assert TrainSettings.from_dict(settings.to_dict()) == settings
    assert settings.changed(iterations=9, lr=settings.lr).iterations == 9
    with pytest.raises(ValueError, match=r"lr cannot change when resuming \(the run has 0.01, got 0.5\)"):
        settings.changed(lr=0.5)
    with pytest.raises(
        ValueError,
        match=r"unknown training settings: momentun \(did you mean momentum\?\), xyz; there are iterations, ",
    ):
        TrainSettings.from_dict({"iterations": 1, "momentun": 1, "xyz": 2})


def test_the_log_drops_what_a_resumed_run_writes_again(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log = CsvLog(path, 0)
    for iteration in (1, 2, 3):
        log.write(iteration=iteration, split="train", loss=1 / iteration)
    log.close()
    with path.open("a") as file:
        file.write("4,train,0.2")  # a kill in the middle of a row
    assert [row["iteration"] for row in read_log(path)] == ["1", "2", "3"]
    resumed = CsvLog(path, 2)
    resumed.write(iteration=3, split="train", loss=0.5)
    resumed.close()
    assert [row["loss"] for row in read_log(path)] == ["1.0", "0.5", "0.5"]


def test_class_weights_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    mixed = np.array([[0, 0, 0, 1], [255, 255, 255, 255]], np.uint8)
    plain = np.zeros((1, 4), np.uint8)
    dataset = Images([mixed, plain])
    # class 0: 7 of 8 pixels; class 1: 1 of the 4 pixels of its only image; class 2 never
    assert class_frequencies(dataset).tolist() == [7 / 8, 1 / 4, 0.0]
    median = class_weights("median", dataset)
    assert median is not None
    middle = (7 / 8 + 1 / 4) / 2
    assert torch.allclose(median, torch.tensor([middle / 0.875, middle / 0.25, middle / 0.25]))
    assert "(at most 200), largest weight: class 2\n" in capsys.readouterr().err
    root = class_weights("sqrt", dataset)
    assert root is not None
    assert torch.allclose(root, median.sqrt())
    assert class_weights("none", dataset) is None
    given = class_weights("1,2,0.5", dataset)
    assert given is not None
    assert given.tolist() == [1.0, 2.0, 0.5]


def test_without_labelled_pixels_all_classes_weigh_alike() -> None:
    weights = class_weights("median", Images([np.full((2, 2), 255, np.uint8)]))
    assert weights is not None
    assert weights.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("spec", ["1,2", "heavy", "1,-1,1", "1,nan,1", "1,inf,1", "0,0,0"])
def test_bad_class_weights_are_named(spec: str) -> None:
    with pytest.raises(ValueError, match=f"got '{spec}'"):
        class_weights(spec, Images([np.zeros((2, 2), np.uint8)]))
