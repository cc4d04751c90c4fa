"""One setting of a training run: its default, what it means, which values it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple


class Setting(NamedTuple):
    """What is known of a field of ``TrainSettings`` beside its type.

    group: heading in the help. text: the help. parse: from text, what a command line gives. metavar: its name there.
    choices: all values there are. above, least: bounds, exclusive and inclusive. below: exclusive.
    resumable: may change when a run is resumed, because what was done stays valid.
    """

    group: str
    text: str
    parse: Callable[[str], Any]
    metavar: str | None
    choices: tuple[str, ...] | None
    above: float | None
    least: float | None
    below: float | None
    most: float | None
    resumable: bool

    def check(self, name: str, value: Any) -> None:
        """Refuses a value out of range; None, where a setting has it, is no value.

        Raises:
            ValueError: naming the setting, what came and what was wanted.
        """
        if value is None:
            return
        if self.choices is not None and value not in self.choices:
            raise ValueError(f"{name} must be one of {', '.join(self.choices)}, got {value!r}")
        # Written so that NaN, which compares false with everything, is refused too.
        bounds = {
            f"more than {self.above}": self.above is None or value > self.above,
            f"at least {self.least}": self.least is None or value >= self.least,
            f"less than {self.below}": self.below is None or value < self.below,
            f"at most {self.most}": self.most is None or value <= self.most,
        }
        broken = [text for text, holds in bounds.items() if not holds]
        if broken:
            raise ValueError(f"{name} must be {' and '.join(broken)}, got {value}")


def setting(
    default: Any,
    group: str,
    text: str,
    *,
    parse: Callable[[str], Any] = str,
    metavar: str | None = None,
    choices: tuple[str, ...] | None = None,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    resumable: bool = False,
) -> Any:
    """A field of ``TrainSettings``."""
    known = Setting(group, text, parse, metavar, choices, above, least, below, most, resumable)
    return dataclasses.field(default=default, metadata={"setting": known})


def settings_of(cls: type) -> dict[str, Setting]:
    """The settings of a dataclass by name, in order."""
    return {field.name: field.metadata["setting"] for field in dataclasses.fields(cls)}
