"""Which samples make which batch: a pure function, so that a resumed run sees exactly the same batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=8)
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(length)


@dataclass(frozen=True)
class ShuffledIndices:
    """An endless stream of batches: one permutation of 0..length-1 after another, cut into full batches.

    Batch t holds the positions t*batch_size .. (t+1)*batch_size - 1 of the stream: it may span two epochs.
    Of several `parts`, each with batches of its own, `part` p takes the positions p, p + parts, p + 2*parts, ...: the
    batches t of all parts together are batch t of one stream with parts*batch_size.
    Raises: ValueError if length, batch_size or parts is below 1, seed negative, or part not in 0..parts-1.
    """

    length: int
    batch_size: int
    seed: int = 0
    part: int = 0
    parts: int = 1

    def __post_init__(self) -> None:
        for name, least in (("length", 1), ("batch_size", 1), ("seed", 0), ("part", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, wanted at least {least}")
        if self.part >= self.parts:
            raise ValueError(f"part is {self.part}, wanted less than parts, {self.parts}")

    def batch(self, iteration: int) -> list[tuple[int, int]]:
        """The (epoch, index) pairs of batch `iteration`, counted from 0."""
        if iteration < 0:
            raise ValueError(f"iteration is {iteration}, wanted at least 0")
        whole = self.batch_size * self.parts
        first = iteration * whole
        positions = range(first + self.part, first + whole, self.parts)
        places = (divmod(p, self.length) for p in positions)
        return [(epoch, int(_permutation(self.length, self.seed, epoch)[k])) for epoch, k in places]

    def stream(self, start: int = 0) -> Iterator[list[tuple[int, int]]]:
        """The batches from `start` on, without end."""
        while True:
            yield self.batch(start)
            start += 1
