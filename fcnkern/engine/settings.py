"""Everything that a training run depends on, in one record that checkpoints carry."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from fcnkern.data import presets
from fcnkern.engine.schedules import SCHEDULES
from fcnkern.models.registry import ALIASES, list_models

ARCHITECTURES = (*ALIASES, *list_models())
REDUCTIONS = ("valid", "batch")
PRECISIONS = ("fp32", "bf16")
RUN_ONLY = (
    "iterations",
    "time_limit",
    "data",
    "val_split",
    "val_every",
    "val_limit",
    "save_every",
    "threads",
)


@dataclass(frozen=True)
class TrainSettings:
    """Settings of a training run.

    Attributes:
        data: data set specification, as ``fcnkern.data.open_dataset`` reads it.
        val_split: split to validate on, or ``none``.
        arch, width, upsampling: the network, by a name of ``fcnkern.models.list_models()`` or a short one such as
            ``fcn8s`` (on VGG16); ``width`` scales the channels of the body.
        dropout: probability of dropping an activation where the body has dropout, or None for the body's own.
        weights: file of weights for the body, as ``fcnkern.weights.load_body`` reads it, or None.
        init_from: checkpoint of a coarser (or the same) network to start from, or None.
        preprocess: name of the input preset in ``fcnkern.data.presets``, or None for the one the weights want.
        iterations, time_limit: where training ends, whichever comes first; seconds; at least one is given.
        batch_size: images per iteration. crop: (height, width) of the random crop, or None for whole images.
        lr, momentum, weight_decay: of SGD; biases learn at twice the rate without decay (section 4.3).
        score_lr: multiplier of the rate for the score layers, which start at zero.
        schedule, warmup: see ``schedules``; warm-up in iterations.
        clip: largest norm of the whole gradient, or None.
        reduction: ``valid`` (mean over pixels) or ``batch`` (sum over pixels / images, Caffe's and the paper's).
        sampling, cell: probability to keep a ``cell`` x ``cell`` block of pixels in the loss, or None for all.
        class_weights: ``none``, ``median``, ``sqrt``, or one number per class (comma separated).
        augment: random mirror and scale.
        seed: of the weights, data order, augmentation, dropout and sampling.
        val_every: iterations between validations (0: only at the end). val_limit: images used then, or None.
        save_every: iterations between checkpoints.
        threads: CPU threads, or None for PyTorch's choice.
        precision: ``fp32``, or ``bf16`` for autocast (weights and optimiser stay fp32).
    """

    data: str = "scenes"
    val_split: str = "val"
    arch: str = "fcn8s"
    width: float = 1.0
    upsampling: Literal["fixed", "learned"] = "fixed"
    dropout: float | None = None
    weights: str | None = None
    init_from: str | None = None
    preprocess: str | None = None
    iterations: int | None = None
    time_limit: float | None = None
    batch_size: int = 1
    crop: tuple[int, int] | None = None
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    score_lr: float = 1.0
    schedule: str = "poly"
    warmup: int = 50
    clip: float | None = 5.0
    reduction: str = "valid"
    sampling: float | None = None
    cell: int = 32
    class_weights: str = "none"
    augment: bool = False
    seed: int = 0
    val_every: int = 0
    val_limit: int | None = None
    save_every: int = 200
    threads: int | None = None
    precision: str = "fp32"

    def __post_init__(self) -> None:
        self._one_of("arch", ARCHITECTURES)
        self._one_of("preprocess", (None, *presets))
        self._one_of("schedule", SCHEDULES)
        self._one_of("reduction", REDUCTIONS)
        self._one_of("precision", PRECISIONS)
        self._one_of("upsampling", ("fixed", "learned"))
        if self.iterations is None and self.time_limit is None:
            raise ValueError("a training run needs an end: give iterations, time_limit, or both")
        for name in (
            "width",
            "iterations",
            "time_limit",
            "batch_size",
            "lr",
            "score_lr",
            "clip",
            "cell",
            "val_limit",
            "save_every",
            "threads",
        ):
            self._at_least(name, 0, exclusive=True)
        for name in ("weight_decay", "warmup", "val_every", "seed"):
            self._at_least(name, 0, exclusive=False)
        for name in ("momentum", "dropout"):
            value = getattr(self, name)
            if not (0.0 <= value < 1.0 if value is not None else name == "dropout"):
                raise ValueError(f"{name} must be in [0, 1), got {value}")
        if self.sampling is not None and not 0.0 < self.sampling <= 1.0:
            raise ValueError(f"sampling must be a probability in (0, 1], got {self.sampling}")
        if self.crop is not None and (len(self.crop) != 2 or min(self.crop) < 1):
            raise ValueError(f"crop must be a positive height and width, got {self.crop}")

    def _one_of(self, name: str, choices: tuple[str | None, ...]) -> None:
        if getattr(self, name) not in choices:
            raise ValueError(
                f"{name} must be one of {', '.join(filter(None, choices))}, got {getattr(self, name)!r}"
            )

    def _at_least(self, name: str, bound: float, exclusive: bool) -> None:
        value = getattr(self, name)
        # Written so that NaN, which compares false with everything, is refused too.
        if value is not None and not (value > bound or (value == bound and not exclusive)):
            raise ValueError(
                f"{name} must be {'more than' if exclusive else 'at least'} {bound}, got {value}"
            )

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for a checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainSettings:
        """The inverse of ``to_dict``.

        Raises:
            ValueError: a setting is unknown (the checkpoint is from another version).
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown training settings: {', '.join(unknown)}")
        crop = values.get("crop")
        return cls(**{**values, "crop": None if crop is None else tuple(crop)})

    def changed(self, **changes: Any) -> TrainSettings:
        """These settings with changes that leave the meaning of a resumed run intact.

        Raises:
            ValueError: a change would make the rest of the run differ from its beginning.
        """
        for name, value in changes.items():
            if name not in RUN_ONLY and getattr(self, name) != value:
                raise ValueError(
                    f"{name} cannot change when resuming (the run has {getattr(self, name)!r}, got {value!r}); "
                    f"only {', '.join(RUN_ONLY)} can: start a new run with init_from instead"
                )
        return dataclasses.replace(self, **changes)
