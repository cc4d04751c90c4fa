"""What README and docs name exists: commands with their options, modules, functions, imports."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from operator import attrgetter

import pytest

from fcnkern.cli import make_parser
from tests.packaging._files import ROOT

TEXTS = {path.name: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
JOINED = {name: text.replace("\\\n", " ") for name, text in TEXTS.items()}
COMMANDS = [
    pytest.param(words, id=f"{name}: {words}")
    for name, text in JOINED.items()
    for words in re.findall(r"^    (?:torchrun.*--module )?fcnkern ([a-z].*)$", text, re.MULTILINE)
]


@pytest.mark.parametrize("words", COMMANDS)
def test_command_is_understood(words: str) -> None:
    make_parser().parse_args(shlex.split(words, comments=True))


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 20


@pytest.mark.parametrize(
    "name",
    sorted({name for text in TEXTS.values() for name in re.findall(r"\bfcnkern(?:\.[A-Za-z_]\w*)+", text)}),
)
def test_name_exists(name: str) -> None:
    module, attribute = name.split(".", 1)
    try:
        attrgetter(attribute)(import_module(module))
    except AttributeError:
        import_module(name)


@pytest.mark.parametrize(
    "line",
    sorted(
        {
            line
            for text in TEXTS.values()
            for line in re.findall(r"^    (from fcnkern\S* import .*)$", text, re.MULTILINE)
        }
    ),
)
def test_import_works(line: str) -> None:
    exec(line, {})


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_operation_is_named(name: str) -> None:
    text = (ROOT / name).read_text()
    for path in (ROOT / "fcnkern" / "ops").glob("[a-z]*.py"):
        assert f"`{path.stem}`" in text
