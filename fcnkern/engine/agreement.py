"""Whether a network and a data set mean the same classes and the same images."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fcnkern.data import Dataset, channels_of, wanted_preset
from fcnkern.engine.distributed import rank
from fcnkern.engine.progress import say

SHOWN = 3
HHA = "nyud-hha"


def check_classes(source: str, classes: Sequence[str], data: str, wanted: Sequence[str]) -> None:
    """Refuses a network with another number of classes than the data set, and tells where the names differ.

    Args:
        source: what the network is called in messages.
        data: what the data set is called there; ``wanted``, its classes.

    Raises:
        ValueError: the numbers differ.
    """
    if len(classes) != len(wanted):
        origin = (
            "counted in its labels, as it has no classes.txt"
            if all(map(_is_placeholder, wanted))
            else _listed(wanted)
        )
        raise ValueError(
            f"{source} has {len(classes)} classes, the data set {data} {len(wanted)}: {origin}; the network's "
            f"are {_listed(classes)}"
        )
    tell_other_names(source, classes, data, wanted)


def tell_other_names(source: str, classes: Sequence[str], data: str, wanted: Sequence[str]) -> None:
    """A line on standard error where classes of one number have two names; names that only count do not matter."""
    pairs = [
        f"{k} is {mine!r} and {theirs!r}"
        for k, (mine, theirs) in enumerate(zip(classes, wanted, strict=False))
        if mine != theirs and not _is_placeholder(mine) and not _is_placeholder(theirs)
    ]
    if pairs and rank() == 0:
        say(
            f"warning: {source} and the data set {data} are matched by the numbers of their classes, whose names "
            f"differ: class {_listed(pairs)}"
        )


def check_images(source: str, preprocess: str, trained_on: str, data: str, dataset: Dataset) -> None:
    """Refuses a network for other channels than the images have, and tells where HHA meets colours.

    Args:
        source: what the network is called in messages; ``preprocess``, its preset.
        trained_on: the data set that the network was trained on, as ``open_dataset`` takes it, or "".
        data: what the data set is called there.

    Raises:
        ValueError: the numbers of channels differ.
    """
    wanted = wanted_preset(dataset)
    given, taken = channels_of(wanted), channels_of(preprocess)
    if given != taken:
        raise ValueError(
            f"{source} takes images of {taken} channels (preset {preprocess!r}), the data set {data} has {given}"
            f"{'' if wanted is None else f' (preset {wanted!r})'}"
        )
    kinds = {True: "HHA", False: "colours"}
    is_for = preprocess == HHA or bool(re.search(r",input=hha(,|$)", trained_on))
    if is_for != (wanted == HHA):
        say(
            f"warning: {source} is for images of {kinds[is_for]}, the data set {data} has {kinds[not is_for]}"
        )


def _is_placeholder(name: str) -> bool:
    return re.fullmatch(r"class_\d+", name) is not None


def _listed(names: Sequence[str]) -> str:
    return ", ".join([*names[:SHOWN], *["..."][: len(names) > SHOWN]])
