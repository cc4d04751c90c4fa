"""The sdist holds all that a build needs, the wheel all that a run needs, and what they install works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

import fcnkern
from tests.packaging._files import ROOT, checkout_files

NOT_IN_SDIST = {".gitignore"}


class Built(NamedTuple):
    """One sdist, the wheel built from it, and the folder into which that wheel is installed."""

    sdist_files: set[str]
    wheel_files: set[str]
    target: Path


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command away from this checkout's modules."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )


def checked(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, as a clone would be: nothing built, nothing left from earlier builds."""
    folder = tmp_path_factory.mktemp("source")
    for path in checkout_files():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    return folder


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Sdist and wheel; one instruction-set level and no CUDA, which is what keeps this quick. No network."""
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("needs a C++ compiler")
    dist = tmp_path_factory.mktemp("dist")
    target = tmp_path_factory.mktemp("target")
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, source)
    checked(run(*build, cwd=dist, FCNKERN_ISAS="generic", FCNKERN_BUILD_CUDA="0"))
    (sdist,) = dist.glob("*.tar.gz")
    (wheel,) = dist.glob("*.whl")
    install = (sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target", target, wheel)
    checked(run(*install, cwd=dist))
    with tarfile.open(sdist) as archive:
        sdist_files = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        wheel_files = set(archive.namelist())
    return Built(sdist_files, wheel_files, target)


def test_sdist_holds_every_file_of_the_checkout(built: Built) -> None:
    wanted = {path.as_posix() for path in checkout_files() if path.name not in NOT_IN_SDIST}
    assert wanted - built.sdist_files == set()


def test_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    wanted = {path.as_posix() for path in checkout_files() if path.parts[0] == "fcnkern"}
    found = {name for name in built.wheel_files if not name.partition("/")[0].endswith(".dist-info")}
    extensions = {name for name in found if name.startswith("fcnkern/_C.")}
    assert len(extensions) == 1
    assert found - extensions == wanted
    metadata = {name.partition("/")[2] for name in built.wheel_files - found}
    assert {"METADATA", "entry_points.txt", "licenses/LICENSE"} <= metadata


def test_installed_package_reports_itself(built: Built, tmp_path: Path) -> None:
    script = built.target / "bin" / "fcnkern"
    text = checked(run(sys.executable, script, "info", cwd=tmp_path, PYTHONPATH=str(built.target)))
    facts = dict(re.split("  +", line, maxsplit=1) for line in text.splitlines())
    assert Path(facts["location"]) == built.target / "fcnkern"
    assert facts["built for"] == "generic"
    assert facts["backend cpu"] == "available"


@pytest.mark.parametrize("environment", [{"CXX": "/nonexistent"}, {"CXX": "", "PATH": ""}])
def test_missing_compiler_is_one_clear_sentence(
    source: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    folders = ("--build-lib", tmp_path / "lib", "--build-temp", tmp_path / "temp")
    result = run(sys.executable, "setup.py", "build_ext", *folders, cwd=source, **environment)
    assert result.returncode == 1
    (sentence,) = [line for line in result.stderr.splitlines() if line.startswith("fcnkern")]
    assert sentence.startswith("fcnkern needs a C++17 compiler and found none (looked for ")
    assert "install one" in sentence


def test_unknown_level_to_build_is_named(source: Path, tmp_path: Path) -> None:
    folders = ("--build-lib", tmp_path / "lib", "--build-temp", tmp_path / "temp")
    result = run(sys.executable, "setup.py", "build_ext", *folders, cwd=source, FCNKERN_ISAS="avx9")
    assert result.returncode == 1
    assert "FCNKERN_ISAS names avx9" in result.stderr


def test_cuda_is_left_out_where_it_is_not_wanted_and_missed_where_it_is(source: Path, tmp_path: Path) -> None:
    named = run(sys.executable, "setup.py", "--version", cwd=source, FCNKERN_BUILD_CUDA="0")
    assert "no CUDA kernels in this build" in checked(named)
    elsewhere = {"PATH": str(tmp_path), "CUDA_HOME": ""}
    absent = run(sys.executable, "setup.py", "--version", cwd=source, **elsewhere)
    assert "no CUDA kernels in this build" in checked(absent)
    wanted = run(sys.executable, "setup.py", "--version", cwd=source, **elsewhere, FCNKERN_BUILD_CUDA="1")
    assert wanted.returncode != 0
    assert "FCNKERN_BUILD_CUDA=1 and there is no nvcc" in wanted.stderr
    unclear = run(sys.executable, "setup.py", "--version", cwd=source, FCNKERN_BUILD_CUDA="yes")
    assert "FCNKERN_BUILD_CUDA must be auto, 0 or 1, got 'yes'" in unclear.stderr


@pytest.mark.parametrize("arch", ["7.5", "91"])
def test_an_architecture_that_cannot_be_compiled_for_is_named(
    source: Path, tmp_path: Path, arch: str
) -> None:
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho compute_75; echo compute_80; echo compute_90\n")
    nvcc.chmod(0o755)
    folders = ("--build-lib", tmp_path / "lib", "--build-temp", tmp_path / "temp")
    environment = {"CUDA_HOME": str(tmp_path), "FCNKERN_CUDA_ARCHS": arch}
    result = run(sys.executable, "setup.py", "build_ext", *folders, cwd=source, **environment)
    assert result.returncode == 1
    named = f"FCNKERN_CUDA_ARCHS names {arch.replace('.', '')}; the kernels need 80 or newer"
    assert f"{named}, of which {nvcc} knows 80, 90." in result.stderr


LOAD_CUDA = """
import fcnkern._C_cuda as built
count, reason = built.device_count()
assert not built.build_info()["emulated"]
assert (count > 0) == (reason == ""), (count, reason)
print(built.build_info()["archs"], count, reason)
"""


def test_built_cuda_kernels_load_with_and_without_a_driver(tmp_path: Path) -> None:
    """What this installation has was built by nvcc; it must say what it finds rather than fail."""
    if not list(Path(fcnkern.__file__).parent.glob("_C_cuda*")):
        pytest.skip("this installation was built without nvcc")
    result = run(
        sys.executable, "-c", LOAD_CUDA, cwd=tmp_path, PYTHONPATH=str(Path(fcnkern.__file__).parents[1])
    )
    assert checked(result).split()
