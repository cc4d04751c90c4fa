"""What training minimises: the loss of low-resolution scores, and of the streams they are summed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn

from fcnkern.engine.distributed import count, summed
from fcnkern.functional import upsample_cross_entropy
from fcnkern.models import MultiTask, Segmenter
from fcnkern.ops.upsample_cross_entropy import Reduction
from fcnkern.resample import Resample
from fcnkern.sampling import Sampling


class Objective(nn.Module):
    """The loss of a network as a module of its own, so that wrappers of modules can take it.

    No tensor of floats has the resolution of the labels: scores stay at that of the finest tap.

    Of several processes, each has a loss whose mean over the processes is that of their batches as one: of means over
    pixels, each is scaled by the process's share of all pixels.

    Of several tasks the loss is the sum over the tasks, each with weight 1, as the authors train (section 5).

    Args:
        class_weight: float C, or None.
        reduction: as in ``upsample_cross_entropy``.
        auxiliary: weight of the losses of each tap's own scores, or None for none (at-once training).
        compiled: run the network through ``torch.compile``; the keys of its state_dict stay as they are.
        tasks: numbers of classes by name, where the network's classes are those of several tasks.

    Raises:
        ValueError: auxiliary losses for a network of one tap, or taps that do not cover every image alone; tasks that
            ``MultiTask`` refuses.
    """

    def __init__(
        self,
        model: Segmenter,
        *,
        class_weight: Tensor | None,
        ignore_index: int,
        reduction: Reduction,
        auxiliary: float | None = None,
        compiled: bool = False,
        tasks: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        if auxiliary is not None and len(model.taps) == 1:
            raise ValueError("aux needs a network of several streams (fcn16s, fcn8s, fcn8s-atonce), got one")
        if tasks:
            MultiTask(model, tasks)  # refuses what cannot be one
        self._sizes = list(tasks.values())
        self.model, self._auxiliary = model, auxiliary or 0.0
        self._class_weight, self._ignore_index, self._reduction = class_weight, ignore_index, reduction
        self._alone = None if auxiliary is None else model.stream_alignments()
        self._streams = torch.compile(model.streams) if compiled else model.streams

    def forward(
        self, images: Tensor, labels: Tensor, sampling: Sampling | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss to minimise, the network's own part of it, and int64 counts (valid, correct) of the latter.

        Args:
            images: N,3,H,W. labels: N,H,W, of several tasks N,T,H,W. sampling: which pixels count; the same for every
                stream.
        """
        main, *alone = self._streams(images, self._alone)
        loss, stats = self._loss(*main, labels, sampling, self.model.final_weight())
        total = loss
        for scores, resample in alone:
            total = total + self._auxiliary * self._loss(scores, resample, labels, sampling, None)[0]
        return total, loss.detach(), stats

    def _loss(
        self,
        scores: Tensor,
        resample: Resample,
        labels: Tensor,
        sampling: Sampling | None,
        weight: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The loss of scores, summed over the tasks, and its counts."""
        if not self._sizes:
            return self._task_loss(scores, resample, labels, sampling, weight, self._class_weight)
        parts = scores.split(self._sizes, 1), labels.unbind(1), self._class_weights()
        losses, counts = zip(
            *(
                self._task_loss(each, resample, target, sampling, None, class_weight)
                for each, target, class_weight in zip(*parts, strict=True)
            ),
            strict=True,
        )
        return torch.stack(losses).sum(), torch.stack(counts).sum(0)

    def _class_weights(self) -> Sequence[Tensor | None]:
        """Those of each task."""
        if self._class_weight is None:
            return [None] * len(self._sizes)
        return self._class_weight.split(self._sizes)

    def _task_loss(
        self,
        scores: Tensor,
        resample: Resample,
        labels: Tensor,
        sampling: Sampling | None,
        weight: Tensor | None,
        class_weight: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        cross_entropy = partial(
            upsample_cross_entropy,
            scores,
            labels,
            resample,
            weight=weight,
            class_weight=class_weight,
            ignore_index=self._ignore_index,
            sampling=sampling,
        )
        loss, stats = cross_entropy(reduction=self._reduction, return_stats=True)
        if count() == 1 or self._reduction != "valid":
            return loss, stats
        divisor = stats[0]
        if class_weight is not None:  # then the sum of the pixels' weights divides, which is sum / mean
            with torch.no_grad():
                divisor = torch.where(loss == 0, 0, cross_entropy(reduction="sum") / loss)
        own = divisor.to("cpu", torch.float64)
        total = summed(own.clone())
        return loss * (count() * own / total.clamp_min(torch.finfo(own.dtype).tiny)).item(), stats
