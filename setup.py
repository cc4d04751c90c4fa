"""Builds the compiled parts with ninja, without torch.

``fcnkern._C``: every file of csrc/cpu once per instruction-set level. ``fcnkern._C_cuda``, where nvcc is found: every
file of csrc/cuda for several architectures. Environment variables (docs/environment.md): CXX, FCNKERN_ISAS,
FCNKERN_BUILD_CUDA, FCNKERN_CUDA_ARCHS.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import NamedTuple

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
INCLUDE = f"-I{ROOT / 'csrc' / 'include'}"
COMMON_FLAGS = ["-std=gnu++17", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wno-psabi"]
CUDA_FLAGS = ["-std=c++17", "-O3", "-Xcompiler", "-fPIC,-fvisibility=hidden"]
OLDEST_CUDA_ARCH = 80
CUDA_ARCHS = ("80", "86", "89", "90", "100", "120")
KERNEL_FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
X86_LEVELS = {
    "generic": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": [
        *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c"),
        "-mprefer-vector-width=512",
    ],
}


class Edge(NamedTuple):
    """One object file: what it is compiled from, with which flags of its own, by which rule."""

    output: str
    source: Path
    flags: str
    rule: str = "compile"


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


def find_nvcc() -> str | None:
    """The CUDA compiler, or None where CUDA kernels are not to be built."""
    wish = os.environ.get("FCNKERN_BUILD_CUDA", "auto").lower()
    if wish not in {"auto", "0", "1"}:
        sys.exit(f"fcnkern: FCNKERN_BUILD_CUDA must be auto, 0 or 1, got {wish!r}.")
    home = os.environ.get("CUDA_HOME")
    nvcc = shutil.which("nvcc", path=str(Path(home) / "bin")) if home else None
    nvcc = nvcc or shutil.which("nvcc")
    if wish == "1" and nvcc is None:
        sys.exit(
            "fcnkern: FCNKERN_BUILD_CUDA=1 and there is no nvcc, neither in CUDA_HOME/bin nor in PATH: "
            "install the CUDA toolkit, or leave CUDA tensors to Triton with FCNKERN_BUILD_CUDA=0."
        )
    return None if wish == "0" else nvcc


def output_of(command: list[str]) -> str:
    """What a command prints; nothing where it fails."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except OSError:
        return ""
    return result.stdout if result.returncode == 0 else ""


def cuda_archs(nvcc: str) -> list[str]:
    """The compute capabilities to compile for, times ten: FCNKERN_CUDA_ARCHS, or those that nvcc knows of ours."""
    listed = re.findall(r"compute_(\d+)", output_of([nvcc, "--list-gpu-arch"]))
    known = [arch for arch in listed if int(arch) >= OLDEST_CUDA_ARCH]
    named = os.environ.get("FCNKERN_CUDA_ARCHS", "").replace(",", " ").replace(".", "").split()
    if "native" in named:
        found = output_of(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"])
        named = sorted(set(found.replace(".", "").split()), key=int)
        if not named:
            sys.exit("fcnkern: FCNKERN_CUDA_ARCHS=native and nvidia-smi shows no GPU.")
    unknown = [arch for arch in named if arch not in known]
    if unknown:
        sys.exit(
            f"fcnkern: FCNKERN_CUDA_ARCHS names {', '.join(unknown)}; the kernels need {OLDEST_CUDA_ARCH} or newer, "
            f"of which {nvcc} knows {', '.join(known)}."
        )
    return named or [arch for arch in CUDA_ARCHS if arch in known]


def codes_for(archs: list[str]) -> list[str]:
    """The flags for machine code of each architecture, and for PTX that newer GPUs compile.

    The front end runs once for all architectures before 10.0, as for 8.0, and once for the others, as for 10.0, which
    it gives wider instructions; among those it makes the same PTX of our sources. So an architecture's machine code
    is the same whichever others are built.
    """
    flags = []
    for base, group in (
        ("80", [arch for arch in archs if int(arch) < 100]),
        ("100", [arch for arch in archs if int(arch) >= 100]),
    ):
        if group:
            codes = [f"sm_{arch}" for arch in group] + [f"compute_{base}"] * (archs[-1] in group)
            flags.append(f"-gencode=arch=compute_{base},code=[{','.join(codes)}]")
    return flags


def size_of_operation(source: Path) -> int:
    """Bytes of an operation's files; the largest compiles longest and starts first, so that none is left alone."""
    return sum(path.stat().st_size for path in source.parent.glob(f"{source.stem}*"))


class NinjaBuild(build_ext):
    """Writes one build.ninja for all parts beside the objects and runs it; rebuilds are incremental."""

    def build_extensions(self) -> None:
        folder = Path(self.build_temp).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        plans = map(self.plan, reversed(self.extensions))  # the CUDA kernels first: they take longest
        (folder / "build.ninja").write_text("\n".join(plans))
        if subprocess.run([ninja_command(), "-C", str(folder)], check=False).returncode != 0:
            sys.exit("fcnkern: the build failed; the compiler's messages are above.")

    def plan(self, ext: Extension) -> str:
        """The part of build.ninja for one extension."""
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        plan = self.cuda_plan if ext.name.endswith("_cuda") else self.cpu_plan
        return plan(ext.name, target)

    def binding_flags(self, **definitions: str) -> str:
        """Flags of a file that speaks with Python."""
        import pybind11

        strings = {"FCNKERN_VERSION": self.distribution.get_version(), **definitions}
        flags = [
            "-O1",
            *(f'-D{name}="{text}"' for name, text in strings.items()),
            *(f"-I{path}" for path in (pybind11.get_include(), python_headers(), ROOT / "csrc")),
        ]
        return shlex.join(flags)

    def cpu_plan(self, name: str, target: Path) -> str:
        """One object per kernel file and level, one for the bindings, one link."""
        compiler, levels = find_compiler(), isa_levels()
        openmp = ["-fopenmp"] if accepts(compiler, ["-fopenmp"]) else []
        print(
            f"fcnkern: building {name} with {shlex.join(compiler)} for {', '.join(levels)}, "
            f"{'with' if openmp else 'without'} OpenMP",
            flush=True,
        )
        common = [*COMMON_FLAGS, *openmp, *(f"-DFCNKERN_WITH_{level.upper()}" for level in levels), INCLUDE]
        edges = [Edge("bindings_cpu.o", ROOT / "csrc" / "bindings_cpu.cpp", self.binding_flags())]
        for source in sorted((ROOT / "csrc" / "cpu").glob("*.cpp")):
            for level, flags in levels.items():
                own = [*KERNEL_FLAGS, *flags, f"-DFCNKERN_ISA={level}"]
                edges.append(Edge(f"{source.stem}.{level}.o", source, shlex.join(own)))
        link = ["-shared", *openmp]
        if sys.platform == "darwin":
            link += ["-undefined", "dynamic_lookup"]
        return ninja_lines(name, {"compile": [*compiler, *common]}, [*compiler, *link], edges, target)

    def cuda_plan(self, name: str, target: Path) -> str:
        """One object per file of csrc/cuda, one for the bindings, one link."""
        nvcc, compiler = find_nvcc(), find_compiler()
        assert nvcc is not None
        archs = cuda_archs(nvcc)
        print(f"fcnkern: building {name} with {nvcc} for compute capability {', '.join(archs)}", flush=True)
        release = re.search(r"release ([\d.]+)", output_of([nvcc, "--version"]))
        definitions = {
            "FCNKERN_CUDA_COMPILER": f"nvcc {release[1] if release else ''}",
            "FCNKERN_CUDA_ARCHS": " ".join(archs),
        }
        sources = sorted((ROOT / "csrc" / "cuda").glob("*.cu"), key=size_of_operation, reverse=True)
        edges = [Edge(f"{source.stem}.o", source, "", "device") for source in sources]
        bindings = ROOT / "csrc" / "bindings_cuda.cpp"
        edges.append(Edge("bindings_cuda.o", bindings, self.binding_flags(**definitions)))
        rules = {
            "compile": [*compiler, *COMMON_FLAGS, INCLUDE],
            "device": [nvcc, "-ccbin", compiler[0], *CUDA_FLAGS, *codes_for(archs), INCLUDE],
        }
        link = [nvcc, "-ccbin", compiler[0], "-shared", "-cudart", "static"]
        return ninja_lines(name, rules, link, edges, target)


def ninja_lines(
    name: str, rules: dict[str, list[str]], link: list[str], edges: list[Edge], target: Path
) -> str:
    """Lines of build.ninja: how each rule compiles, the objects in a folder ``name``, the library linked of them."""
    lines = []
    for rule, command in rules.items():
        lines += [
            f"rule {name}.{rule}",
            f"  command = {shlex.join(command)} $extra -MD -MF $out.d -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "  description = $out",
        ]
    lines += [f"rule {name}.link", f"  command = {shlex.join(link[:1])} $in {shlex.join(link[1:])} -o $out"]
    lines.append("  description = $out")
    for edge in edges:
        lines += [
            f"build {name}/{edge.output}: {name}.{edge.rule} {quoted(edge.source)}",
            f"  extra = {edge.flags}",
        ]
    objects = " ".join(f"{name}/{edge.output}" for edge in edges)
    lines += [f"build {quoted(target)}: {name}.link {objects}", ""]
    return "\n".join(lines)


def extensions() -> list[Extension]:
    """The compiled parts to build here."""
    modules = [Extension("fcnkern._C", sources=[])]
    if find_nvcc() is None:
        print("fcnkern: no CUDA kernels in this build (no nvcc, or FCNKERN_BUILD_CUDA=0)", flush=True)
        return modules
    return [*modules, Extension("fcnkern._C_cuda", sources=[])]


setup(ext_modules=extensions(), cmdclass={"build_ext": NinjaBuild})
