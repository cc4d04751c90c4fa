"""Which configuration a Triton kernel is launched in."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from time import sleep
from types import SimpleNamespace
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402

from tests.placement import interpreted_only, refusal  # noqa: E402

pytestmark = pytest.mark.skipif(refusal("triton") is not None, reason=str(refusal("triton")))


@triton.jit
def _copy(x, out, count):
    i = tl.arange(0, 8)
    tl.store(out + i, tl.load(x + i, mask=i < count), mask=i < count)


@interpreted_only
@pytest.mark.parametrize("short", ["load", "store"])
def test_sees_an_access_beyond_a_tensor(short: str) -> None:
    tensors = {"load": torch.arange(5.0), "store": torch.zeros(5)}
    _copy[(1,)](tensors["load"], tensors["store"], 5)
    assert torch.equal(tensors["store"], torch.arange(5.0))
    tensors[short] = tensors[short][:4]  # of a storage of five
    with pytest.raises(triton.runtime.errors.InterpreterError, match=f"{short} of 1 addresses outside"):
        _copy[(1,)](tensors["load"], tensors["store"], 5)


class Recorder:
    """Stands for a kernel, or for its tuner, and notes the launches."""

    def __init__(self, name: str, launches: list[Any]) -> None:
        self.name, self.launches = name, launches
        self.best_config = triton.Config({"BLOCK": 2})

    def __getitem__(self, grid: object) -> Any:
        return lambda **meta: self.launches.append((self.name, meta.get("BLOCK")))


@pytest.fixture
def launches() -> list[Any]:
    return []


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch, launches: list[Any]) -> Any:
    """A kernel whose default has BLOCK 1, and for which the tuner finds 2."""
    from fcnkern.backends.triton import _launch

    monkeypatch.setattr(_launch, "INTERPRETED", False)
    monkeypatch.setattr(_launch, "_target", lambda: SimpleNamespace(arch=90))
    monkeypatch.setattr(
        triton, "autotune", lambda *args, **options: lambda kernel: Recorder("tuner", launches)
    )
    configs = [triton.Config({"BLOCK": each}) for each in (1, 3)]
    return _launch.Tuned(Recorder("kernel", launches), configs, (), spilling={0: (8, 10)})


def test_tunes_once_for_each_key(tuned: Any, launches: list[Any]) -> None:
    for key in ("a", "a", "b", "a"):
        tuned.launch((1,), key)
    assert launches == [("tuner", None), ("kernel", 2), ("tuner", None), ("kernel", 2)]


def test_each_architecture_has_a_tuner_of_what_does_not_spill_there(
    tuned: Any, launches: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fcnkern.backends.triton import _launch

    offers: list[list[int]] = []

    def autotune(configs: list[Any], key: list[str], **options: bool) -> Any:
        offers.append([config.kwargs["BLOCK"] for config in configs])
        return lambda kernel: Recorder(f"tuner {len(offers)}", launches)

    monkeypatch.setattr(triton, "autotune", autotune)
    for device, arch in enumerate((80, 90, 80, "gfx942", {"id": 1})):
        monkeypatch.setattr(_launch, "_target", lambda arch=arch: SimpleNamespace(arch=arch))
        tuned.launch((1,), ("a", device))
    assert [name for name, _ in launches] == ["tuner 1", "tuner 2", "tuner 1", "tuner 3", "tuner 4"]
    assert offers == [[3], [1, 3], [1, 3], [1, 3]]


def test_threads_tune_one_at_a_time_and_once(
    tuned: Any, launches: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = []

    class Slow(Recorder):
        def __getitem__(self, grid: object) -> Any:
            inside.append(1)
            sleep(0.02)
            assert len(inside) == 1
            inside.pop()
            return super().__getitem__(grid)

    monkeypatch.setattr(triton, "autotune", lambda *args, **options: lambda kernel: Slow("tuner", launches))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: tuned.launch((1,), number % 2), range(16)))
    assert sorted(launches) == [("kernel", 2)] * 14 + [("tuner", None)] * 2


def test_takes_the_default_in_the_interpreter(
    tuned: Any, launches: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fcnkern.backends.triton import _launch

    monkeypatch.setattr(_launch, "INTERPRETED", True)
    tuned.launch((1,), "a")
    assert launches == [("kernel", 1)]


def test_measures_nothing_while_a_graph_is_captured(
    tuned: Any, launches: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fcnkern.backends.triton import _launch

    tuned.launch((1,), "known")
    monkeypatch.setattr(_launch, "is_capturing", lambda: True)
    tuned.launch((1,), "known")
    tuned.launch((1,), "new")
    assert launches == [("tuner", None), ("kernel", 2), ("kernel", 1)]
    assert set(tuned._chosen) == {"known"}


def test_deterministic_algorithms_take_the_default(tuned: Any, launches: list[Any]) -> None:
    tuned.launch((1,), "a")
    torch.use_deterministic_algorithms(True)
    try:
        tuned.launch((1,), "a")
    finally:
        torch.use_deterministic_algorithms(False)
    assert launches == [("tuner", None), ("kernel", 1)]


def test_offers_no_configuration_that_spills_here(tuned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fcnkern.backends.triton import _launch

    for generation, default in ((8, 3), (9, 1), (10, 3), (None, 1)):
        monkeypatch.setattr(_launch, "generation", lambda generation=generation: generation)
        assert tuned.default().kwargs == {"BLOCK": default}


@pytest.mark.parametrize("name", ["multi_processor_count", "gpu_subslice_count", "max_compute_units"])
def test_programs_fill_a_gpu_of_any_maker(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from fcnkern.backends.triton import _argmax_plan, _launch

    monkeypatch.setattr(_argmax_plan, "INTERPRETED", False)
    module = SimpleNamespace(get_device_properties=lambda device: SimpleNamespace(**{name: 7}))
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    _launch.multiprocessors.cache_clear()
    try:
        assert _argmax_plan.resident_warps(torch.device("xpu", 0)) == 7 * 32
    finally:
        _launch.multiprocessors.cache_clear()


_TUNES = """
from types import SimpleNamespace

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import autotuner, jit
from triton.runtime.driver import driver

from fcnkern.backends.triton import _conv1x1_forward as layer
from fcnkern.backends.triton.upsample_add import upsample_add_fwd

measured = []
driver.set_active(SimpleNamespace(get_current_target=lambda: GPUTarget("cuda", 90, 32)))
jit.JITFunction.run = lambda self, *args, **options: None
autotuner.Autotuner._bench = lambda self, *args, config, **meta: measured.append(config) or [1 / len(measured)] * 3
"""
"""A process that tunes the last configuration to be the fastest one, with no GPU, and launches nothing."""

_TUNES_A_LAYER = f"""{_TUNES}
layer.score(torch.empty(1, 64, 8, 8), torch.empty(5, 64, 1, 1), None, torch.empty(1, 5, 8, 8))
print(len(measured), *layer._SKINNY._chosen.values(), sep="; ")
"""

_TUNES_EACH_KIND = f"""{_TUNES}
score = torch.empty(5, 64, 1, 1)
for layout in (torch.contiguous_format, torch.channels_last):
    for size in (8, 32, 33):
        def image(channels, size):
            return torch.empty(1, channels, size, size).to(memory_format=layout)

        x, skip = image(5, size // 2), image(64, size + 4)
        for call in (
            lambda: layer.score(image(64, size), score, None, image(5, size)),
            lambda: upsample_add_fwd(x, torch.empty(5, 5, 4, 4), skip, score, None, (2, 2), (1, 1), 1.0),
            lambda: upsample_add_fwd(x, None, skip, score, None, (2, 2), (1, 1), 1.0),
        ):
            measured.clear()
            call()
            print(len(measured), end=" ")
"""


def _run(script: str, cache: Path) -> str:
    if find_spec("triton.backends.nvidia") is None:
        pytest.skip("this Triton compiles for no NVIDIA GPU")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache), "TRITON_INTERPRET": "0"}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def test_another_process_need_not_tune_again(tmp_path: Path) -> None:
    first, second = (_run(_TUNES_A_LAYER, tmp_path).split("; ", 1) for _ in range(2))
    assert (int(first[0]), int(second[0])) == (4, 0)
    assert second[1] == first[1]
    assert "BLOCK_P: 32," in first[1]


def test_each_layout_and_size_is_tuned(tmp_path: Path) -> None:
    few, more, as_many = "4 4 2", "4 4 2", "0 0 0"
    assert _run(_TUNES_EACH_KIND, tmp_path).split() == " ".join((few, more, as_many) * 2).split()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_captured_layer_is_not_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    from fcnkern import conv1x1
    from fcnkern.backends.triton import _conv1x1_forward

    monkeypatch.setattr(_conv1x1_forward._SKINNY, "_chosen", {})
    x, weight = torch.randn(1, 20, 8, 8, device="cuda"), torch.randn(5, 20, 1, 1, device="cuda")
    torch.use_deterministic_algorithms(True)
    try:
        expected = conv1x1(x, weight, backend="triton")  # compiles the default
    finally:
        torch.use_deterministic_algorithms(False)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = conv1x1(x, weight, backend="triton")
    graph.replay()
    assert torch.equal(out, expected)
    assert _conv1x1_forward._SKINNY._chosen == {}
