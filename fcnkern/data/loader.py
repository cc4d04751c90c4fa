"""Batches made ahead of their use by background threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from fcnkern.data.augment import Augment
from fcnkern.data.collate import Batch, collate
from fcnkern.data.indices import ShuffledIndices
from fcnkern.data.preprocess import Preprocess
from fcnkern.data.sample import Dataset

T = TypeVar("T")
R = TypeVar("R")


def prefetch(
    load: Callable[[T], R], items: Iterable[T], depth: int = 2, workers: int = 1
) -> Generator[R, None, None]:
    """`map(load, items)` in order, with up to `depth` results made ahead by `workers` threads.

    What `load` raises is raised here, in its place in the order, and ends the iteration. Leaving early
    (`break`, `close()`) drops what is waiting and joins the threads, after the calls that have begun.
    `items` may be endless: it is read only `depth` ahead, in the caller's thread.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="fcnkern-prefetch") as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(load, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def train_batches(
    dataset: Dataset,
    preprocess: Preprocess,
    indices: ShuffledIndices,
    *,
    start: int = 0,
    augment: Augment | None = None,
    depth: int = 2,
    workers: int = 1,
) -> Generator[Batch, None, None]:
    """Endless training batches from iteration `start` on; the same whether a run was resumed there or not."""

    def load(places: list[tuple[int, int]]) -> Batch:
        samples = [dataset[index] for _, index in places]
        if augment is not None:
            samples = [augment(s, epoch, index) for s, (epoch, index) in zip(samples, places, strict=True)]
        return collate(samples, preprocess)

    return prefetch(load, indices.stream(start), depth, workers)


def eval_batches(
    dataset: Dataset, preprocess: Preprocess, batch_size: int = 1, *, depth: int = 2, workers: int = 1
) -> Generator[Batch, None, None]:
    """Every sample once, in order; the last batch may be smaller. Raises: ValueError if batch_size < 1."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, wanted at least 1")

    def load(first: int) -> Batch:
        last = min(first + batch_size, len(dataset))
        return collate([dataset[i] for i in range(first, last)], preprocess)

    return prefetch(load, range(0, len(dataset), batch_size), depth, workers)
