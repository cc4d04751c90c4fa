"""Values of settings from the text of a command line or of a configuration file."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any


def duration(text: str) -> float:
    """Seconds from 90, 90s, 15m or 2h."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?)([smh]?)", text)
    if match is None or float(match[1]) == 0:
        raise ValueError(f"{text!r} is no time, wanted for example 90s, 15m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def size(text: str) -> tuple[int, int]:
    """(height, width) from HEIGHTxWIDTH."""
    match = re.fullmatch(r"(\d+)[xX](\d+)", text)
    if match is None:
        raise ValueError(f"{text!r} is no size, wanted HEIGHTxWIDTH such as 240x320")
    return int(match[1]), int(match[2])


def numbers(text: str) -> tuple[float, ...]:
    """Numbers from text with commas between them."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r} are no numbers, wanted for example 0.75,1,1.25") from None


def strides(text: str) -> tuple[int, ...]:
    """Whole numbers from text with commas between them."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r} are no strides, wanted for example 32,16,8") from None


def widths(text: str) -> tuple[int, ...]:
    """Different whole numbers of at least 1 from text with commas between them."""
    if re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text) is None:
        raise ValueError(f"{text!r} are no widths in pixels, wanted for example 1,2,4,8")
    return tuple(dict.fromkeys(int(part) for part in text.split(",")))


def number_or_none(text: str) -> float | None:
    """A number, or None from "none"."""
    return None if text.lower() == "none" else float(text)


def argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """The parser as argparse wants it, to show the parser's own message; Python's of int and float say too little."""
    if parse in (str, int, float):
        return parse

    def parse_argument(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_argument
