"""The error that says how weights and a network differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_SHOWN = 8


class WeightsMismatchError(ValueError):
    """Weights that are not for this network. The message shows the first few of each kind.

    Attributes:
        missing: parameters that the weights lack.
        misshapen: parameters with (shape that came, shape that the network has).
        unexpected: names in the weights for which the network has no place.
    """

    def __init__(
        self,
        source: str,
        missing: Sequence[str],
        misshapen: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
        unexpected: Sequence[str],
    ) -> None:
        self.missing, self.misshapen, self.unexpected = tuple(missing), dict(misshapen), tuple(unexpected)
        shapes = [
            f"{key} has shape {came}, the model needs {wanted}" for key, (came, wanted) in misshapen.items()
        ]
        kinds = {"missing": missing, "misshapen": shapes, "unexpected": unexpected}
        parts = [f"{kind}: {shortened(names)}" for kind, names in kinds.items() if names]
        super().__init__(f"{source}: not the weights of this network; {'; '.join(parts)}")


def shortened(names: Sequence[str]) -> str:
    """The names, or the first few and how many more."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
