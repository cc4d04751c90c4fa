"""Scoring a network on a data set, image by image at native resolution."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import SupportsIndex

import numpy as np
import torch
from torch import Tensor, nn

from fcnkern.data import Dataset, Preprocess, Sample, eval_batches, tasks_of
from fcnkern.engine.device import autocast, device_of, moved
from fcnkern.engine.distributed import count, rank, summed
from fcnkern.engine.progress import Progress
from fcnkern.functional import confusion_matrix
from fcnkern.metrics import trimap
from fcnkern.models import MultiTask, Segmenter
from fcnkern.resample import Resample


@contextmanager
def evaluating(model: nn.Module, precision: str = "fp32") -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module has the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), autocast(precision, device_of(model)):
            yield
    finally:
        for module, was_training in modes:
            module.training = was_training


def confusion_over(
    model: Segmenter,
    dataset: Dataset,
    preprocess: Preprocess,
    *,
    limit: int | None = None,
    precision: str = "fp32",
    progress: Progress | None = None,
    shared: bool = False,
) -> Tensor:
    """Confusion matrix [truth, prediction] of a network over a data set, int64 C x C: see `confusions_over`."""
    return confusions_over(
        model, dataset, preprocess, limit=limit, precision=precision, progress=progress, shared=shared
    )[0]


def confusions_over(
    model: Segmenter,
    dataset: Dataset,
    preprocess: Preprocess,
    widths: Sequence[int] = (),
    *,
    limit: int | None = None,
    precision: str = "fp32",
    progress: Progress | None = None,
    shared: bool = False,
) -> list[Tensor]:
    """Confusion matrices [truth, prediction] of a network over a data set: of all pixels, and near boundaries.

    Every image is scored by itself in the size that it has. The low-resolution scores are upsampled, compared and
    counted in one pass (``confusion_matrix`` with ``resample``): no full-resolution scores and no label maps are
    stored.

    Of several tasks, each has its block on the diagonal of the matrices (``fcnkern.metrics.blocks``).

    Args:
        widths: of the bands along the boundaries to score too, in pixels (``fcnkern.metrics.trimap``).
        limit: use this many images, spread evenly over the data set; None for all.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        progress: advanced by one per image; of several processes, by all of them equally often.
        shared: the processes of ``torch.distributed`` score a part each; the matrices are those of all images. Every
            process has to call this.

    Returns:
        one matrix, and one for each of ``widths``; int64 C x C, on the CPU.

    Raises:
        ValueError: the data set is empty, its number of classes is not the network's, or a width is below 1.
    """
    if len(dataset) == 0:
        raise ValueError("the data set to evaluate on has no images")
    if len(dataset.classes) != model.n_class:
        raise ValueError(f"the data set has {len(dataset.classes)} classes, the network {model.n_class}")
    device, size, ignore = device_of(model), (model.n_class, model.n_class), dataset.ignore_index
    matrices = [torch.zeros(size, dtype=torch.int64, device=device) for _ in (0, *widths)]
    part, parts = (rank(), count()) if shared else (0, 1)
    chosen = _spread(dataset, limit)
    own = chosen if parts == 1 else Subset(chosen, list(range(part, len(chosen), parts)))
    with evaluating(model, precision), closing(eval_batches(own, preprocess)) as batches:
        for batch in batches:
            maps = batch.labels.flatten(0, -3)
            bands = [trimap(maps, width, ignore).view_as(batch.labels).to(device) for width in widths]
            images, labels = moved(batch, model)[:2]
            counter = _counter(model, tasks_of(dataset), images, ignore)
            for matrix, target in zip(matrices, (labels, *bands), strict=True):
                matrix += counter(target)
            if progress is not None:
                progress.advance()
    if progress is not None and part >= len(chosen) % parts > 0:
        progress.advance()
    return [summed(matrix.cpu()) if shared else matrix.cpu() for matrix in matrices]


def _counter(
    model: Segmenter, tasks: Mapping[str, int], images: Tensor, ignore_index: int
) -> Callable[[Tensor], Tensor]:
    """Runs the network once; what comes back counts its predictions against targets."""
    if tasks:
        return partial(_count_tasks, *MultiTask(model, tasks).scores(images), ignore_index)
    if model.final_weight() is None:
        scores, resample = model.scores(images)
        return partial(confusion_matrix, scores, resample=resample, ignore_index=ignore_index)
    # A learned last upsampling is no Resample: its label map is made first, still without full-resolution scores.
    labels = model.predict(images)
    return partial(confusion_matrix, labels, num_classes=model.n_class, ignore_index=ignore_index)


def _count_tasks(
    scores: Mapping[str, Tensor], resample: Resample, ignore_index: int, targets: Tensor
) -> Tensor:
    """Matrices of all tasks along the diagonal; targets N,T,H,W."""
    pairs = zip(scores.values(), targets.unbind(1), strict=True)
    return torch.block_diag(
        *(
            confusion_matrix(each, target, resample=resample, ignore_index=ignore_index)
            for each, target in pairs
        )
    )


def _spread(dataset: Dataset, limit: int | None) -> Dataset:
    """The data set, or ``limit`` of its samples spread evenly."""
    if limit is None or limit >= len(dataset):
        return dataset
    return Subset(dataset, np.linspace(0, len(dataset) - 1, limit).round().astype(int).tolist())


class Subset:
    """Some samples of a data set."""

    def __init__(self, dataset: Dataset, indices: list[int]) -> None:
        self._dataset, self._indices = dataset, indices
        self.name, self.ignore_index = dataset.name, dataset.ignore_index
        self.classes, self.palette, self.tasks = dataset.classes, dataset.palette, tasks_of(dataset)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: SupportsIndex) -> Sample:
        return self._dataset[self._indices[index]]
