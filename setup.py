"""Builds ``fcnkern._C``: every file of csrc/cpu once per instruction-set level, with ninja, without torch.

Environment variables: CXX and FCNKERN_ISAS, described in docs/environment.md.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
COMMON_FLAGS = ["-std=gnu++17", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wno-psabi"]
KERNEL_FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
X86_LEVELS = {
    "generic": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": [
        *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c"),
        "-mprefer-vector-width=512",
    ],
}


def isa_levels() -> dict[str, list[str]]:
    """Instruction-set levels to compile for, with their flags; the best one is chosen when imported."""
    levels = X86_LEVELS if platform.machine().lower() in {"x86_64", "amd64"} else {"generic": []}
    named = os.environ.get("FCNKERN_ISAS", "").replace(",", " ").split()
    unknown = sorted(set(named) - set(levels))
    if unknown:
        sys.exit(f"fcnkern: FCNKERN_ISAS names {', '.join(unknown)}; this machine's are {', '.join(levels)}.")
    return {name: flags for name, flags in levels.items() if not named or name in {*named, "generic"}}


def find_compiler() -> list[str]:
    """The C++ compiler as a command line: $CXX, or the first of c++, g++ and clang++ that is there."""
    named = shlex.split(os.environ.get("CXX", ""))
    candidates = [named] if named else [["c++"], ["g++"], ["clang++"]]
    for command in candidates:
        if shutil.which(command[0]):
            return command
    looked_for = " or ".join(" ".join(command) for command in candidates)
    sys.exit(
        f"fcnkern needs a C++17 compiler and found none (looked for {looked_for}): "
        "install one (Debian, Ubuntu: apt-get install g++) or name it in the environment variable CXX."
    )


def python_headers() -> str:
    """The folder of Python.h."""
    folder = sysconfig.get_path("include")
    if not (Path(folder) / "Python.h").is_file():
        sys.exit(
            f"fcnkern needs Python's C headers and there is no Python.h in {folder}: "
            "install them (Debian, Ubuntu: apt-get install python3-dev)."
        )
    return folder


def accepts(compiler: list[str], flags: list[str]) -> bool:
    """Whether the compiler builds and links an empty shared library with these flags."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.cpp"
        source.write_text("int probe() { return 0; }\n")
        command = [*compiler, *flags, "-fPIC", "-shared", str(source), "-o", str(Path(folder) / "probe.so")]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def ninja_command() -> str:
    """Path of the ninja executable, from its wheel or from the system."""
    try:
        import ninja

        return str(Path(ninja.BIN_DIR) / "ninja")
    except ImportError:
        found = shutil.which("ninja")
        if found is None:
            sys.exit("fcnkern builds with ninja and found none: pip install ninja.")
        return found


def quoted(path: str | Path) -> str:
    """A path as ninja wants it inside a build line."""
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


class NinjaBuild(build_ext):
    """Writes a build.ninja beside the objects and runs it; rebuilds are incremental."""

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(self.build_temp).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        compiler = find_compiler()
        levels = isa_levels()
        openmp = accepts(compiler, ["-fopenmp"])
        (folder / "build.ninja").write_text(self.ninja_file(compiler, levels, openmp, target))
        print(
            f"fcnkern: building {ext.name} with {shlex.join(compiler)} for {', '.join(levels)}, "
            f"{'with' if openmp else 'without'} OpenMP",
            flush=True,
        )
        command = [ninja_command(), "-C", str(folder)]
        if subprocess.run(command, check=False).returncode != 0:
            sys.exit(f"fcnkern: building {ext.name} failed; the compiler's messages are above.")

    def ninja_file(
        self, compiler: list[str], levels: dict[str, list[str]], openmp: bool, target: Path
    ) -> str:
        """The text of build.ninja: one object per kernel file and level, one for the bindings, one link."""
        import pybind11

        link_flags = ["-shared", *(["-fopenmp"] if openmp else [])]
        if sys.platform == "darwin":
            link_flags += ["-undefined", "dynamic_lookup"]
        flags = [
            *COMMON_FLAGS,
            *(["-fopenmp"] if openmp else []),
            *(f"-DFCNKERN_WITH_{level.upper()}" for level in levels),
            shlex.quote(f"-I{ROOT / 'csrc' / 'include'}"),
        ]
        binding_flags = [
            "-O1",
            f'-DFCNKERN_VERSION=\\"{self.distribution.get_version()}\\"',
            *(shlex.quote(f"-I{path}") for path in (pybind11.get_include(), python_headers())),
        ]
        edges = [("bindings_cpu.o", ROOT / "csrc" / "bindings_cpu.cpp", " ".join(binding_flags))]
        for source in sorted((ROOT / "csrc" / "cpu").glob("*.cpp")):
            for level, level_flags in levels.items():
                kernel_flags = " ".join([*KERNEL_FLAGS, *level_flags, f"-DFCNKERN_ISA={level}"])
                edges.append((f"{source.stem}.{level}.o", source, kernel_flags))
        lines = [
            f"cxx = {shlex.join(compiler)}",
            f"flags = {' '.join(flags)}",
            "rule compile",
            "  command = $cxx $flags $extra -MD -MF $out.d -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "  description = $out",
            "rule link",
            f"  command = $cxx $in {' '.join(link_flags)} -o $out",
            "  description = $out",
        ]
        for output, source, own_flags in edges:
            lines += [f"build {output}: compile {quoted(source)}", f"  extra = {own_flags}"]
        lines += [f"build {quoted(target)}: link {' '.join(output for output, _, _ in edges)}", ""]
        return "\n".join(lines)


setup(ext_modules=[Extension("fcnkern._C", sources=[])], cmdclass={"build_ext": NinjaBuild})
