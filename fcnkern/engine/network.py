"""Networks as training runs and checkpoints name them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils import convert_conv2d_weight_memory_format

from fcnkern.data import channels_of, with_depth, with_hha
from fcnkern.engine.agreement import tell_other_names
from fcnkern.engine.checkpoint import load_checkpoint, save_checkpoint
from fcnkern.engine.settings import TrainSettings
from fcnkern.models import FCN, VGG16, LateFusion, Segmenter, create, create_late, fuse_early
from fcnkern.models.registry import parse_name
from fcnkern.weights import LoadReport
from fcnkern.weights.body import fill_body
from fcnkern.weights.files import read_weights
from fcnkern.weights.transfer import image_channels

COLOUR = 3


@dataclass
class Trained:
    """A network from a checkpoint, in evaluation mode, with what it takes to use it.

    Attributes:
        classes, palette: names and colours of its classes; the palette is uint8 (C, 3).
        settings: of the run that trained it.
        iteration: how long it was trained.
        tasks: numbers of classes by name, where the network's are those of several tasks.
    """

    model: Segmenter
    classes: list[str]
    palette: np.ndarray
    settings: TrainSettings
    iteration: int
    tasks: dict[str, int] = field(default_factory=dict)


def new_network(settings: TrainSettings, n_class: int, channels: int = 3) -> Segmenter:
    """The network that the settings describe, with new weights, for images of so many channels.

    Raises:
        ValueError: late fusion of images that are not colour with HHA; see ``create``.
    """
    options: dict[str, Any] = {
        "width": settings.width,
        "upsampling": settings.upsampling,
        "elide": settings.elide,
    }
    model: Segmenter
    if not parse_name(settings.arch).late:
        model = create(settings.arch, n_class, in_channels=channels, **options)
    elif channels == 2 * COLOUR:
        model = create_late(settings.arch, n_class, **options)
    else:
        raise ValueError(
            f"arch {settings.arch} takes colour and HHA, six channels, which nyud has with input=color-hha; the data "
            f"set's images have {channels}"
        )
    if settings.dropout is not None:
        model.set_dropout(settings.dropout)
    # Mostly the faster layout for inference; training takes its own.
    convert_conv2d_weight_memory_format(model, torch.channels_last)
    return model


def starting_network(
    settings: TrainSettings, n_class: int, wanted: str | None = None, classes: Sequence[str] = ()
) -> tuple[Segmenter, str]:
    """The network to start training from, and a line on where its weights come from.

    Args:
        wanted: the preset of a data set whose images are no colour photographs (``wanted_preset``). It gives the
            channels: with four, weights for colour are fused early (CVPR section 5.2, NYUDv2), those of a network
            with as many channels are taken as they are.
        classes: names of the classes; it is told where those of ``init_from`` differ.

    Raises:
        FileNotFoundError, ValueError: the file of weights or the checkpoint is missing, damaged or does not fit.
    """
    if settings.weights is not None and settings.init_from is not None:
        raise ValueError("weights and init_from exclude each other: both fill the body of the network")
    channels = channels_of(wanted)
    model = new_network(settings, n_class, channels)
    if settings.init_from is not None:
        sources = _sources(model, settings.init_from)
        for source in sources:
            tell_other_names(f"init_from {settings.init_from}", source.classes, settings.data, classes)
        report = _start_from(model, [source.model for source in sources], settings.init_from, channels)
        if settings.preprocess is not None and _preset(settings.preprocess, channels) != model.preprocess:
            raise ValueError(
                f"preprocess must be that of init_from {settings.init_from}, {model.preprocess!r}, or left out, got "
                f"{settings.preprocess!r}"
            )
        return model, str(report)
    if settings.weights is not None:
        filled = _fill(model, settings, wanted)
        if settings.freeze_body and filled.initialised:
            raise ValueError(
                f"freeze_body needs a trained body: weights {settings.weights} lack {', '.join(filled.initialised)}"
            )
        return model, str(filled)
    if settings.freeze_body:
        raise ValueError("freeze_body needs a trained body: give weights or init_from")
    chosen = settings.preprocess
    if chosen is not None or wanted is not None:
        model.preprocess = _preset(chosen or str(wanted), channels)
    return model, "all weights are new (He initialisation); score layers start at zero"


def _fill(model: Segmenter, settings: TrainSettings, wanted: str | None) -> LoadReport:
    """Fills the body from the settings' file of weights, for images of as many channels or for colours alone."""
    path, chosen, channels = str(settings.weights), settings.preprocess, channels_of(wanted)
    file = read_weights(path)
    if isinstance(model, LateFusion):
        for part in (model.color, model.hha):
            report = fill_body(part, file, path, preprocess=chosen)
        model.preprocess = with_hha(model.color.preprocess)
        return dataclasses.replace(report, preprocess=model.preprocess)
    given = image_channels(model, file.tensors) or channels
    if given == COLOUR != channels:
        colour = create(settings.arch, model.n_class, width=settings.width, upsampling=settings.upsampling)
        report = fill_body(colour, file, path, preprocess=chosen)
        _fuse(model, colour, channels)
        return report
    if given != channels:
        raise ValueError(
            f"weights {path} are for {given}-channel images, the data set has {channels}-channel ones; only weights "
            f"for colour serve another number, that of colour with depth"
        )
    if wanted is not None:
        model.preprocess = wanted if channels < COLOUR else _preset(model.preprocess, channels)
    return fill_body(model, file, path, preprocess=None if chosen is None else _preset(chosen, channels))


def _preset(colours: str, channels: int) -> str:
    """The preset of so many channels with the colours as ``colours`` says, which may say all of it."""
    if channels_of(colours) == channels:
        return colours
    if channels == 2 * COLOUR:
        return with_hha(colours)
    if channels != COLOUR + 1:
        raise ValueError(
            f"preprocess {colours} is for colours, the images of the data set have {channels} channels"
        )
    return with_depth(colours)


def _fuse(model: FCN, colour: FCN, channels: int) -> LoadReport:
    """Starts a network on colour and more from one on colour: what is added gets the mean weight of the colours."""
    if channels < COLOUR:
        raise ValueError(
            "weights for colour images do not fit a network of depth alone: do without weights, or take input=rgbd, "
            "whose first layer takes colour and depth, or input=hha, which has three channels"
        )
    report = fuse_early(model, colour)
    model.preprocess = _preset(colour.preprocess, channels)
    return report


def _sources(model: Segmenter, paths: str) -> list[Trained]:
    """What ``init_from`` names: one checkpoint, for late fusion also two with a comma between them."""
    return [load_trained(path) for path in ([paths] if isinstance(model, FCN) else paths.split(","))]


def _start_from(model: Segmenter, sources: list[Segmenter], paths: str, channels: int) -> LoadReport:
    """Copies a checkpoint into ``model``; into late fusion one of its kind, or one for each of its networks."""
    if isinstance(model, FCN):
        return _start(model, sources[0], paths, channels)
    files = paths.split(",")
    if len(files) == 1 and isinstance(sources[0], LateFusion):
        sources, files = [sources[0].color, sources[0].hha], files * 2
    if len(sources) != 2:
        raise ValueError(
            f"init_from {paths} must name a checkpoint of late fusion, or one of a network on colour and one of a "
            "network on HHA, with a comma between them"
        )
    parts = zip((model.color, model.hha), sources, files, strict=True)
    report, _ = [_start(part, source, file, COLOUR) for part, source, file in parts]
    return dataclasses.replace(report, source=paths)


def _start(model: FCN, source: Segmenter, path: str, channels: int) -> LoadReport:
    """Copies the next coarser network, or the same one, which lies in ``path``."""
    if isinstance(source, LateFusion):
        raise ValueError(f"init_from {path} is two networks fused late, a {_kind(model)} is one")
    same_body = _body_type(source) is _body_type(model)
    same_kind = same_body and type(source) is type(model) and source.taps == model.taps
    same_input = channels_of(source.preprocess) == channels
    try:
        if same_kind and not same_input and channels_of(source.preprocess) == COLOUR:
            return _fuse(model, source, channels)
        if same_body and not same_input:
            raise ValueError(
                f"its images have {channels_of(source.preprocess)} channels, the data set's {channels}"
            )
        model.preprocess = source.preprocess
        if same_kind:
            if source.n_class != model.n_class:
                raise ValueError(
                    f"it has {source.n_class} classes, the data set {model.n_class}: --weights takes its body alone"
                )
            model.load_state_dict(source.state_dict())
            return LoadReport(path, ("every layer",), (), ())
        if same_body and source.taps == model.taps[1:]:
            return model.copy_params_from(source)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"init_from {path} does not fit the network: {error}") from error
    raise ValueError(
        f"init_from {path} is a {_kind(source)}, a {_kind(model)} starts from the next coarser network on the same "
        "body (fcn32s for fcn16s, fcn16s for fcn8s) or from its own kind"
    )


def _body_type(model: FCN) -> type:
    return VGG16 if isinstance(model, VGG16) else type(model.body)


def _kind(model: FCN) -> str:
    """A name for messages: FCN16s, or FCN (GoogLeNet: inception_4e, pool5)."""
    name = type(model).__name__
    return (
        name if isinstance(model, VGG16) else f"{name} ({type(model.body).__name__}: {', '.join(model.taps)})"
    )


def load_trained(path: str | Path, model: Segmenter | None = None) -> Trained:
    """Reads the network of a checkpoint that ``fcnkern train`` or a ``Trainer`` wrote.

    Args:
        model: a network like that which was trained, to take the weights; None for one that the settings describe.

    Raises:
        FileNotFoundError, ValueError: the file is missing, damaged, no checkpoint, or that of another network.
    """
    return trained_from(load_checkpoint(path), path, model)


def trained_from(record: dict[str, Any], path: str | Path, model: Segmenter | None = None) -> Trained:
    """The network of a checkpoint's content, as ``load_trained`` gives it; ``path`` is for messages."""
    try:
        settings = TrainSettings.from_dict(record["settings"])
        what = (
            f"arch {settings.arch} of its settings" if model is None else f"the {type(model).__name__} given"
        )
        if model is None:
            model = new_network(settings, len(record["classes"]), channels_of(record["preprocess"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"checkpoint {path} does not fit this version of fcnkern: {error}") from error
    try:
        model.load_state_dict(record["state_dict"])
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"checkpoint {path} is not of {what}, and a network of your own is to be given as model: {error}"
        ) from error
    model.preprocess = record["preprocess"]
    model.eval()
    return Trained(
        model,
        record["classes"],
        record["palette"].numpy(),
        settings,
        record["iteration"],
        record.get("tasks", {}),
    )


def save_trained(path: str | Path, trained: Trained) -> None:
    """Writes a checkpoint that ``load_trained`` reads: a network to use or to start from, no run to go on with.

    Raises:
        OSError: it cannot be written.
    """
    content = {
        "state_dict": trained.model.state_dict(),
        "classes": trained.classes,
        "palette": torch.from_numpy(trained.palette.copy()),
        "preprocess": trained.model.preprocess,
        "settings": trained.settings.to_dict(),
        "iteration": trained.iteration,
        "tasks": trained.tasks,
    }
    save_checkpoint(path, content)
