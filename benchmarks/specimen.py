"""What a compiled specimen is: a kernel as a call launches it, what its machine code must be, what the call takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

ARCHS = (80, 90, 100)
TABLE_ARCH = 90  # of the H200, whose ceilings the table's times come from


@dataclass(frozen=True)
class Case:
    """What a launch takes, counted by hand.

    Args:
        name: the shape, "8×19, 128×256 → 1024×2048".
        unit: what instructions are counted per, "pixel-class" or "element".
        units: how many of them the launch covers.
        bytes: what it must read and write at least.
        flops: of matrix products on the tensor cores in bf16 (2 per multiply-add; in tf32 each counts twice).
        exponentials: exponentials, logarithms and reciprocals that the method needs.
    """

    name: str
    unit: str
    units: float
    bytes: float
    flops: float = 0
    exponentials: float = 0


@dataclass(frozen=True)
class Claims:
    """What is asserted of the machine code, beside what always is: no spill, no local memory, no float atomic.

    Args:
        max_registers: most registers of a thread.
        loads: for a part of a source line that loads from global memory, the least width in bits of every access
            compiled from such a line: ``{"tl.load(x_ptr": 128}``. A line that no access comes from is an error.
        tensor_cores: whether products run on the tensor cores.
        wide: names of arguments (strides, sizes, or tuples of them) of which every product must be formed in 64 bits.
    """

    max_registers: int = 255
    loads: Mapping[str, int] = field(default_factory=dict)
    tensor_cores: bool = False
    wide: Sequence[str] = ()


@dataclass(frozen=True)
class Specimen:
    """A kernel at one shape.

    Args:
        name: unique in its operation, "loss and gradient, C=19, ×8, uint8 labels".
        launch: calls the backend's launcher on CPU tensors that hold nothing in particular. Imports of Triton and of
            the backend belong in it.
        kernel: the name of the kernel, of those that ``launch`` launches; the first launch of it is taken.
        case: what that launch takes.
        trips: iterations of each loop at each entry, in the order of the loops' addresses in the machine code
            (``python -m benchmarks.compiled --only NAME --explain`` lists them); by architecture where they differ.
            An average may be a fraction; 0 is a loop that the case does not enter.
        shares: for a part of the source line of an ``if``, ``else`` or ``def``, how often its body runs each time
            that it is reached; 1 for what is not named.
        claims: what is asserted of the machine code.
        offered: architectures on which the launch may take this configuration; the table has these.
        archs: those of them for which it is compiled in the tests.
    """

    name: str
    launch: Callable[[], object]
    kernel: str
    case: Case
    trips: Sequence[float] | Mapping[int, Sequence[float]] = ()
    shares: Mapping[str, float] = field(default_factory=dict)
    claims: Claims = Claims()
    offered: Sequence[int] = ARCHS
    archs: Sequence[int] = ARCHS

    def trips_on(self, arch: int) -> Sequence[float]:
        """The trips of the loops as compiled for ``arch``."""
        return self.trips.get(arch, ()) if isinstance(self.trips, Mapping) else self.trips


@dataclass(frozen=True)
class CudaSpecimen:
    """A kernel of csrc/cuda at one shape.

    Args:
        name: unique in its operation.
        kernel: its instantiation, "conv1x1_fma_kernel<true, false>".
        case: what the launch takes.
        blocks: of the launch.
        threads: of a block, where it is launched with fewer than the most it may have.
        shared: bytes of dynamic shared memory of a block.
        trips: iterations of each loop at each entry, by a part of the source line of its ``for`` or ``while``;
            several numbers where the compiler made several loops of it. An average may be a fraction.
        shares: for a part of a source line, how often its body, or the statement itself, runs each time that it is
            reached; 1 for what is not named.
        widths: for a part of a source line, the least width in bits of every access to global memory compiled from
            such a line.
        tensor_cores: whether products run on the tensor cores.
        triton: names of the Triton specimens of the same operation that do the same work.
    """

    name: str
    kernel: str
    case: Case
    blocks: float
    threads: int | None = None
    shared: int = 0
    trips: Mapping[str, float | Sequence[float]] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    widths: Mapping[str, int] = field(default_factory=dict)
    tensor_cores: bool = False
    triton: Sequence[str] = ()
