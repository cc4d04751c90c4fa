"""Tables of a backend: what a captured CUDA graph reads stays where it is."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fcnkern.backends import _tables


class Table:
    """What can be referred to weakly."""


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
