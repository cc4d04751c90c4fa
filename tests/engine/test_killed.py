"""A run that is killed at random moments, again and again, ends with the same bits as one that is left alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fcnkern.engine import load_checkpoint
from tests.engine._runs import losses

ALL_RANDOM = ["--augment", "--crop=20x28", "--shift=4", "--sampling=0.5", "--cell=4", "--dropout=0.5"]
EXTRAS = [
    "--accumulate=2",
    "--ema=0.9",
    "--aux=0.3",
    "--class-weights=sqrt",
    "--schedule=cosine",
    "--val-every=6",
]
BASE = [
    "--data=scenes:count=6,size=24x32",
    "--width=0.02",
    "--val-limit=2",
    "--threads=1",
    "--save-every=3",
    "--quiet",
]


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in a checkpoint, each with its place."""
    if isinstance(value, dict | list | tuple):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, f"{place}/{key}")
    else:
        yield place, value


@pytest.mark.parametrize(
    ("seed", "more"),
    [
        (0, [*ALL_RANDOM, *EXTRAS, "--iterations=16"]),
        (
            1,
            [
                "--stages=32,16,8",
                "--sampling=0.5",
                "--sampling-mode=hard",
                "--precision=bf16",
                "--iterations=6",
            ],
        ),
    ],
)
def test_random_kills_change_no_bit(seed: int, more: list[str], tmp_path: Path) -> None:
    script = Path(__file__).with_name("_killer.py")
    command = [sys.executable, str(script), str(tmp_path), str(seed), "4", *BASE, *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 3, "too few kills met a running child"
    files = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.pt"))
    assert files == sorted(
        path.relative_to(tmp_path / "parts") for path in (tmp_path / "parts").rglob("*.pt")
    )
    for file in files:
        whole, parts = (dict(leaves(load_checkpoint(tmp_path / run / file))) for run in ("whole", "parts"))
        assert whole.keys() == parts.keys()
        for place, value in whole.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, parts[place]), place
            elif place not in ("/elapsed", "/settings/init_from"):
                assert value == parts[place], place
        assert losses((tmp_path / "whole" / file).parent) == losses((tmp_path / "parts" / file).parent)
