"""One iteration: the only place where gradients are formed and weights change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fcnkern.data import Batch
from fcnkern.engine.device import autocast, device_of, moved
from fcnkern.engine.distributed import count, gathered, rank, summed, talking
from fcnkern.engine.loss_sampling import LossSampling
from fcnkern.engine.objective import Objective
from fcnkern.engine.optim import make_optimizer, set_rate
from fcnkern.engine.settings import TrainSettings
from fcnkern.models import Segmenter

LEAST_SCALE = 2.0**-30


@dataclass
class Step:
    """What one iteration reports: the network's own loss, its mean over pixels, the accuracy, the rate.

    Of several tasks the loss is the sum over the tasks, ``pixel_loss`` and ``accuracy`` are means over all labels.
    """

    loss: float
    pixel_loss: float
    accuracy: float
    lr: float


class DivergedError(RuntimeError):
    """A loss, a gradient or a weight is not finite."""


class Learner:
    """Changes the weights of ``model``: optimiser, loss scaling, accumulation, clipping, average of the weights.

    The gradient of an iteration is the mean over its batches, as with Caffe's ``iter_size``. The batches of several
    processes count as one; what ``step`` reports is of all of them.

    Args:
        tasks: numbers of classes by name, where the labels are those of several tasks.

    Attributes:
        average: the exponential moving average of the weights, or None where none is kept.
    """

    def __init__(
        self,
        model: Segmenter,
        settings: TrainSettings,
        sampling: LossSampling,
        *,
        class_weight: Tensor | None,
        ignore_index: int,
        tasks: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        if tasks and settings.sampling is not None and settings.sampling_mode != "uniform":
            raise ValueError(
                f"sampling_mode must be uniform for several tasks ({', '.join(tasks)}), which share the pixels that "
                f"are kept, got {settings.sampling_mode}"
            )
        self._tasks = max(1, len(tasks))
        self.model, self._settings, self._sampling = model, settings, sampling
        self._device = device_of(model)
        self.average: AveragedModel | None = None
        if settings.ema is not None:
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema))
        objective: nn.Module = Objective(
            model,
            class_weight=None if class_weight is None else class_weight.to(self._device),
            ignore_index=ignore_index,
            reduction=settings.reduction,
            auxiliary=settings.aux,
            compiled=settings.compile,
            tasks=tasks,
        )
        if count() > 1:
            objective = DistributedDataParallel(objective, gradient_as_bucket_view=True)
        self._objective = objective
        self._optimizer = make_optimizer(
            model, momentum=settings.momentum, weight_decay=settings.weight_decay, score_lr=settings.score_lr
        )
        self._scaler = GradScaler(self._device.type, enabled=settings.precision == "fp16")

    @property
    def best_model(self) -> Segmenter:
        """The network to use: of averaged weights where an average is kept."""
        if self.average is None:
            return self.model
        assert isinstance(self.average.module, Segmenter)
        return self.average.module

    def step(self, batches: Sequence[Batch], rate: float) -> Step:
        """One iteration over ``batches`` at a learning rate.

        Raises:
            DivergedError: the loss or the norm of the gradient is not finite.
            ValueError: a label is out of range; names the images.
        """
        set_rate(self._optimizer, rate)
        self._optimizer.zero_grad(set_to_none=True)
        parts: list[tuple[float, float, float]] = []
        for batch in batches[:-1]:
            with self._unsynchronised():
                parts.append(self._accumulate(batch, 1 / len(batches)))
        parts.append(self._accumulate(batches[-1], 1 / len(batches)))
        self._scaler.unscale_(self._optimizer)
        limit = math.inf if self._settings.clip is None else self._settings.clip
        norm = clip_grad_norm_(self._learning(), limit).item()
        self._check_gradient(norm, [name for batch in batches for name in batch.names])
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return self._report(parts, rate)

    def _unsynchronised(self) -> AbstractContextManager[None]:
        """Within it, gradients stay with the process that formed them."""
        if isinstance(self._objective, DistributedDataParallel):
            return self._objective.no_sync()
        return nullcontext()

    def _report(self, parts: list[tuple[float, float, float]], rate: float) -> Step:
        """What the processes' batches were like; ``parts`` are this one's, as ``_accumulate`` returns them."""
        loss, valid, correct = summed(torch.tensor(parts, dtype=torch.float64)).T
        loss = loss / count()
        pixel_loss, scale = loss / self._tasks, 1.0
        if self._settings.reduction == "batch":
            pixel_loss = loss * (count() * self._sampling.images) / valid.clamp_min(1)
            scale = self._sampling.images_ratio
        accuracy = correct.sum() / valid.sum().clamp_min(1)
        return Step(scale * loss.mean().item(), pixel_loss.mean().item(), accuracy.item(), rate)

    def _accumulate(self, batch: Batch, share: float) -> tuple[float, float, float]:
        """Adds a batch's share to the gradient; returns its loss, the valid and the correct pixels."""
        sampling = self._sampling(batch.labels)
        on_device = moved(batch, self.model)
        try:
            with autocast(self._settings.precision, self._device):
                total, loss, stats = self._objective(on_device.images, on_device.labels, sampling)
        except ValueError as error:
            if self._device.type != "cpu":  # a GPU reports a label out of range one call late
                raise
            raise ValueError(f"{error} (on {_listed(batch.names)})") from error
        scale = self._sampling.images_ratio if self._settings.reduction == "batch" else 1.0
        if not math.isfinite(total.item()):
            raise DivergedError(f"the loss is {total.item()} on {_listed(batch.names)}")
        with talking():
            self._scaler.scale(total * (share * scale)).backward()
        return (loss.item(), *stats.tolist())

    def _check_gradient(self, norm: float, names: list[str]) -> None:
        """Without loss scaling no gradient may overflow; with it, the step is left out and the scale halved."""
        if not math.isfinite(norm) and self._scaler.get_scale() <= (
            LEAST_SCALE if self._scaler.is_enabled() else 1
        ):
            raise DivergedError(f"the norm of the gradient is {norm} on {_listed(names)}")

    def _learning(self) -> list[Tensor]:
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]

    # ---------------------------------------------------------------- state

    def state(self) -> dict[str, Any]:
        """Everything that the next iterations depend on, with ``state_dict`` the weights to use.

        States of random generators are stacked, one of each process; those of a process alone are not. Every process
        has to call this.

        Raises:
            DivergedError: the weights are not finite.
        """
        norm = get_total_norm(self._learning()).item()
        if not math.isfinite(norm):
            raise DivergedError(f"the norm of the weights is {norm}")
        record = {
            "state_dict": self.best_model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "rng": _stacked(torch.get_rng_state()),
        }
        if self.average is not None:
            record["raw_state_dict"] = self.model.state_dict()
            record["averaged"] = int(self.average.n_averaged)
        if self._device.type == "cuda":
            record["cuda_rng"] = _stacked(torch.cuda.get_rng_state(self._device))
        return record

    def restore(self, record: dict[str, Any]) -> None:
        """Goes on from what ``state`` gave.

        Raises:
            ValueError: another number of processes gave it.
        """
        states = torch.atleast_2d(record["rng"])
        if len(states) != count():
            raise ValueError(
                f"the run has {len(states)} processes, whose batches count as one, and cannot go on with {count()}: "
                f"use torchrun --nproc-per-node {len(states)}, or begin a new run with init_from"
            )
        self.model.load_state_dict(record.get("raw_state_dict", record["state_dict"]))
        if self.average is not None:
            self.average.module.load_state_dict(record["state_dict"])
            self.average.n_averaged.fill_(record["averaged"])
        self._optimizer.load_state_dict(record["optimizer"])
        if record.get("scaler"):
            self._scaler.load_state_dict(record["scaler"])
        torch.set_rng_state(states[rank()].clone())  # torch reads a view from its storage's beginning
        if self._device.type == "cuda" and "cuda_rng" in record:
            torch.cuda.set_rng_state(torch.atleast_2d(record["cuda_rng"])[rank()].clone(), self._device)


def _stacked(state: Tensor) -> Tensor:
    """The states of all processes, one a row; in a process alone the state as it is."""
    return state if count() == 1 else torch.stack(gathered(state))


def _listed(names: Sequence[str]) -> str:
    return f"the image{'s' * (len(names) > 1)} {', '.join(names)}"
