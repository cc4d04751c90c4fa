"""Everything that a training run depends on, in one record that checkpoints carry."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from fcnkern.data import presets
from fcnkern.data.registry import forms
from fcnkern.engine._setting import setting, settings_of
from fcnkern.engine.schedules import SCHEDULES
from fcnkern.engine.values import duration, number_or_none, numbers, size, strides
from fcnkern.models.registry import ALIASES, list_late, list_models

ARCHITECTURES = (*ALIASES, *list_models(), *(f"{name}-late" for name in ALIASES), *list_late())
REDUCTIONS = ("valid", "batch")
PRECISIONS = ("fp32", "bf16", "fp16")
SAMPLING_MODES = ("uniform", "balanced", "hard")
STAGES = (32, 16, 8)
RUN, DATA, NETWORK, LEARNING, LOSS = "run", "data", "network", "optimiser", "loss"


@dataclass(frozen=True)
class TrainSettings:
    """Settings of a training run; what each means is the text of its field, which ``fcnkern train --help`` shows.

    Lists are taken for tuples.

    Raises:
        ValueError: a value of another type or out of range, or values that exclude each other.
    """

    iterations: int | None = setting(
        None, RUN, "iterations to train, of each stage", parse=int, metavar="N", above=0, resumable=True
    )
    time_limit: float | None = setting(
        None,
        RUN,
        "seconds to train, of all stages together: 90s, 15m, 2h",
        parse=duration,
        metavar="T",
        above=0,
        resumable=True,
    )
    val_every: int = setting(
        0,
        RUN,
        "iterations between validations, 0: only at the end",
        parse=int,
        metavar="N",
        least=0,
        resumable=True,
    )
    val_limit: int | None = setting(
        None,
        RUN,
        "images of the validations in between, all at the end",
        parse=int,
        metavar="N",
        above=0,
        resumable=True,
    )
    save_every: int = setting(
        200, RUN, "iterations between checkpoints", parse=int, metavar="N", above=0, resumable=True
    )
    threads: int | None = setting(None, RUN, "CPU threads", parse=int, metavar="N", above=0, resumable=True)
    precision: str = setting(
        "fp32",
        RUN,
        "bf16 or fp16 (with loss scaling): autocast; weights and optimiser stay fp32",
        choices=PRECISIONS,
    )
    device: str = setting("auto", RUN, "auto, cpu, cuda or cuda:N", metavar="NAME", resumable=True)
    compile: bool = setting(False, RUN, "run the network through torch.compile", resumable=True)
    tensorboard: bool = setting(False, RUN, "write events for TensorBoard, too", resumable=True)
    seed: int = setting(0, RUN, "of everything random", parse=int, metavar="N", least=0, most=2**63 - 1)

    data: str = setting("scenes", DATA, forms(), metavar="SPEC", resumable=True)
    val_split: str = setting("val", DATA, "split to validate on, or none", metavar="NAME", resumable=True)
    batch_size: int = setting(
        1,
        DATA,
        "images per iteration, of each process; 1/P times as many with --sampling P",
        parse=int,
        metavar="N",
        above=0,
    )
    accumulate: int = setting(
        1, DATA, "batches whose gradients are averaged in an iteration", parse=int, metavar="N", above=0
    )
    crop: tuple[int, int] | None = setting(
        None, DATA, "random crop, HEIGHTxWIDTH; whole images without", parse=size, metavar="HxW"
    )
    augment: bool = setting(
        False, DATA, "the paper's augmentation: random mirror, and shift by up to 32 pixels"
    )
    shift: int | None = setting(
        None,
        DATA,
        "largest random shift in pixels; with --augment 32, else 0",
        parse=int,
        metavar="N",
        least=0,
    )
    scale: tuple[float, float] | None = setting(
        None, DATA, "random scale of both sides between two factors: 0.75,1.5", parse=numbers, metavar="X,X"
    )
    pipeline: str | None = setting(
        None, DATA, "more augmentation: a file that albumentations.save wrote, .json or .yaml", metavar="FILE"
    )
    skip_broken: bool = setting(
        False, DATA, "leave out images that are missing or damaged, and count them", resumable=True
    )
    preprocess: str | None = setting(
        None, DATA, "input preset; without, the one the weights want", choices=tuple(presets)
    )

    arch: str = setting(
        "fcn8s",
        NETWORK,
        "network, see 'fcnkern models'; fcn32s-late and the like: two, on colour and HHA, whose scores are averaged",
        choices=ARCHITECTURES,
        metavar="NAME",
    )
    stages: tuple[int, ...] | None = setting(
        None,
        NETWORK,
        "train fcn32s, fcn16s and fcn8s of arch's body in turn, each in its folder of DIR: 32,16,8",
        parse=strides,
        metavar="S,S",
    )
    width: float = setting(1.0, NETWORK, "scale of the channels", parse=float, metavar="X", above=0)
    upsampling: Literal["fixed", "learned"] = setting(
        "fixed", NETWORK, "upsampling layers", choices=("fixed", "learned")
    )
    dropout: float | None = setting(
        None, NETWORK, "instead of the body's own", parse=float, metavar="P", least=0, below=1
    )
    elide: bool = setting(
        False, NETWORK, "leave out, exactly, the work that padding causes; on VGG16", resumable=True
    )
    weights: str | None = setting(
        None, NETWORK, "weights for the body: .caffemodel, .npz, .safetensors, .pth", metavar="FILE"
    )
    init_from: str | None = setting(
        None,
        NETWORK,
        "checkpoint of the coarser, or of the same, network to start from; of late fusion also one of each network: "
        "COLOUR,HHA",
        metavar="FILE",
    )

    freeze_body: bool = setting(
        False, NETWORK, "train the classifiers alone, on the body as it is: the paper's FCN-32s-fixed"
    )

    lr: float = setting(0.01, LEARNING, "learning rate", parse=float, metavar="X", above=0)
    stage_lr: float = setting(
        1.0,
        LEARNING,
        "multiplier of the rate from each stage to the next, the paper's 0.01",
        parse=float,
        metavar="X",
        above=0,
    )
    momentum: float = setting(0.9, LEARNING, "momentum", parse=float, metavar="X", least=0, below=1)
    weight_decay: float = setting(
        5e-4, LEARNING, "weight decay; none on biases", parse=float, metavar="X", least=0
    )
    score_lr: float = setting(
        1.0, LEARNING, "multiplier of the rate for the score layers", parse=float, metavar="X", above=0
    )
    schedule: str = setting("poly", LEARNING, "of the learning rate", choices=SCHEDULES)
    warmup: int = setting(50, LEARNING, "iterations of linear warm-up", parse=int, metavar="N", least=0)
    clip: float | None = setting(
        5.0,
        LEARNING,
        "largest norm of the gradient; 'none' for no limit",
        parse=number_or_none,
        metavar="X",
        above=0,
    )

    ema: float | None = setting(
        None,
        LEARNING,
        "validate and keep an exponential moving average of the weights, of this decay: 0.999",
        parse=float,
        metavar="X",
        above=0,
        below=1,
    )

    reduction: Literal["valid", "batch"] = setting(
        "valid", LOSS, "valid: mean over pixels; batch: sum / images, the paper's", choices=REDUCTIONS
    )
    sampling: float | None = setting(
        None, LOSS, "share of the pixels to keep in the loss", parse=float, metavar="P", above=0, most=1
    )
    sampling_mode: str = setting(
        "uniform",
        LOSS,
        "keep cells at random, classes alike (balanced), or the pixels of least probability (hard)",
        choices=SAMPLING_MODES,
    )
    cell: int = setting(
        32, LOSS, "side of the cells of pixels that are kept or dropped", parse=int, metavar="N", above=0
    )
    aux: float | None = setting(
        None, LOSS, "weight of losses on each stream's own scores", parse=float, metavar="W", above=0
    )
    class_weights: str = setting(
        "none", LOSS, "none, median, sqrt (of median), or one number per class: 1,0.5,...", metavar="W"
    )

    def __post_init__(self) -> None:
        for name, known in SETTINGS.items():
            value = known.taken(getattr(self, name))
            known.check(name, value)
            object.__setattr__(self, name, value)  # the dataclass is frozen
        if self.iterations is None and self.time_limit is None:
            raise ValueError("a training run needs an end: give iterations, time_limit, or both")
        if self.crop is not None and (len(self.crop) != 2 or min(self.crop) < 1):
            raise ValueError(f"crop must be a positive height and width, got {self.crop}")
        if self.scale is not None and (
            len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] < math.inf
        ):
            raise ValueError(f"scale must be two factors, 0 < least <= most, got {self.scale}")
        if self.stages is not None:
            self._check_stages(self.stages)

    def _check_stages(self, stages: tuple[int, ...]) -> None:
        runs = [STAGES[i:j] for i in range(len(STAGES)) for j in range(i + 1, len(STAGES) + 1)]
        if stages not in runs:
            wanted = ",".join(map(str, STAGES))
            raise ValueError(f"stages must be {wanted} or neighbours among them, in this order, got {stages}")
        if "atonce" in self.arch:
            raise ValueError(f"stages and arch {self.arch} exclude each other: at once is without stages")
        if self.aux is not None and 32 in stages:
            raise ValueError("aux and the stage 32 exclude each other: fcn32s has one stream")

    def progress(self, iteration: int, elapsed: float) -> float:
        """How much of the run is done, in [0, 1]: by iterations or by seconds, whichever is further."""
        by_count = iteration / self.iterations if self.iterations else 0.0
        by_time = elapsed / self.time_limit if self.time_limit else 0.0
        return max(by_count, by_time)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for a checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainSettings:
        """The inverse of ``to_dict``.

        Raises:
            ValueError: a setting is unknown (the checkpoint is from another version).
        """
        check_names(values)
        return cls(**values)

    def changed(self, **changes: Any) -> TrainSettings:
        """These settings with changes that leave the meaning of a resumed run intact.

        Raises:
            ValueError: a change would make the rest of the run differ from its beginning.
        """
        allowed = [name for name, known in SETTINGS.items() if known.resumable]
        for name, value in changes.items():
            if name not in allowed and getattr(self, name) != value:
                raise ValueError(
                    f"{name} cannot change when resuming (the run has {getattr(self, name)!r}, got {value!r}); "
                    f"only {', '.join(allowed)} can: start a new run with init_from instead"
                )
        return dataclasses.replace(self, **changes)


SETTINGS = settings_of(TrainSettings)


def check_names(names: Iterable[str], more: Iterable[str] = ()) -> None:
    """Refuses what is neither a setting nor in ``more``.

    Raises:
        ValueError: naming the unknown ones, each with the nearest that exists.
    """
    known = [*SETTINGS, *more]
    unknown = sorted(set(names) - set(known))
    if not unknown:
        return
    near = {name: difflib.get_close_matches(name, known, n=1) for name in unknown}
    told = [f"{name} (did you mean {near[name][0]}?)" if near[name] else name for name in unknown]
    every = "" if all(near.values()) else f"; there are {', '.join(known)}"
    raise ValueError(f"unknown training settings: {', '.join(told)}{every}")
