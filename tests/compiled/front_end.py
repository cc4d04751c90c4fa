"""What Triton's compiler takes of the kernels' Python, which the interpreter, being Python, does not tell.

An argument that is 1 becomes a constant without a tensor's methods; what follows a ``return`` in an ``if`` is
compiled all the same. Only this first step is done here, the others take longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any
from unittest import mock

import torch
from torch import Tensor

Call = Callable[[], object]
LABELS = (torch.uint8, torch.int16, torch.int32, torch.int64)


class _TakenError(Exception):
    """The front end is through."""


def variant(kernel: Any, args: tuple[Any, ...], options: dict[str, Any]) -> str:
    """The key under which Triton keeps what it compiles of a kernel for a launch."""
    from triton.runtime.driver import driver
    from triton.runtime.jit import compute_cache_key

    *_, bind = kernel.device_caches[driver.active.get_current_device()]
    _, specialization, rest = bind(*args, **options)
    return f"{kernel.__name__} {compute_cache_key({}, specialization, rest)}"


def refusals(operation: str) -> tuple[int, list[str]]:
    """How many variants of kernels an operation's modes tried, and what was refused, in a process that compiles."""
    from triton.backends.nvidia.compiler import CUDABackend
    from triton.runtime.driver import driver
    from triton.runtime.jit import JITFunction

    from benchmarks.launches import _Absent
    from fcnkern.backends.triton import _argmax_plan, _loss_cells

    run, name = JITFunction.run, ""
    tried: set[str] = set()
    refused: list[str] = []

    def stop(self: Any, stages: dict[str, Any], options: Any, language: Any) -> None:
        def taken(*_: Any) -> None:
            raise _TakenError

        stages["ttir"] = taken

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        key = variant(self, args, options)
        if key in tried:
            return
        tried.add(key)
        try:
            run(self, *args, grid=grid, warmup=True, **options)
        except _TakenError:
            pass
        except Exception as error:
            refused.append(f"{name}: {self.__name__}: {error}")

    driver.set_active(_Absent(90))
    torch.use_deterministic_algorithms(True)  # nothing is tuned
    torch.utils.deterministic.fill_uninitialized_memory = False
    with (
        mock.patch.object(CUDABackend, "add_stages", stop),
        mock.patch.object(JITFunction, "run", compile_only),
        mock.patch.object(_argmax_plan, "resident_warps", return_value=4096),
        mock.patch.object(_loss_cells, "_resident_warps", return_value=1584),
    ):
        for each, call in globals()[f"_{operation}"]():
            name = each
            call()
    return len(tried), refused


def _upsample_add() -> Iterator[tuple[str, Call]]:
    from fcnkern.backends.triton.upsample_add import upsample_add_bwd, upsample_add_fwd

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape)

    shapes = [(1, 1, 1, 1, 1, 1), (2, 2, 1, 1, 3, 1), (2, 5, 3, 4, 4, 2)]
    for kind, kept, (n, c, h, w, k, s) in product(("dense", "depthwise", "bilinear"), (None, 0, 20), shapes):
        k = 2 * s - s % 2 if kind == "bilinear" else k
        weight = {"dense": empty(c, c, k, k), "depthwise": empty(c, 1, k, k), "bilinear": None}[kind]
        size = ((h - 1) * s + k, (w - 1) * s + k)
        skip = None if kept is None else empty(n, kept or c, *size)
        score = (empty(c, kept, 1, 1), empty(c)) if kept else (None, None)
        needs = tuple(each is not None for each in (skip, weight, skip, *score))
        name = f"{kind}, {n}×{c}×{h}×{w}, kernel {k}, {kept} features"
        settings = ((s, s), (0, 0), 1.0)
        x = empty(n, c, h, w)
        yield name, partial(upsample_add_fwd, x, weight, skip, *score, *settings)
        yield (
            name,
            partial(
                upsample_add_bwd, empty(n, c, *size), x, weight, skip, score[0], *settings, (True, *needs[1:])
            ),
        )


def _conv1x1() -> Iterator[tuple[str, Call]]:
    from fcnkern.backends.triton.conv1x1 import conv1x1_bwd, conv1x1_fwd

    shapes = [(1, 1, 1, 1, 1), (2, 70, 130, 3, 5)]
    for (n, inputs, outputs, h, w), relu, dropout_p in product(shapes, (False, True), (0.0, 0.5)):
        x, weight = torch.empty(n, inputs, h, w), torch.empty(outputs, inputs, 1, 1)
        out, seed = torch.empty(n, outputs, h, w), torch.zeros((), dtype=torch.int64)
        name = f"{n}×{inputs}×{h}×{w} → {outputs}, {relu=}, {dropout_p=}"
        yield name, partial(conv1x1_fwd, x, weight, torch.empty(outputs), relu, dropout_p, seed)
        yield name, partial(conv1x1_bwd, out, x, weight, out, relu, dropout_p, seed, (True,) * 3)


def _max_pool2d() -> Iterator[tuple[str, Call]]:
    from fcnkern.backends.triton.max_pool2d import max_pool2d_bwd, max_pool2d_fwd
    from fcnkern.ops._window import Window

    windows = [
        Window.of(1, 1, 0, False),
        Window.of(2, 2, 0, True),
        Window.of(3, 1, 1, False),
        Window.of(15, 4, 7, True),
    ]
    shapes = [((1, 1, 1, 1), torch.contiguous_format), ((2, 5, 9, 17), torch.channels_last)]
    for window, (shape, layout), relu in product(windows, shapes, (False, True)):
        size = window.out_size(*shape[2:])
        if min(size) < 1:
            continue
        x, grad = (torch.empty(each, memory_format=layout) for each in (shape, (*shape[:2], *size)))
        name = f"{window}, {shape}, {relu=}"
        yield name, partial(max_pool2d_fwd, x, window, relu, relu)
        yield (
            name,
            partial(max_pool2d_bwd, grad, torch.empty_like(grad, dtype=torch.uint8), window, shape[2:]),
        )


def _label_maps() -> Iterator[tuple[str, Tensor, Any, tuple[int, int]]]:
    """Scores of one class, how they are resampled, and to what size."""
    from fcnkern import Resample

    for kind, points, size in (
        (Resample.half_pixel(), (1, 1), (1, 1)),
        (Resample.half_pixel(), (1, 1), (5, 3)),
        (Resample.half_pixel(), (6, 7), (3, 3)),
        (Resample.deconv(8, 3), (6, 7), (40, 41)),
        (Resample.identity(), (6, 7), (6, 7)),
    ):
        yield f"{kind.kind} to {size}", torch.empty(1, 1, *points), kind, size


def _upsample_argmax() -> Iterator[tuple[str, Call]]:
    from fcnkern.backends.triton.upsample_argmax import upsample_argmax

    for name, scores, resample, size in _label_maps():
        yield name, partial(upsample_argmax, scores, None, resample, size, torch.uint8, True)


def _confusion_matrix() -> Iterator[tuple[str, Call]]:
    from fcnkern.backends.triton.confusion_matrix import _count_labels, _count_scores

    for name, scores, resample, size in _label_maps():
        target, counts = (
            torch.empty(1, *size, dtype=torch.int64),
            torch.zeros(64, scores.shape[1], scores.shape[1]),
        )
        yield name, partial(_count_scores, scores, target, counts, resample, 255)
    for a, b in zip(LABELS, reversed(LABELS), strict=True):
        maps = torch.empty(1, 9, 9, dtype=a), torch.empty(1, 9, 9, dtype=b)
        yield f"{a}, {b}", partial(_count_labels, *maps, torch.zeros(64, 1, 1), 255)
        turned = (maps[0].transpose(1, 2), maps[1])
        yield f"{a} turned, {b}", partial(_count_labels, *turned, torch.zeros(64, 5, 5), None)


def _upsample_cross_entropy() -> Iterator[tuple[str, Call]]:
    from fcnkern import Resample
    from fcnkern.backends.triton.upsample_cross_entropy import upsample_cross_entropy_fwd
    from fcnkern.ops._loss_call import LossCall

    plain = LossCall(Resample.half_pixel(), 255, 0.0, "valid", (), 1, None, True, False, False)
    modes: list[dict[str, Any]] = [
        {},
        {"label_smoothing": 0.1, "reduction": "none"},
        {"need_grad": False, "need_stats": True, "keep": (0.5,)},
        {"keep": (0.5, 0.5), "cell": 32, "hard": (0.7, 5)},
    ]
    for mode, (resample, factor) in product(modes, ((Resample.half_pixel(), 2), (Resample.identity(), 1))):
        size = (4 * factor, 5 * factor)
        target, pixel_weight = torch.empty(1, *size, dtype=torch.uint8), torch.empty(1, *size)
        seed = torch.zeros((), dtype=torch.int64) if "keep" in mode else None
        class_weight = torch.ones(1) if seed is None else None
        weights = (class_weight, seed, None if mode else pixel_weight)
        call = plain._replace(**mode, resample=resample)
        yield (
            f"{mode}, {resample.kind}",
            partial(upsample_cross_entropy_fwd, torch.empty(1, 1, 4, 5), target, None, *weights, call),
        )
