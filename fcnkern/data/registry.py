"""Data sets by name, as the command line spells them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fcnkern.data.layouts import camvid, folder
from fcnkern.data.sample import Dataset
from fcnkern.data.scenes import Scenes

_FORMS = "camvid:PATH, folder:PATH, scenes or scenes:count=400,size=96x128,seed=1"
_FOLDERS = {"camvid": camvid, "folder": folder}


def open_dataset(spec: str, split: str = "train", **options: Any) -> Dataset:
    """The data set that `spec` names.

    - ``camvid:PATH``: see `camvid`; ``folder:PATH``: see `folder`;
    - ``scenes``, with options after a colon or as keywords: `count` (samples in the split), `size`
      (HEIGHTxWIDTH, or a pair), `seed`: see `Scenes`.

    Raises: ValueError for an unknown name or option; FileNotFoundError, DataError as the data set does.
    """
    kind, _, rest = spec.partition(":")
    if kind in _FOLDERS:
        if not rest:
            raise ValueError(f"data set {spec!r} lacks its folder, wanted {kind}:PATH")
        if options:
            raise ValueError(f"data set {kind!r} has no options, got {', '.join(options)}")
        return _FOLDERS[kind](rest, split)
    if kind == "scenes":
        return _scenes(split, {**_parse(spec, rest), **options})
    raise ValueError(f"data set {spec!r} is unknown, wanted {_FORMS}")


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
