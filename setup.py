"""Builds ``fcnkern._C``: every file of csrc/cpu once per instruction-set level, with ninja, without torch."""

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
    return X86_LEVELS if platform.machine().lower() in {"x86_64", "amd64"} else {"generic": []}


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
        (folder / "build.ninja").write_text(self.ninja_file(compiler, target))
        command = [ninja_command(), "-C", str(folder)]
        if subprocess.run(command, check=False).returncode != 0:
            sys.exit(
                f"fcnkern: building {ext.name} with {' '.join(compiler)} failed; its messages are above."
            )

    def ninja_file(self, compiler: list[str], target: Path) -> str:
        import pybind11

        openmp = ["-fopenmp"] if accepts(compiler, ["-fopenmp"]) else []
        includes = [str(ROOT / "csrc" / "include"), pybind11.get_include(), sysconfig.get_path("include")]
        version = self.distribution.get_version()
        levels = isa_levels()
        flags = [*COMMON_FLAGS, *openmp, *(f"-I{shlex.quote(path)}" for path in includes)]
        bundle = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
        lines = [
            f"cxx = {shlex.join(compiler)}",
            f"flags = {' '.join(flags)}",
            "rule compile",
            "  command = $cxx $flags $extra -MD -MF $out.d -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "  description = $out",
            "rule link",
            f"  command = $cxx -shared {' '.join([*openmp, *bundle])} $in -o $out",
            "",
        ]
        has_x86 = "-DFCNKERN_X86" if "avx2" in levels else ""
        objects = ["bindings_cpu.o"]
        lines += [
            f"build bindings_cpu.o: compile {quoted(ROOT / 'csrc' / 'bindings_cpu.cpp')}",
            f'  extra = -O1 {has_x86} -DFCNKERN_VERSION=\\"{version}\\"',
        ]
        for source in sorted((ROOT / "csrc" / "cpu").glob("*.cpp")):
            for level, level_flags in levels.items():
                output = f"{source.stem}.{level}.o"
                objects.append(output)
                extra = " ".join([*KERNEL_FLAGS, *level_flags, has_x86, f"-DFCNKERN_ISA={level}"])
                lines += [f"build {output}: compile {quoted(source)}", f"  extra = {extra}"]
        lines += [f"build {quoted(target)}: link {' '.join(objects)}", ""]
        return "\n".join(lines)


setup(ext_modules=[Extension("fcnkern._C", sources=[])], cmdclass={"build_ext": NinjaBuild})
