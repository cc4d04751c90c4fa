"""Rules that every file and every public name follows."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import fcnkern
from tests.packaging._files import ROOT, checkout_files

MAX_LINES = 400
SOURCES = {".py", ".cpp", ".h", ".cu", ".cuh"}
DEVELOPER_FOLDERS = ("/" + "work/", "/" + "home/", "/" + "root/", "/" + "Users/")
PUBLIC = sorted(set(fcnkern.__all__) - {"__version__"})


def sources() -> list[Path]:
    return [path for path in checkout_files() if path.suffix in SOURCES]


def test_no_source_file_is_long() -> None:
    lengths = {str(path): len((ROOT / path).read_text().splitlines()) for path in sources()}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_no_file_names_a_developers_folder() -> None:
    found = [
        (str(path), folder)
        for path in checkout_files()
        for folder in DEVELOPER_FOLDERS
        if folder.encode() in (ROOT / path).read_bytes()
    ]
    assert found == []


def test_cpu_kernels_start_threads_in_one_place() -> None:
    """Where the team stays whole: see csrc/cpu/threads.h."""
    kernels = [path for path in sources() if path.parts[:2] == ("csrc", "cpu")]
    assert [path.name for path in kernels if "#pragma omp" in (ROOT / path).read_text()] == ["threads.h"]


def test_no_instruction_set_level_shares_code() -> None:
    """A template of the standard library is compiled for each level and linked once, from any of them."""
    shared = {"algorithm", "atomic", "functional", "map", "memory", "numeric", "string", "thread", "vector"}
    kernels = [path for path in sources() if path.parts[:2] == ("csrc", "cpu")]
    included = {
        path.name: set(re.findall(r"#include <(\w+)>", (ROOT / path).read_text())) for path in kernels
    }
    assert {name: names & shared for name, names in included.items() if names & shared} == {}


def test_every_module_says_what_it_is() -> None:
    ours = [path for path in sources() if path.suffix == ".py" and path.parts[0] in {"fcnkern", "benchmarks"}]
    modules = {str(path): ast.parse((ROOT / path).read_text()) for path in ours}
    assert [name for name, tree in modules.items() if ast.get_docstring(tree) is None] == []


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_documented(name: str) -> None:
    thing = getattr(fcnkern, name)
    assert inspect.getdoc(thing)
    if inspect.isclass(thing):
        assert thing.__doc__ is not None
        assert not thing.__doc__.startswith(f"{name}(")  # what dataclass puts where nobody wrote one


@pytest.mark.parametrize("name", [name for name in PUBLIC if inspect.isfunction(getattr(fcnkern, name))])
def test_public_function_is_typed(name: str) -> None:
    signature = inspect.signature(getattr(fcnkern, name))
    untyped = [p.name for p in signature.parameters.values() if p.annotation is inspect.Parameter.empty]
    assert untyped == []
    assert signature.return_annotation is not inspect.Signature.empty


def test_ci_runs_the_commands_of_the_readme() -> None:
    commands = re.findall(r"^    (pip install .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    script = (ROOT / ".ci" / "run").read_text()
    assert [command.rpartition(" && ")[2] for command in commands] == [
        "fcnkern demo",
        "pytest -n auto --dist loadfile",
    ]
    assert "run_readme_command_ending_in 'fcnkern demo'" in script
    assert "run_readme_command_ending_in 'pytest -n auto --dist loadfile'" in script
