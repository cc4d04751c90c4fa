"""Compiles csrc/cuda for the host: the CUDA kernels then run on CPU tensors, thread by thread, without a GPU."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pybind11

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
SHIM = Path(__file__).parent / "shim"
DETECTOR = Path(__file__).parent / "detector"
CACHE = ROOT / "build" / "emulator"
MODULE = "fcnkern._C_cuda"

BUILDS = {
    "plain": ["-O1"],
    "address": [
        *("-O0", "-fno-omit-frame-pointer", "-fsanitize=address,undefined"),
        "-fno-sanitize-recover=undefined",
    ],
    "thread": ["-O1", "-fsanitize=thread"],
    "ucontext": ["-O1", "-DCUEMU_UCONTEXT"],
}
"""The flags of each build; ``ucontext`` is the plain one of machines that are not x86-64. With the two sanitizers of
``address`` optimised code is slow to compile."""

FLAGS = ["-std=c++17", "-g1", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wno-unknown-pragmas"]


def cuda_headers() -> list[Path]:
    """Include folders with CUDA's headers, from the wheels nvidia-cuda-* or from a toolkit; may be none."""
    wheels = importlib.util.find_spec("nvidia")
    candidates = [
        Path(part) / "cu13" / "include" for part in (wheels.submodule_search_locations if wheels else ())
    ]
    if os.environ.get("CUDA_HOME"):
        candidates.append(Path(os.environ["CUDA_HOME"]) / "include")
    if nvcc := shutil.which("nvcc"):
        output = subprocess.run(
            [nvcc, "--dryrun", "-c", "probe.cu"],
            capture_output=True,
            text=True,
            check=False,
            env=compiler_environment(),
        )
        candidates += [
            Path(top) / "include" for top in re.findall(r"^#\$ TOP=(.*)$", output.stderr, re.MULTILINE)
        ]
    for folder in candidates:
        if (folder / "cuda_runtime.h").is_file() and (folder / "crt").is_dir():
            return [folder, folder / "cccl"]
    return []


def compiler() -> str | None:
    """g++, whose sanitizers and assembler the shim is written for, or None."""
    return shutil.which("g++")


def missing_reason() -> str | None:
    """Why the kernels cannot be emulated here, or None."""
    if sys.platform != "linux":
        return "the emulator needs Linux"
    if compiler() is None:
        return "the emulator needs g++"
    return None if cuda_headers() else "the emulator needs CUDA's headers: pip install 'fcnkern[test]'"


def emulated_extension(build: str = "plain") -> Path:
    """The extension module compiled as ``build`` (a key of BUILDS); compiled once for a state of the sources.

    The loss takes the longest and begins: it comes last in the alphabet.
    """
    return link(build, "_C_cuda", ".so", sorted((CSRC / "cuda").glob("*.cu"), reverse=True), [], bindings())


def bindings() -> list[Path]:
    """The object of what speaks with Python. There is no kernel in it: it is compiled once, for all builds."""
    flags = [
        *FLAGS,
        "-O1",
        "-DFCNKERN_EMULATED=1",
        '-DFCNKERN_CUDA_COMPILER="emulated"',
        '-DFCNKERN_CUDA_ARCHS=""',
        f'-DFCNKERN_VERSION="{version()}"',
    ]
    folders = (pybind11.get_include(), sysconfig.get_path("include"), CSRC, CSRC / "include")
    folder = CACHE / "bindings"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        return compile_all([CSRC / "bindings_cuda.cpp"], [*flags, *(f"-I{each}" for each in folders)], folder)


def detector(build: str, suffix: str = "") -> Path:
    """The kernels of tests/emulator/detector, as a program or, by the suffix ".so", as a library."""
    sources = [DETECTOR / "main.cpp", *sorted(DETECTOR.glob("*.cu"))]
    return link(build, "detector", suffix, sources, [f"-I{DETECTOR}"])


def link(
    build: str, name: str, suffix: str, sources: list[Path], flags: list[str], objects: Sequence[Path] = ()
) -> Path:
    """Compiles the sources as ``build`` and links them, with further objects, once for a state of them."""
    flags = [*FLAGS, *BUILDS[build], *flags, *(f"-I{folder}" for folder in (CSRC, CSRC / "include", SHIM))]
    flags += [*(f"-isystem{folder}" for folder in cuda_headers()), "-x", "c++", "-include", "cuda_emu.h"]
    folder = CACHE / build / name
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        objects = [*compile_all(sources, flags, folder), *objects]
        target = folder / f"{name}-{digest(*objects)}{suffix}"
        if not target.exists():
            for old in folder.glob(f"{name}-{'?' * 16}{suffix}"):
                old.unlink()
            shared = ["-shared"] if suffix else []
            run(["g++", *shared, *BUILDS[build], *map(str, objects), "-o", str(target)])
    return target


def version() -> str:
    """The version that fcnkern will compare with, read without importing it."""
    text = (ROOT / "fcnkern" / "_version.py").read_text()
    found = re.search(r'__version__ = "(.*)"', text)
    assert found is not None
    return found[1]


def compile_all(sources: list[Path], flags: list[str], folder: Path) -> list[Path]:
    """One object per source, two compilers at a time; an object's name holds the digest of all that went in."""
    headers = digest(
        *sorted([*CSRC.rglob("*.h"), *CSRC.rglob("*.cuh"), *SHIM.glob("*.h"), *DETECTOR.glob("*.h")])
    )
    stamp = hashlib.sha256(" ".join([headers, *flags]).encode()).hexdigest()
    objects, running = [], []
    for source in sources:
        key = hashlib.sha256(stamp.encode() + source.read_bytes()).hexdigest()[:16]
        target = folder / f"{source.stem}-{key}.o"
        objects.append(target)
        if target.exists():
            continue
        for old in folder.glob(f"{source.stem}-{'?' * 16}.o"):
            old.unlink()
        command = ["g++", *flags, "-c", str(source), "-o", str(target.with_suffix(".part"))]
        running.append((target, start(command)))
        if len(running) == 2:
            finish(*running.pop(0))
    for each in running:
        finish(*each)
    return objects


def finish(target: Path, process: subprocess.Popen[str]) -> None:
    """Waits for a compiler and puts its object in place."""
    _, messages = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"the emulator's build of {target.stem} failed:\n{messages}")
    target.with_suffix(".part").rename(target)


def run(command: list[str]) -> None:
    process = start(command)
    _, messages = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}:\n{messages}")


def start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=compiler_environment())


def compiler_environment() -> dict[str, str]:
    """Without the sanitizer that is preloaded into a Python of the tests: a compiler would fail under it."""
    return {name: text for name, text in os.environ.items() if name != "LD_PRELOAD"}


def digest(*files: Path) -> str:
    """Sixteen hexadecimal digits that change with any of the files."""
    total = hashlib.sha256()
    for file in files:
        total.update(file.name.encode() + file.read_bytes())
    return total.hexdigest()[:16]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time, so that parallel test runs build once."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def use_emulated_kernels() -> None:
    """Makes `import fcnkern` find the emulated extension, of the build that FCNKERN_TEST_EMULATOR names ("plain")."""
    if missing_reason() is not None:
        return
    path = emulated_extension(os.environ.get("FCNKERN_TEST_EMULATOR", "plain"))
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    spec.loader.exec_module(module)
