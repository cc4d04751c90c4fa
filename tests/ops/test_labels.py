"""Where the kernels of a GPU report labels out of range."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from fcnkern.backends import _labels
from fcnkern.backends._labels import label_flag, raise_reported

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_labels, "_PLACES", 4)
    monkeypatch.setattr(_labels, "_reports", {})


def flag(height: int, name: str = "target") -> Tensor:
    return label_flag(name, torch.empty(2, height, 10, dtype=torch.uint8), 5, 255)


def test_a_place_keeps_its_report_while_it_is_asked_for() -> None:
    first = flag(7)
    for height in range(8, 30):
        flag(height)
        assert flag(7).data_ptr() == first.data_ptr()
    first[0], first[1] = 1 + 7 * 10 + 23, 9
    with pytest.raises(ValueError, match=r"target: label 9 at image 1, row 2, column 3; wanted 0\.\.4"):
        flag(8)
    raise_reported(CPU)


def test_places_are_few_and_of_one_alignment() -> None:
    pointers = {flag(height).data_ptr() for height in range(1, 100)}
    assert len(pointers) == 4
    assert len({pointer % 16 for pointer in pointers}) == 1


def test_reports_come_one_by_one() -> None:
    flags = [flag(7, name) for name in ("target", "prediction")]
    for words in flags:
        words[:2] = torch.tensor([1, 6])
    for name in ("target", "prediction"):
        with pytest.raises(ValueError, match=f"{name}: label 6 at image 0, row 0, column 0"):
            raise_reported(CPU)
    raise_reported(CPU)


def test_threads_ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_labels, "_PLACES", 1024)
    with ThreadPoolExecutor(8) as pool:
        pointers = {each.data_ptr() for each in pool.map(flag, range(1, 800))}
    assert len(pointers) == 799
