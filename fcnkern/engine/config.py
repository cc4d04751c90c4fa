"""Settings as a TOML file: read for ``--config``, written beside every run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fcnkern._files import write_atomically
from fcnkern.engine.settings import SETTINGS, TrainSettings, check_names

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONFIG = "config.toml"
MORE = ("recipe",)


def read_config(path: str | Path) -> dict[str, Any]:
    """The settings in a TOML file, under the names of ``TrainSettings`` or of the options (with dashes).

    A value may also be the text that the option takes: ``crop = "240x320"``, ``time_limit = "15m"``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no TOML, a key is unknown (the nearest known one is named) or a value has another type.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"config {path} does not exist")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f"config {path} is not TOML: {error}") from error
    named = {name.replace("-", "_"): value for name, value in content.items()}
    if len(named) < len(content):
        twice = next(name for name in content if "-" in name and name.replace("-", "_") in content)
        raise ValueError(f"config {path}: {twice} is set twice, with - and with _")
    try:
        check_names(named, MORE)
        return {name: _value(name, value) for name, value in named.items()}
    except ValueError as error:
        raise ValueError(f"config {path}: {error}") from error


def _value(name: str, value: Any) -> Any:
    """A value as the setting has it."""
    if name in MORE:
        return value
    known, default = SETTINGS[name], TrainSettings.__dataclass_fields__[name].default
    if isinstance(default, bool) or isinstance(value, bool):
        if isinstance(default, bool) and isinstance(value, bool):
            return value
        raise ValueError(f"{name} must be {'true or false' if isinstance(default, bool) else 'no boolean'}")
    if isinstance(value, list):
        value = ("x" if name == "crop" else ",").join(map(str, value))
    try:
        return known.parse(str(value))
    except ValueError:
        raise ValueError(f"{name} is {value!r}, wanted what --{name.replace('_', '-')} takes") from None


def write_config(path: Path, settings: TrainSettings) -> None:
    """Writes every setting that has a value; ``read_config`` gives the same settings."""
    lines = ["# fcnkern train --config FILE takes this file"]
    for name, value in settings.to_dict().items():
        default = TrainSettings.__dataclass_fields__[name].default
        if value is not None or default is not None:
            lines.append(f"{name} = {_toml(value)}")
    write_atomically(path, lambda file: file.write("\n".join([*lines, ""]).encode()))


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps("none" if value is None else value, ensure_ascii=False)  # also a TOML string
