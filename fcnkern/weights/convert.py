"""Rename a state_dict from one naming to another, with a report of what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from fcnkern.data.preprocess import preset
from fcnkern.weights.authors import as_authors, fused, one_head, streams
from fcnkern.weights.conventions import fold_first_layer
from fcnkern.weights.key_maps import (
    ARCHITECTURES,
    AT_ONCE_SCALES,
    HEADS,
    NAMINGS,
    Architecture,
    Layer,
    Naming,
    module_name,
    without_wrapper,
)
from fcnkern.weights.mismatch import WeightsMismatchError, shortened
from fcnkern.weights.transfer import is_zero


@dataclass(frozen=True)
class Conversion:
    """Renamed weights and what there is to say about them.

    Attributes:
        state: names to tensors, in the order of the source. Fully connected layers are convolutions in all namings
            but torchvision's.
        architecture, source_naming, naming: of what, from what, to what.
        absent: layers of the classifier that the source lacks.
        others: names in the source that are in no table; they keep their name where modules can have it.
        left_out: names in the source that the naming has no name for.
        zero: layers whose weights are all zero, where that is no intention (score layers start at zero).
        tasks: numbers of classes by name, where the head is that of several tasks.
    """

    state: dict[str, Tensor]
    architecture: str
    source_naming: Naming
    naming: Naming
    absent: tuple[str, ...]
    others: tuple[str, ...]
    left_out: tuple[str, ...]
    zero: tuple[str, ...]
    tasks: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        count = sum(value.numel() for value in self.state.values())
        lines = [
            f"{self.architecture}: {self.source_naming} names to {self.naming} names, "
            f"{len(self.state)} tensors, {count:,} numbers"
        ]
        notes = {
            "not in the source": self.absent,
            "in no table, kept": self.others,
            f"left out, {self.naming} has no name for it": self.left_out,
            "warning, all zero": self.zero,
            "tasks": tuple(f"{task} ({count} classes)" for task, count in self.tasks.items()),
        }
        return "\n".join(lines + [f"{what}: {shortened(names)}" for what, names in notes.items() if names])


class Match(NamedTuple):
    """A network and a naming, and how many of its weights a state has: in the right shape, in that of another width
    of the network (all or none), and at all."""

    fitting: int
    scaled: int
    present: int
    architecture: Architecture
    naming: Naming

    @property
    def rank(self) -> tuple[int, int, int]:
        """What is greater for the better match."""
        return max(self.fitting, self.scaled), self.fitting, self.present


def identify(state: Mapping[str, Tensor], architecture: str | None = None, *, source: str = "state") -> Match:
    """Which network of the paper these weights are of, and whose names they have.

    Args:
        architecture: a name of `ARCHITECTURES`, or None to find it by names and shapes.

    Raises:
        ValueError: an unknown architecture; or, without one, no network or more than one that fits best.
    """
    if architecture is not None and architecture not in ARCHITECTURES:
        raise ValueError(f"architecture must be one of {', '.join(ARCHITECTURES)}, got {architecture!r}")
    part = next(iter(streams(state, source).values()))
    shapes = {without_wrapper(key): tuple(value.shape) for key, value in one_head(part, source)[0].items()}
    networks = ARCHITECTURES.values() if architecture is None else [ARCHITECTURES[architecture]]
    matches = [_match(shapes, network, naming) for network in networks for naming in network.namings]
    best = max(matches, key=lambda match: match.rank)
    rivals = {match.architecture.name for match in matches if match.rank == best.rank}
    found = best.rank[0] > 0
    if architecture is None and (not found or len(rivals) > 1):
        layers = list(dict.fromkeys(key.rpartition(".")[0] for key in shapes))
        which = f"{' or '.join(sorted(rivals))}, name the one" if found else "none of the known networks"
        raise ValueError(
            f"{source}: {which} (of {', '.join(ARCHITECTURES)}); its layers are {shortened(layers)}"
        )
    return best


def convert(
    state: Mapping[str, Tensor],
    naming: Naming,
    *,
    architecture: str | None = None,
    tasks: Mapping[str, int] | None = None,
    source: str = "state",
) -> Conversion:
    """The same weights under the names of `naming`: "fcnkern", "caffe", "pytorch-fcn" or "torchvision".

    Args:
        state: a state_dict or what `load` gives, in any of the four namings; heads of the FCNs may be in it, and
            networks with depth, late fusion or two heads under the authors' names (`fcnkern.weights.authors`).
        architecture: "vgg16", "caffenet", "alexnet" or "googlenet"; found by names and shapes if None.
        tasks: numbers of classes by name ("semantic", "geometric"), where one head has those of both; the authors'
            names say it themselves.
        source: what to call `state` in messages.

    Raises:
        ValueError: no known network, or the network does not exist under that naming; one network of late fusion
            without the other.
        WeightsMismatchError (a ValueError): convolutions are missing or misshapen: all of them are named.
    """
    if naming not in NAMINGS:
        raise ValueError(f"naming must be one of {', '.join(NAMINGS)}, got {naming!r}")
    parts = streams(state, source)
    if list(parts) == [""]:
        return _convert(parts[""], naming, architecture, tasks or {}, source)
    if naming not in ("fcnkern", "caffe"):
        raise ValueError(f"{source}: two networks fused late have no {naming} names, only those of one have")
    done = {
        stream: _convert(part, naming, architecture, tasks or {}, f"{source}, {stream}")
        for stream, part in parts.items()
    }
    return _together(done, naming)


def _together(done: Mapping[str, Conversion], naming: Naming) -> Conversion:
    """Both networks of late fusion as one."""

    def all_of(kind: str) -> tuple[str, ...]:
        return tuple(f"{name} of {stream}" for stream, each in done.items() for name in getattr(each, kind))

    state = {
        fused(stream, key, caffe=naming == "caffe"): value
        for stream, each in done.items()
        for key, value in each.state.items()
    }
    return replace(
        next(iter(done.values())),
        state=state,
        absent=all_of("absent"),
        others=all_of("others"),
        left_out=all_of("left_out"),
        zero=all_of("zero"),
    )


def _convert(
    given: Mapping[str, Tensor],
    naming: Naming,
    architecture: str | None,
    given_tasks: Mapping[str, int],
    source: str,
) -> Conversion:
    state, found = one_head(given, source)
    tasks = found or dict(given_tasks)
    match = identify(state, architecture, source=source)
    network = match.architecture
    if naming not in network.namings:
        reason = dict(network.absent)[naming]
        raise ValueError(f"{source}: {network.name} has no {naming} names: {reason}")
    layers = network.named(match.naming)
    _check(state, match, source)
    work = _Renaming(naming, layers, source)
    for key, value in state.items():
        work.add(key, value)
    renamed = as_authors(work.state, tasks, source) if naming == "caffe" else work.state
    present = {without_wrapper(key).rpartition(".")[0] for key in state}
    absent = tuple(theirs for theirs, layer in layers.items() if layer.dense and theirs not in present)
    return Conversion(
        renamed, network.name, match.naming, naming, absent,
        tuple(work.others), tuple(work.left_out), tuple(work.zero), tasks,
    )  # fmt: skip


def fold_input(conversion: Conversion, trained: str, wanted: str) -> Conversion:
    """The same with the first layer folded from images prepared by preset `trained` to preset `wanted`.

    Raises:
        ValueError: an unknown preset, or means that differ (see `fold_first_layer`); a network on more than colours.
    """
    first = ARCHITECTURES[conversion.architecture].layers[0].called(conversion.naming)
    keys = (f"{first}.weight", f"{first}.bias")
    if keys[0] not in conversion.state:
        raise ValueError(f"only networks on three channels are folded, these weights have no {keys[0]}")
    weight, bias = (conversion.state[key] for key in keys)
    folded = fold_first_layer(weight, bias, preset(trained), preset(wanted))
    return replace(conversion, state=conversion.state | dict(zip(keys, folded, strict=True)))


def _match(shapes: Mapping[str, tuple[int, ...]], network: Architecture, naming: Naming) -> Match:
    layers = {f"{name}.weight": layer for name, layer in network.named(naming).items()}
    present = [key for key in layers if key in shapes]
    fitting = sum(layers[key].fits(shapes[key]) for key in present)
    scaled = len(present) if network.is_scaled(shapes, naming) else 0
    return Match(fitting, scaled, len(present), network, naming)


def _check(state: Mapping[str, Tensor], match: Match, source: str) -> None:
    layers = match.architecture.named(match.naming)
    shapes = {without_wrapper(key): tuple(value.shape) for key, value in state.items()}
    missing: list[str] = []
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    for name, layer in layers.items():
        weight, bias = f"{name}.weight", f"{name}.bias"
        whole_layer_missing = weight not in shapes and bias not in shapes
        if not (layer.dense and whole_layer_missing):
            missing += [key for key in (weight, bias) if key not in shapes]
        outputs = (shapes.get(weight, layer.shape) if match.scaled else layer.shape)[:1]
        if weight in shapes and not match.scaled and not layer.fits(shapes[weight]):
            misshapen[weight] = (shapes[weight], layer.shape)
        if bias in shapes and shapes[bias] != outputs:
            misshapen[bias] = (shapes[bias], outputs)
    if missing or misshapen:
        known = set(layers) | set(HEADS) | set(AT_ONCE_SCALES)
        unexpected = [key for key in shapes if key.rpartition(".")[0] not in known]
        raise WeightsMismatchError(f"{source} as {match.architecture.name}", missing, misshapen, unexpected)


@dataclass
class _Renaming:
    """Collects the renamed tensors."""

    target: Naming
    layers: Mapping[str, Layer]
    origin: str
    state: dict[str, Tensor] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    zero: list[str] = field(default_factory=list)

    def add(self, key: str, value: Tensor) -> None:
        name, _, kind = without_wrapper(key).rpartition(".")
        if name in AT_ONCE_SCALES:
            self._check_scale(key, value, AT_ONCE_SCALES[name])
        layer = self.layers.get(name)
        theirs = self._other_name(key, name) if layer is None else layer.called(self.target)
        if theirs is None:
            self.left_out.append(key)
            return
        if kind == "weight" and not name.startswith("score_") and is_zero(value):
            self.zero.append(name)
        if layer is not None and layer.dense and kind == "weight":
            value = value.reshape(len(value), -1, *(() if self.target == "torchvision" else layer.shape[2:]))
        self.state[f"{theirs}.{kind}"] = value

    def _other_name(self, key: str, name: str) -> str | None:
        if self.target == "torchvision" or (name in AT_ONCE_SCALES and self.target != "caffe"):
            return None
        if name not in HEADS and name not in AT_ONCE_SCALES:
            self.others.append(key)
        return module_name(name) if self.target == "fcnkern" else name

    def _check_scale(self, key: str, value: Tensor, constant: float) -> None:
        """Caffe's scale layers hold what the at-once network of this package and pytorch-fcn has built in."""
        if not torch.allclose(value.double(), torch.tensor(constant, dtype=torch.float64), rtol=1e-6, atol=0):
            raise ValueError(f"{self.origin}: {key} is not the constant {constant} of FCN-8s at once")
