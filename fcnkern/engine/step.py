"""One iteration: the only place where gradients are formed and weights change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fcnkern.data import Batch
from fcnkern.engine.device import autocast, device_of, moved
from fcnkern.engine.loss_sampling import LossSampling
from fcnkern.engine.objective import Objective
from fcnkern.engine.optim import make_optimizer, set_rate
from fcnkern.engine.settings import TrainSettings
from fcnkern.models import FCN

LEAST_SCALE = 2.0**-30


@dataclass
class Step:
    """What one iteration reports: the network's own loss, its mean over pixels, the accuracy, the rate."""

    loss: float
    pixel_loss: float
    accuracy: float
    lr: float


class DivergedError(RuntimeError):
    """A loss, a gradient or a weight is not finite."""


class Learner:
    """Changes the weights of ``model``: optimiser, loss scaling, accumulation, clipping, average of the weights.

    The gradient of an iteration is the mean over its batches, as with Caffe's ``iter_size``.

    Attributes:
        average: the exponential moving average of the weights, or None where none is kept.
    """

    def __init__(
        self,
        model: FCN,
        settings: TrainSettings,
        sampling: LossSampling,
        *,
        class_weight: Tensor | None,
        ignore_index: int,
    ) -> None:
        self.model, self._settings, self._sampling = model, settings, sampling
        self._device = device_of(model)
        self.average: AveragedModel | None = None
        if settings.ema is not None:
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema))
        self._objective = Objective(
            model,
            class_weight=None if class_weight is None else class_weight.to(self._device),
            ignore_index=ignore_index,
            reduction=settings.reduction,
            auxiliary=settings.aux,
            compiled=settings.compile,
        )
        self._optimizer = make_optimizer(
            model, momentum=settings.momentum, weight_decay=settings.weight_decay, score_lr=settings.score_lr
        )
        self._scaler = GradScaler(self._device.type, enabled=settings.precision == "fp16")

    @property
    def best_model(self) -> FCN:
        """The network to use: of averaged weights where an average is kept."""
        if self.average is None:
            return self.model
        assert isinstance(self.average.module, FCN)
        return self.average.module

    def step(self, batches: Sequence[Batch], rate: float) -> Step:
        """One iteration over ``batches`` at a learning rate.

        Raises:
            DivergedError: the loss or the norm of the gradient is not finite.
            ValueError: a label is out of range; names the images.
        """
        set_rate(self._optimizer, rate)
        self._optimizer.zero_grad(set_to_none=True)
        parts = [self._accumulate(batch, 1 / len(batches)) for batch in batches]
        self._scaler.unscale_(self._optimizer)
        limit = math.inf if self._settings.clip is None else self._settings.clip
        norm = clip_grad_norm_(self._learning(), limit).item()
        self._check_gradient(norm, [name for batch in batches for name in batch.names])
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.model)
        loss, pixel_loss, valid, correct = (sum(values) for values in zip(*parts, strict=True))
        return Step(loss / len(parts), pixel_loss / len(parts), correct / max(valid, 1), rate)

    def _accumulate(self, batch: Batch, share: float) -> tuple[float, float, int, int]:
        """Adds a batch's share to the gradient; returns loss, mean over pixels, valid and correct pixels."""
        sampling = self._sampling(batch.labels)
        on_device = moved(batch, self._device)
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
        self._scaler.scale(total * (share * scale)).backward()
        valid, correct = stats.tolist()
        value = loss.item() * scale
        per_pixel = len(batch.images) / max(valid, 1) if self._settings.reduction == "batch" else 1.0
        return value, loss.item() * per_pixel, valid, correct

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
            "rng": torch.get_rng_state(),
        }
        if self.average is not None:
            record["raw_state_dict"] = self.model.state_dict()
            record["averaged"] = int(self.average.n_averaged)
        if self._device.type == "cuda":
            record["cuda_rng"] = torch.cuda.get_rng_state(self._device)
        return record

    def restore(self, record: dict[str, Any]) -> None:
        """Goes on from what ``state`` gave."""
        self.model.load_state_dict(record.get("raw_state_dict", record["state_dict"]))
        if self.average is not None:
            self.average.module.load_state_dict(record["state_dict"])
            self.average.n_averaged.fill_(record["averaged"])
        self._optimizer.load_state_dict(record["optimizer"])
        if record.get("scaler"):
            self._scaler.load_state_dict(record["scaler"])
        torch.set_rng_state(record["rng"])
        if self._device.type == "cuda" and "cuda_rng" in record:
            torch.cuda.set_rng_state(record["cuda_rng"], self._device)


def _listed(names: Sequence[str]) -> str:
    return f"the image{'s' * (len(names) > 1)} {', '.join(names)}"
