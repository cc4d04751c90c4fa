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
_SOURCE = re.compile(r'\s*//## File "(.*?)", line (\d+)( inlined at)?')
_LABEL = re.compile(r"(\.L\w*):")
_TARGET = re.compile(r"(.*?)`\((\.L\w*)\)")
_TARGETS = re.compile(r'BRANCH_TARGETS ([^"]*)"')
_LAST = ("EXIT", "RET", "BRX", "BPT")  # nothing follows them
_WAIT = 12  # a loop of at most so many instructions that tries a barrier or sleeps does nothing else


class Instruction(NamedTuple):
    """One instruction.

    ``conditional``: whether a predicate guards it. ``targets``: the instructions that it may branch to.
    ``callers``: the files and lines where what stands in ``file`` was inlined, from the inside.
    """

    address: int
    opcode: str
    conditional: bool
    targets: tuple[int, ...]
    file: str
    line: int
    callers: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        """The opcode without its modifiers."""
        return self.opcode.split(".")[0]

    @property
    def source(self) -> str:
        """The line of source that it was compiled from."""
        return self.sources[0]

    @property
    def sources(self) -> list[str]:
        """That line, and those that it was inlined into."""
        return [linecache.getline(file, line).strip() for file, line in self.places]

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """The files and lines of `sources`."""
        return ((self.file, self.line), *self.callers)

    @property
    def load_bits(self) -> int:
        """The width of a load from global memory (of a bulk copy: 1024), 0 of any other instruction."""
        if self.name in ("UTMALDG", "UBLKCP"):
            return 1024
        return self._bits if self.name in ("LDG", "LDGSTS") else 0

    @property
    def store_bits(self) -> int:
        """The width of a store to global memory, 0 of any other instruction."""
        return self._bits if self.name == "STG" else 0

    @property
    def _bits(self) -> int:
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
    """A natural loop.

    Args:
        blocks: its blocks.
        first: the address of its first instruction.
        last: the address of its last one.
        sources: the lines of source of the branches back to its header.
    """

    blocks: frozenset[int]
    first: int
    last: int
    sources: tuple[str, ...]


class Kernel:
    """A disassembled kernel.

    Args:
        text: what ``nvdisasm -c`` with ``-g`` or ``-gi`` prints for one kernel.
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
        bodies = [(self._body(header, blocks), blocks) for header, blocks in latches.items()]
        loops = [self._loop(body, blocks) for body, blocks in bodies if not self._only_waits(body)]
        return sorted(loops, key=lambda loop: (loop.first, -len(loop.blocks)))

    def _body(self, header: int, latches: set[int]) -> set[int]:
        """The blocks from which control comes back to ``header`` through ``latches``, without passing it before."""
        return {header} | _reach(latches, lambda block: () if block == header else self._predecessors[block])

    def _loop(self, body: set[int], latches: set[int]) -> Loop:
        first, last = self.blocks[min(body)].begin, self.blocks[max(body)].end - 1
        back = tuple(self.instructions[self.blocks[block].end - 1].source for block in sorted(latches))
        return Loop(frozenset(body), self.instructions[first].address, self.instructions[last].address, back)

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
            shares: for a part of the line of an ``if``, ``else`` or function, how often its body runs when reached;
                for one of a statement without a body, how often the statement does.

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
                if 2 * sum(not lines.isdisjoint(i.places) for i in code) > len(code):
                    result[block] *= share
        return result

    def trips_by_source(self, trips: Mapping[str, float | Sequence[float]]) -> list[float]:
        """The iterations of each of `loops`, given by a part of the source line of the branch back.

        Args:
            trips: one number for all loops of a line, or one for each of them in the order of `loops`.

        Raises:
            ValueError: where a loop has no number or several, or a number no loop.
        """
        waiting = {part: list(given) for part, given in trips.items() if isinstance(given, Sequence)}
        result = []
        for loop in self.loops:
            parts = [part for part in trips if any(part in source for source in loop.sources)]
            if len(parts) != 1 or waiting.get(parts[0]) == []:
                raise ValueError(
                    f"loop at {loop.first:#x} of {loop.sources} has no trips of its own: {parts}"
                )
            given = trips[parts[0]]
            result.append(waiting[parts[0]].pop(0) if isinstance(given, Sequence) else given)
        if left := [part for part, numbers in waiting.items() if numbers]:
            raise ValueError(f"more trips than loops: {left}")
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

    def describe_blocks(self, frequencies: Mapping[int, float], most: int = 20) -> list[str]:
        """The blocks that issue most: how often each runs, how long it is, where, its most frequent line."""
        sizes = {block: len(self.code([block])) for block in self.reached}
        heavy = sorted(self.reached, key=lambda block: -frequencies[block] * sizes[block])[:most]
        result = []
        for block in heavy:
            code = self.code([block])
            (file, line), count = Counter((i.file, i.line) for i in code).most_common(1)[0]
            source = linecache.getline(file, line).strip()
            where = f"{Path(file).name}:{line}: {source}"
            result.append(
                f"{frequencies[block]:9.4g} × {sizes[block]} at {code[0].address:#x}: {count} {where}"
            )
        return result

    def _bodies(self, part: str) -> set[tuple[str, int]]:
        """The lines of the statements in whose first line ``part`` stands."""
        files = {file for instruction in self.instructions for file, _ in instruction.places}
        lines = {(file, line) for file in files for line in _below(linecache.getlines(file), part)}
        if not lines:
            raise ValueError(f"no statement {part!r} in the source")
        return lines


def _parse(text: str) -> list[Instruction]:
    """The instructions of a disassembly, with their lines of source and the targets of their branches."""
    labels: dict[str, int] = {}
    rows: list[tuple[str, re.Match[str], list[tuple[str, int]]]] = []
    places, inlined = [("", 0)], False
    for row in text.splitlines():
        if match := _LABEL.match(row):
            labels[match[1]] = len(rows)
        elif match := _SOURCE.match(row):
            places = [*(places if inlined else []), (match[1], int(match[2]))]
            inlined = match[3] is not None
        elif match := _INSTRUCTION.match(row):
            rows.append((row, match, places))
    return [_instruction(row, match, labels, places) for row, match, places in rows]


def _instruction(
    row: str, match: re.Match[str], labels: Mapping[str, int], places: Sequence[tuple[str, int]]
) -> Instruction:
    opcode, targets, conditional = match[3], [], match[2] is not None
    jump = _TARGET.match(match[4])
    # A call of a label leaves a loop and never returns; subroutines have other names. BRA.DIV is for a divided warp.
    if jump and opcode.startswith(("BRA", "CALL")) and not opcode.startswith("BRA.DIV"):
        targets = [jump[2]]
        conditional |= jump[1] != ""  # a second predicate, before the label
    elif table := _TARGETS.search(row):
        targets = table[1].split(",")
    numbers = tuple(labels[target] for target in targets)
    (file, line), *callers = places
    return Instruction(int(match[1], 16), opcode, conditional, numbers, file, line, tuple(callers))


def _blocks(code: Sequence[Instruction]) -> list[Block]:
    leaders = {0}
    for index, instruction in enumerate(code):
        if instruction.targets:
            leaders |= {index + 1, *instruction.targets}
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
    targets = instruction.targets
    leaves = targets or instruction.name in _LAST
    return [*targets] if leaves and not instruction.conditional else [*targets, index + 1]


def _reach(start: Iterable[int], following: Callable[[int], Iterable[int]]) -> set[int]:
    reached, waiting = set(start), list(start)
    while waiting:
        for block in following(waiting.pop()):
            if block not in reached:
                reached.add(block)
                waiting.append(block)
    return reached


def _below(lines: Sequence[str], part: str) -> list[int]:
    """The numbers of the lines of the bodies of the statements in whose first line ``part`` stands."""
    return [n for number, line in enumerate(lines, 1) if part in line for n in _body(lines, number)]


def _body(lines: Sequence[str], number: int) -> list[int]:
    """The numbers of the lines indented below a line; its own where there are none."""
    depth, body = _indent(lines[number - 1]), []
    for below, line in enumerate(lines[number:], number + 1):
        code = line.lstrip()
        if code and code[0] not in ")#" and _indent(line) <= depth:
            break
        body.append(below)
    return body if any(lines[n - 1].strip() and _indent(lines[n - 1]) > depth for n in body) else [number]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
