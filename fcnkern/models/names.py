"""What the layers of a head are called: see `fcnkern.models.FCN`."""

from __future__ import annotations

from collections.abc import Mapping

from fcnkern.models.tracing import Traced


def score_name(tap: str) -> str:
    """The classifier of a tap that is not the coarsest."""
    return f"score_{_plain(tap)}"


def upscore_names(taps: Mapping[str, Traced]) -> tuple[tuple[str, ...], str]:
    """The steps of a network with these taps, finest first, from the coarsest on; and its last upsampling."""
    if len(taps) < 2:
        return (), "upscore"
    strides = [each.rows.stride for each in taps.values()]
    first, final = f"upscore{strides[-1] // strides[-2]}", f"upscore{strides[0]}"
    others = (f"upscore_{_plain(tap)}" for tap in reversed([*taps][1:-1]))
    return (first if first != final else "upscore_fr", *others), final


def _plain(tap: str) -> str:
    return tap.replace(".", "_")
