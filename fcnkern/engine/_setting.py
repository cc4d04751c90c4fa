"""One setting of a training run: its default, what it means, which values it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


class Setting(NamedTuple):
    """What is known of a field of ``TrainSettings`` beside its type.

    group: heading in the help. text: the help. parse: from text, what a command line gives. metavar: its name there.
    choices: all values there are. above, least: bounds, exclusive and inclusive. below: exclusive.
    resumable: may change when a run is resumed, because what was done stays valid. types: those of its annotation.
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
    types: tuple[Any, ...] = ()

    def taken(self, value: Any) -> Any:
        """The value, as a tuple where it is a list and the setting has tuples."""
        takes_tuples = any(get_origin(each) is tuple for each in self.types)
        return tuple(value) if takes_tuples and isinstance(value, list) else value

    def check(self, name: str, value: Any) -> None:
        """Refuses a value of another type or out of range; None, where a setting has it, is no value.

        Raises:
            ValueError: naming the setting, what came and what was wanted.
        """
        if not any(_is_of(value, each) for each in self.types):
            wanted = " or ".join(map(_described, self.types))
            raise ValueError(f"{name} must be {wanted}, got {value!r}")
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
    hints = get_type_hints(cls)
    return {
        field.name: field.metadata["setting"]._replace(types=_alternatives(hints[field.name]))
        for field in dataclasses.fields(cls)
    }


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of an annotation; that of a Literal is text, whose values are the setting's choices."""
    if get_origin(hint) in (Union, UnionType):
        return get_args(hint)
    return (str,) if get_origin(hint) is Literal else (hint,)


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value is of a type; a whole number is a number too, true and false are none."""
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_of(each, get_args(kind)[0]) for each in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _described(kind: Any) -> str:
    if kind is NoneType:
        return "None"
    if get_origin(kind) is tuple:
        return f"{KINDS[get_args(kind)[0]].removeprefix('a ')}s in a tuple or list"
    return KINDS[kind]
