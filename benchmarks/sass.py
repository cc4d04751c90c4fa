"""Reads the disassembly of an NVIDIA kernel: its instructions, basic blocks and loops, how often each block runs."""

from __future__ import annotations

import linecache
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

_INSTRUCTION = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s+(@!?\w+\s+)?([A-Z][\w.]*)\s*(.*?)\s*;")
_SOURCE = re.compile(r'\s*//## File "(.*)", line (\d+)')
_LABEL = re.compile(r"(\.L\w*):")
_TARGET = re.compile(r"(.*?)`\((\.L\w*)\)")
_LAST = ("EXIT", "RET", "BRX", "BPT")  # nothing follows them
_WAIT = 12  # a loop of at most so many instructions that tries a barrier or sleeps does nothing else


class Instruction(NamedTuple):
    """One instruction.

    ``conditional``: whether a predicate guards it. ``target``: the index of the instruction that it branches to.
    """

    address: int
    opcode: str
    conditional: bool
    target: int | None
    file: str
    line: int

    @property
    def name(self) -> str:
        """The opcode without its modifiers."""
        return self.opcode.split(".")[0]

    @property
    def source(self) -> str:
        """The line of source that it was compiled from."""
        return linecache.getline(self.file, self.line).strip()

    @property
    def load_bits(self) -> int:
        """The width of a load from global memory (of a bulk copy: 1024), 0 of any other instruction."""
        if self.name in ("UTMALDG", "UBLKCP"):
            return 1024
        if self.name not in ("LDG", "LDGSTS"):
            return 0
        widths = [re.fullmatch(r"[US]?(8|16|64|128|256)", part) for part in self.opcode.split(".")[1:]]
        return next((int(width[1]) for width in widths if width), 32)

    @property
    def is_float_atomic(self) -> bool:
        """Whether it adds floating-point numbers to memory in any order; compare-and-swap may, and counts."""
        name, *modifiers = self.opcode.split(".")
        atomic = re.fullmatch(r"U?(RED|ATOM)[GS]?", name) is not None
        return atomic and any(re.match(r"B?F(16|32|64)|CAS", modifier) for modifier in modifiers)

    @property
    def is_local(self) -> bool:
        """Whether it reads or writes local memory, as for a spilled register."""
        return self.name in ("LDL", "STL")

    @property
    def is_matrix_product(self) -> bool:
        """Whether it runs on the tensor cores."""
        return re.fullmatch(r"[DHIQ]G?MMA|UTC\w*MMA", self.name) is not None


class Block(NamedTuple):
    """A basic block: instructions ``begin``..``end`` - 1 and the blocks that may follow."""

    begin: int
    end: int
    successors: tuple[int, ...]


class Loop(NamedTuple):
    """A natural loop: its blocks, and the addresses of the first and the last instruction."""

    blocks: frozenset[int]
    first: int
    last: int


class Kernel:
    """A disassembled kernel.

    Args:
        text: what ``nvdisasm -c -g`` prints for a cubin with one kernel.
    """

    def __init__(self, text: str) -> None:
        self.instructions = _parse(text)
        self.blocks = _blocks(self.instructions)

    @cached_property
    def reached(self) -> set[int]:
        """The blocks that can run. Slow paths of a division that are called out of line are left out."""
        return _reach([0], lambda block: self.blocks[block].successors)

    @cached_property
    def _predecessors(self) -> dict[int, list[int]]:
        result: dict[int, list[int]] = {block: [] for block in self.reached}
        for block in sorted(self.reached):
            for successor in self.blocks[block].successors:
                result[successor].append(block)
        return result

    @cached_property
    def _dominators(self) -> dict[int, set[int]]:
        """For each block that can run: the blocks on every way to it."""
        result = {block: set(self.reached) for block in self.reached} | {0: {0}}
        changed = True
        while changed:
            changed = False
            for block in sorted(self.reached - {0}):
                new = set.intersection(*(result[before] for before in self._predecessors[block])) | {block}
                changed |= new != result[block]
                result[block] = new
        return result

    @cached_property
    def loops(self) -> list[Loop]:
        """The loops by the address of their first instruction, an outer one before those within."""
        latches: dict[int, set[int]] = {}
        for block in self.reached:
            for successor in self.blocks[block].successors:
                if successor in self._dominators[block]:
                    latches.setdefault(successor, set()).add(block)
        bodies = [self._body(header, blocks) for header, blocks in latches.items()]
        loops = [self._loop(body) for body in bodies if not self._only_waits(body)]
        return sorted(loops, key=lambda loop: (loop.first, -len(loop.blocks)))

    def _body(self, header: int, latches: set[int]) -> set[int]:
        """The blocks from which control comes back to ``header`` through ``latches``, without passing it before."""
        return {header} | _reach(latches, lambda block: () if block == header else self._predecessors[block])

    def _loop(self, body: set[int]) -> Loop:
        first, last = self.blocks[min(body)].begin, self.blocks[max(body)].end - 1
        return Loop(frozenset(body), self.instructions[first].address, self.instructions[last].address)

    def _only_waits(self, body: set[int]) -> bool:
        """Whether a loop is the trap after the last instruction, or waits for a barrier or for tensor memory."""
        code = self.code(body)
        waits = any("TRYWAIT" in i.opcode or i.name == "NANOSLEEP" for i in code)
        return len(code) == 1 or (waits and len(code) <= _WAIT)

    def code(self, blocks: Iterable[int]) -> list[Instruction]:
        """The instructions of some blocks in the order of their addresses, without padding."""
        spans = (self.instructions[self.blocks[b].begin : self.blocks[b].end] for b in sorted(blocks))
        return [instruction for span in spans for instruction in span if instruction.name != "NOP"]

    def frequencies(self, trips: Sequence[float], shares: Mapping[str, float]) -> dict[int, float]:
        """How often each block runs in one warp.

        Args:
            trips: iterations of each of `loops` at each entry.
            shares: for a part of the line of an ``if``, ``else`` or ``def``, how often its body runs when reached.

        Raises:
            ValueError: where the numbers of trips and of loops differ, or no line holds the key of a share.
        """
        if len(trips) != len(self.loops):
            raise ValueError(f"{len(trips)} trip counts for {len(self.loops)} loops")
        result = dict.fromkeys(self.reached, 1.0)
        for loop, count in zip(self.loops, trips, strict=True):
            for block in loop.blocks:
                result[block] *= count
        for part, share in shares.items():
            lines = self._bodies(part)
            for block in self.reached:
                code = self.code([block])
                if 2 * sum((i.file, i.line) in lines for i in code) > len(code):
                    result[block] *= share
        return result

    def describe_loops(self) -> list[str]:
        """One line for each loop: where it is, how long, its most frequent instructions and lines of source."""
        result = []
        for loop in self.loops:
            code = self.code(loop.blocks)
            indent = "  " * sum(loop.blocks < other.blocks for other in self.loops)
            names = Counter(i.name for i in code).most_common(8)
            lines = Counter(f"{Path(i.file).name}:{i.line}" for i in code).most_common(3)
            mix = ", ".join(f"{count} {name}" for name, count in names)
            where = ", ".join(f"{count} from {line}" for line, count in lines)
            result.append(f"{indent}loop {loop.first:#x}..{loop.last:#x}: {len(code)}: {mix}; {where}")
        return result

    def _bodies(self, part: str) -> set[tuple[str, int]]:
        """The lines of the statements in whose first line ``part`` stands."""
        files = {instruction.file for instruction in self.instructions}
        lines = {(file, line) for file in files for line in _below(linecache.getlines(file), part)}
        if not lines:
            raise ValueError(f"no statement {part!r} in the source")
        return lines


def _parse(text: str) -> list[Instruction]:
    """The instructions of a disassembly, with their lines of source and the targets of their branches."""
    labels: dict[str, int] = {}
    rows: list[tuple[re.Match[str], str, int]] = []
    file, line = "", 0
    for row in text.splitlines():
        if match := _LABEL.match(row):
            labels[match[1]] = len(rows)
        elif match := _SOURCE.match(row):
            file, line = match[1], int(match[2])
        elif match := _INSTRUCTION.match(row):
            rows.append((match, file, line))
    return [_instruction(match, labels, file, line) for match, file, line in rows]


def _instruction(match: re.Match[str], labels: Mapping[str, int], file: str, line: int) -> Instruction:
    opcode, target, conditional = match[3], None, match[2] is not None
    jump = _TARGET.match(match[4])
    # A call of a label leaves a loop and never returns; subroutines have other names. BRA.DIV is for a divided warp.
    if jump and opcode.startswith(("BRA", "CALL")) and not opcode.startswith("BRA.DIV"):
        target = labels[jump[2]]
        conditional |= jump[1] != ""  # a second predicate, before the label
    return Instruction(int(match[1], 16), opcode, conditional, target, file, line)


def _blocks(code: Sequence[Instruction]) -> list[Block]:
    leaders = {0}
    for index, instruction in enumerate(code):
        if instruction.target is not None:
            leaders |= {index + 1, instruction.target}
        elif instruction.name in _LAST:
            leaders.add(index + 1)
    begins = sorted(leader for leader in leaders if leader < len(code))
    number = {begin: block for block, begin in enumerate(begins)}
    ends = [*begins[1:], len(code)]
    return [
        Block(begin, end, tuple(number[s] for s in _successors(code, end - 1) if s in number))
        for begin, end in zip(begins, ends, strict=True)
    ]


def _successors(code: Sequence[Instruction], index: int) -> list[int]:
    """The instructions that may run after one."""
    instruction = code[index]
    targets = [] if instruction.target is None else [instruction.target]
    leaves = instruction.target is not None or instruction.name in _LAST
    return targets if leaves and not instruction.conditional else [*targets, index + 1]


def _reach(start: Iterable[int], following: Callable[[int], Iterable[int]]) -> set[int]:
    reached, waiting = set(start), list(start)
    while waiting:
        for block in following(waiting.pop()):
            if block not in reached:
                reached.add(block)
                waiting.append(block)
    return reached


def _below(lines: Sequence[str], part: str) -> list[int]:
    """The numbers of the lines indented below the lines that hold ``part``."""
    result, depth = [], None
    for number, line in enumerate(lines, 1):
        indent = len(line) - len(line.lstrip())
        if depth is not None and (not line.strip() or indent > depth or line.lstrip().startswith(")")):
            result.append(number)
        else:
            depth = indent if part in line else None
    return result
