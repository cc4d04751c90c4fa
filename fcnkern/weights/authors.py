"""Caffe's names for the authors' networks with depth, two bodies or two heads, and this package's.

nyud-fcn32s-color-d calls its first layer, on colour and depth, `conv1_1_bgrd`. nyud-fcn32s-color-hha is two networks,
told apart by a suffix (`conv1_1color`, `score_frhha`), before one `upscore`; here they are those of a `LateFusion`
(`color.conv1_1`, `hha.score_fr`), each with an upsampling. The siftflow networks have every layer of the head twice
(`score_fr_sem`, `upscore2_geo`); here one layer has the channels of both, as in the network of a `MultiTask`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fcnkern.weights.key_maps import ARCHITECTURES, EARLY, HEADS, module_name, without_wrapper
from fcnkern.weights.mismatch import WeightsMismatchError

STREAMS = ("color", "hha")
SUFFIXES = {"semantic": "_sem", "geometric": "_geo"}
"""What the head's layers of each task of SIFT Flow end with."""

_SHARED = ("upscore", "upscore16", "upscore8")
_LAYERS = {layer.name for network in ARCHITECTURES.values() for layer in network.layers} | {*HEADS, *EARLY}


def streams(state: Mapping[str, Tensor], source: str) -> dict[str, dict[str, Tensor]]:
    """The weights of two networks fused late, by "color" and "hha", each as of one network; all others under "".

    Raises:
        ValueError: there is only one of the two.
    """
    parts: dict[str, dict[str, Tensor]] = {"": {}, **{stream: {} for stream in STREAMS}}
    for key, value in state.items():
        stream, name = _stream_of(key)
        parts[stream][name] = value
    others = parts.pop("")
    found = [stream for stream, part in parts.items() if part]
    if not found:
        return {"": others}
    if len(found) < len(parts):
        raise ValueError(
            f"{source}: late fusion has layers of {' and of '.join(STREAMS)}, here are only those of {found[0]}"
        )
    return {stream: part | others for stream, part in parts.items()}


def one_head(state: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The weights of one network, early fusion's first layer under VGG16's name, both heads as one.

    Returns:
        The weights, and the numbers of classes by task, {} where there is one head.

    Raises:
        WeightsMismatchError (a ValueError): a layer of one head is missing, or not like that of the other.
    """
    out: dict[str, Tensor] = {}
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        layer, _, kind = without_wrapper(key).rpartition(".")
        head, suffix = _head_of(layer)
        if suffix:
            pairs.setdefault(f"{head}.{kind}", {})[suffix] = value
        plain = EARLY.get(head, head)
        out[key if plain == layer else f"{plain}.{kind}"] = value
    wanted = SUFFIXES.values()
    missing = [_suffixed(key, each) for key, pair in pairs.items() for each in wanted if each not in pair]
    if missing:
        raise WeightsMismatchError(source, missing, {}, ())
    for key, pair in pairs.items():
        out[key] = _joined(key, [pair[each] for each in wanted], source)
    sizes = next(iter(pairs.values()), {})
    return out, {task: len(sizes[suffix]) for task, suffix in SUFFIXES.items() if sizes}


def as_authors(state: Mapping[str, Tensor], tasks: Mapping[str, int], source: str) -> dict[str, Tensor]:
    """The inverse of `one_head`, under the authors' names.

    Raises:
        ValueError: the tasks are not SIFT Flow's, or not those of the weights.
    """
    if tasks and set(tasks) != set(SUFFIXES):
        raise ValueError(
            f"{source}: the authors have names for the heads {' and '.join(SUFFIXES)}, these are {', '.join(tasks)}"
        )
    early = {ours: theirs for theirs, ours in EARLY.items() if _takes_depth(state, ours)}
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        layer, _, kind = key.rpartition(".")
        if tasks and layer in HEADS:
            parts = _parts(key, value, list(tasks.values()), source)
            out |= {_suffixed(key, SUFFIXES[task]): part for task, part in zip(tasks, parts, strict=True)}
        else:
            out[f"{early.get(layer, layer)}.{kind}"] = value
    return out


def fused(stream: str, key: str, *, caffe: bool) -> str:
    """What a parameter of the network `stream` is called in late fusion, here or by the authors."""
    shared = key.rpartition(".")[0] in _SHARED
    return f"{stream}.{key}" if not caffe else key if shared else _suffixed(key, stream)


def whole(state: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The weights of any network of the authors or of this package as `LateFusion` and `FCN` call them, but for the
    "body." of the latter; and the numbers of classes by task, {} where there is one head.

    Raises: as `streams` and `one_head`.
    """
    out: dict[str, Tensor] = {}
    tasks: dict[str, int] = {}
    for stream, part in streams(state, source).items():
        joined, tasks = one_head(part, f"{source}, {stream}" if stream else source)
        for key, value in joined.items():
            layer, _, kind = without_wrapper(key).rpartition(".")
            name = f"{module_name(layer)}.{kind}"
            out[fused(stream, name, caffe=False) if stream else name] = value
    return out, tasks


def _stream_of(key: str) -> tuple[str, str]:
    """Which network of late fusion a parameter is of, and its name there; "" and `key` where of none."""
    name = without_wrapper(key)
    stream, _, rest = name.partition(".")
    if stream in STREAMS:
        return stream, without_wrapper(rest)
    layer, _, kind = name.rpartition(".")
    for stream in STREAMS:
        if layer.endswith(stream) and layer.removesuffix(stream) in _LAYERS:
            return stream, f"{layer.removesuffix(stream)}.{kind}"
    return "", key


def _head_of(layer: str) -> tuple[str, str]:
    """A layer of one of two heads without its suffix, and that; another layer as it is, and ""."""
    for suffix in SUFFIXES.values():
        if layer.endswith(suffix) and layer.removesuffix(suffix) in HEADS:
            return layer.removesuffix(suffix), suffix
    return layer, ""


def _suffixed(key: str, suffix: str) -> str:
    layer, _, kind = key.rpartition(".")
    return f"{layer}{suffix}.{kind}"


def _takes_depth(state: Mapping[str, Tensor], first: str) -> bool:
    weight = state.get(f"{first}.weight")
    return weight is not None and weight.shape[1] == 4


def _joined(key: str, parts: Sequence[Tensor], source: str) -> Tensor:
    """Both heads' classifiers one behind the other, both heads' upsampling as blocks on the diagonal."""
    first, second = parts
    if not key.startswith("upscore"):
        _check_alike(key, first.shape[1:], second, 1, source)
        return torch.cat([first, second])
    _check_alike(key, first.shape[2:], second, 2, source)
    sizes = [a + b for a, b in zip(first.shape[:2], second.shape[:2], strict=True)]
    out = first.new_zeros(*sizes, *first.shape[2:])
    out[: first.shape[0], : first.shape[1]] = first
    out[first.shape[0] :, first.shape[1] :] = second
    return out


def _check_alike(key: str, wanted: torch.Size, second: Tensor, axis: int, source: str) -> None:
    if second.shape[axis:] != wanted:
        shapes = tuple(second.shape), (*second.shape[:axis], *wanted)
        raise WeightsMismatchError(source, (), {_suffixed(key, SUFFIXES["geometric"]): shapes}, ())


def _parts(key: str, value: Tensor, sizes: list[int], source: str) -> list[Tensor]:
    """The inverse of `_joined`."""
    if value.shape[0] != sum(sizes):
        raise ValueError(
            f"{source}: {key} has {value.shape[0]} classes, the heads {' + '.join(map(str, sizes))}"
        )
    if not key.startswith("upscore"):
        return list(value.split(sizes))
    parts = [rows.split(sizes, 1)[head] for head, rows in enumerate(value.split(sizes))]
    if not torch.equal(_joined(key, parts, source), value):
        raise ValueError(f"{source}: {key} mixes the heads, the authors' upsampling keeps them apart")
    return parts
