"""Tables of a backend: right on every stream, and what a captured CUDA graph reads stays where it is."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from fcnkern.backends import _tables


class Table:
    """What can be referred to weakly."""


class Streams:
    """The streams of a device that is not there, and what was asked of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current = "first"
        self.recorded: list[tuple[Tensor, str]] = []
        monkeypatch.setattr(_tables, "_streams", lambda device: self)
        monkeypatch.setattr(Tensor, "record_stream", lambda *recorded: self.recorded.append(recorded))
        self.Stream = lambda device: "private"
        _tables._copying_stream.cache_clear()

    def current_stream(self, device: torch.device) -> str:
        return self.current

    @contextmanager
    def stream(self, stream: str) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Iterator[Streams]:
    yield Streams(monkeypatch)
    _tables._copying_stream.cache_clear()


@pytest.mark.usefixtures("streams")
def test_what_a_graph_reads_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = _tables.kept_tables(2)(lambda key, device: Table())
    device = torch.device("cuda")
    forgotten, captured = weakref.ref(tables(0, device)), weakref.ref(tables(1, device))
    monkeypatch.setattr(_tables, "is_capturing", lambda: True)
    assert tables(1, device) is captured()
    monkeypatch.setattr(_tables, "is_capturing", lambda: False)
    for key in range(2, 5):
        tables(key, device)
    gc.collect()
    assert forgotten() is None
    assert captured() is not None
    assert tables(1, device) is captured()


def test_every_stream_that_reads_a_table_is_recorded_once(streams: Streams) -> None:
    made = torch.arange(3), torch.arange(4), "not a tensor"
    tables = _tables.kept_tables(2)(lambda key, device: made)
    for streams.current in ("first", "second", "first"):
        assert tables(0, torch.device("cuda")) is made
    expected = [(part, stream) for stream in ("first", "second") for part in made[:2]]
    assert len(streams.recorded) == len(expected)
    for found, wanted in zip(streams.recorded, expected, strict=True):
        assert (id(found[0]), found[1]) == (id(wanted[0]), wanted[1])


def test_a_copy_is_complete_when_other_streams_see_it(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = []
    to = Tensor.to

    def copy(tensor: Tensor, place: object, **options: object) -> Tensor:
        if not isinstance(place, torch.device):
            return to(tensor, place)
        copies.append((streams.current, options, tensor.is_pinned()))
        return tensor

    monkeypatch.setattr(Tensor, "to", copy)
    _tables.to_device(np.arange(3), torch.int32, torch.device("cuda"))
    assert copies == [("private", {}, False)], "neither asynchronous nor on a stream with other work"
    assert streams.current == "first"


def test_no_table_is_made_during_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tables, "is_capturing", lambda: True)
    values = np.arange(3)
    assert torch.equal(_tables.to_device(values, torch.int32, torch.device("cpu")), torch.arange(3).int())
    with pytest.raises(RuntimeError, match="run it once before"):
        _tables.to_device(values, torch.int32, torch.device("cuda"))


def test_knows_when_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, capturing in ((False, True), (True, False), (True, True)):
        state = SimpleNamespace(
            is_available=lambda available=available: available,
            is_current_stream_capturing=lambda capturing=capturing: capturing,
        )
        monkeypatch.setattr(torch, "cuda", state)
        assert _tables.is_capturing() == (available and capturing)
