"""Data sets by name, as the command line spells them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from fcnkern.data.ade20k import ade20k, ade20k_splits
from fcnkern.data.cityscapes import cityscapes, cityscapes_splits
from fcnkern.data.context import context, context_splits
from fcnkern.data.layouts import camvid, folder, listed_splits
from fcnkern.data.nyud import nyud, nyud_splits
from fcnkern.data.sample import Dataset
from fcnkern.data.scenes import SPLITS, Scenes
from fcnkern.data.siftflow import siftflow, siftflow_splits
from fcnkern.data.voc import sbd, sbd_splits, voc, voc_splits


class Kind(NamedTuple):
    """A data set in a folder: `open(path, split, **options)`, `splits(path, **options)`."""

    open: Callable[..., Dataset]
    splits: Callable[..., list[str]]
    options: tuple[str, ...] = ()


KINDS = {
    "camvid": Kind(camvid, listed_splits),
    "folder": Kind(folder, listed_splits),
    "voc": Kind(voc, voc_splits, ("sbd",)),
    "sbd": Kind(sbd, sbd_splits, ("voc",)),
    "nyud": Kind(nyud, nyud_splits, ("input",)),
    "siftflow": Kind(siftflow, siftflow_splits, ("task",)),
    "context": Kind(context, context_splits, ("voc", "classes")),
    "cityscapes": Kind(cityscapes, cityscapes_splits),
    "ade20k": Kind(ade20k, ade20k_splits),
}
RENAMED = ("train", "val", "test")


def forms() -> str:
    """How a data set is named, for messages and help."""
    folders = (f"{name}:PATH{''.join(f'[,{o}=...]' for o in kind.options)}" for name, kind in KINDS.items())
    return ", ".join((*folders, "scenes[:count=400,size=96x128,seed=1]"))


def open_dataset(spec: str, split: str = "train", **options: Any) -> Dataset:
    """The data set that `spec` names.

    - ``NAME:PATH``, with options behind commas or as keywords: ``voc:VOC2011,sbd=SBD``. The names and their options
      are those of `KINDS`; see the function of that name for the layout it reads.
    - ``scenes``, with options after a colon or as keywords: `count` (samples in the split), `size`
      (HEIGHTxWIDTH, or a pair), `seed`: see `Scenes`.

    ``train=NAME``, ``val=NAME`` and ``test=NAME`` say which split of a folder is meant by that word:
    ``voc:VOC2012,sbd=SBD,train=trainaug``.

    Raises: ValueError for an unknown name or option; FileNotFoundError, DataError as the data set does.
    """
    kind, _, rest = spec.partition(":")
    if kind == "scenes":
        return _scenes(split, {**_parse(spec, rest), **options})
    path, options = _folder_options(spec, options)
    renamed = {name: str(options.pop(name)) for name in RENAMED if name in options}
    return KINDS[kind].open(path, renamed.get(split, split), **options)


def dataset_splits(spec: str) -> list[str]:
    """The splits that there are of the data set that `spec` names. Raises: as `open_dataset`."""
    kind = spec.partition(":")[0]
    if kind == "scenes":
        return list(SPLITS)
    path, options = _folder_options(spec, {})
    return KINDS[kind].splits(path, **{k: v for k, v in options.items() if k not in RENAMED})


def _folder_options(spec: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The path and the options of a ``NAME:PATH,option=value,...``; the path may hold commas itself."""
    kind, _, rest = spec.partition(":")
    if kind not in KINDS:
        raise ValueError(f"data set {spec!r} is unknown, wanted {forms()}")
    match = re.fullmatch(r"(.*?)((?:,\w+=[^,]*)*)", rest, re.DOTALL)
    assert match is not None, "both groups may be empty"
    if not match[1]:
        raise ValueError(f"data set {spec!r} lacks its folder, wanted {kind}:PATH")
    options = {**_parse(spec, match[2]), **options}
    known = KINDS[kind].options
    if unknown := sorted(set(options) - {*known, *RENAMED}):
        has = f"has the options {', '.join(known)}" if known else "has no options"
        raise ValueError(f"data set {kind!r} {has}, got {', '.join(unknown)}")
    return match[1], options


def _parse(spec: str, text: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for item in filter(None, text.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"data set {spec!r} has the option {item!r}, wanted name=value")
        options[key.strip()] = value.strip()
    return options


def _scenes(split: str, options: dict[str, Any]) -> Scenes:
    known: dict[str, Callable[[str, Any], Any]] = {"count": _integer, "size": _size, "seed": _integer}
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"scenes have no option {', '.join(unknown)}, wanted {', '.join(known)}")
    return Scenes(split, **{key: known[key](key, value) for key, value in options.items()})


def _integer(key: str, value: Any) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise ValueError(f"option {key} is {value!r}, wanted an integer") from None


def _size(key: str, value: Any) -> tuple[int, int]:
    parts = value.lower().split("x") if isinstance(value, str) else value
    try:
        height, width = (int(str(p)) for p in parts)
    except (TypeError, ValueError):
        raise ValueError(f"option {key} is {value!r}, wanted HEIGHTxWIDTH such as 96x128") from None
    return height, width
