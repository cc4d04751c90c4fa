"""Training by several processes: joining those that torchrun started, and what they tell each other.

Everything here works in a process alone too. Numbers and matrices travel in main memory (gloo), gradients between
GPUs by NCCL.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

T = TypeVar("T")
TIMEOUT = timedelta(minutes=10)
GRACE = 3.0
FAILED = 2
_KEPT: list[BaseException] = []


class LostError(RuntimeError):
    """The other processes cannot be reached."""


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_rank() -> int:
    """Which of those on this machine this is, from 0."""
    return int(os.environ.get("LOCAL_RANK", rank())) if dist.is_initialized() else 0


# -------------------------------------------------------------------- what they tell each other


@contextmanager
def talking() -> Iterator[None]:
    """Around what waits for other processes: its failure is a ``LostError``.

    Raises:
        LostError: one of them has ended, or has been silent for ``TIMEOUT``.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if count() == 1:
            raise
        raise LostError(str(error)) from error


def summed(values: Tensor) -> Tensor:
    """The sum over the processes of a tensor in main memory, in place; exact for whole numbers."""
    if count() > 1:
        with talking():
            dist.all_reduce(values)
    return values


def greatest(value: float) -> float:
    """The greatest of the processes' values: what all of them then decide by."""
    if count() == 1:
        return value
    values = torch.tensor(value, dtype=torch.float64)
    with talking():
        dist.all_reduce(values, dist.ReduceOp.MAX)
    return float(values)


def gathered(value: T) -> list[T]:
    """What each process has, in the order of their ranks."""
    if count() == 1:
        return [value]
    values: list[T | None] = [None] * count()
    with talking():
        dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def reseed(seed: int) -> None:
    """Gives torch's generators of every process but the first a seed of their own, made of ``seed`` and the rank."""
    if rank() > 0:
        torch.manual_seed(int(np.random.SeedSequence([seed, rank()]).generate_state(1)[0]))


def wait_for_all() -> None:
    """Returns once every process has come here."""
    greatest(0.0)


# -------------------------------------------------------------------- beginning and end


@contextmanager
def processes() -> Iterator[None]:
    """Joins the processes that torchrun started (by its environment variables) and leaves them at the end.

    Of an error only the first is raised; processes that fail in its wake exit with code 2 and without a word. Where
    one just vanished, the error names it.

    Raises:
        LostError: a process has ended without an error of its own, or did not answer for ``TIMEOUT``.
    """
    if not {"RANK", "WORLD_SIZE"} <= set(os.environ):
        yield
        return
    store, place, size = next(iter(rendezvous("env://", timeout=TIMEOUT)))
    on_gpus = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpus else "gloo",
        store=dist.PrefixStore("group", store),
        rank=place,
        world_size=size,
        timeout=TIMEOUT,
    )
    # Of 1x1 convolutions, whose gradients are the same memory in either order.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    failures, done = dist.PrefixStore("failures", store), threading.Event()
    watch = threading.Thread(target=_watch, args=(failures, place, done), daemon=True)
    watch.start()
    try:
        yield
    except BaseException as error:
        _fail(failures, place, size, error)
    done.set()
    watch.join()
    wait_for_all()
    dist.destroy_process_group()


def _watch(failures: dist.Store, place: int, done: threading.Event) -> None:
    """Beside the work: once a process has failed, tells it that this one lives, and ends this one if it hangs."""
    try:
        while not failures.check(["count"]):
            if done.wait(0.2):
                return
        failures.set(f"alive {place}", "")
    except RuntimeError:  # the process that keeps the store has ended
        pass
    if not done.wait(2 * GRACE):
        os._exit(FAILED)


def _fail(failures: dist.Store, place: int, size: int, error: BaseException) -> NoReturn:
    """Raises the error if it is the first of all processes'; ends the process without a word if not."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, once it sees a process end
    # Gloo's destructor waits for a thread that may wait for Python's lock: what holds the group is never freed.
    _KEPT.append(error)
    atexit.register(_leave)
    try:
        first = failures.add("count", 1) == 1
        silent = _silent(failures, size) if first and isinstance(error, LostError) else []
    except RuntimeError:
        raise error from None
    if not first:
        _leave()
    if not silent:
        raise error
    raise LostError(f"rank {' and '.join(silent)} of {size} ended or answers no more ({error})") from error


def _leave() -> None:
    """Ends the process as it stands."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(FAILED)


def _silent(failures: dist.Store, size: int) -> list[str]:
    """Who does not answer within ``GRACE``: it has ended, or hangs."""
    end = time.monotonic() + GRACE
    silent = [str(place) for place in range(size)]
    while silent and time.monotonic() < end:
        time.sleep(0.05)
        silent = [place for place in silent if not failures.check([f"alive {place}"])]
    return silent
