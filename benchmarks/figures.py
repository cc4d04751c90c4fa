"""The blocks that `benchmarks.document` writes: Markdown made of reports."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks.bounds import Ceilings, work
from benchmarks.cases import CASES, ELISION, MODELS, NETWORKS, OPERATION
from benchmarks.contenders import is_foreign
from benchmarks.plot_patches import PAPER, PAPER_SCORES, panels
from benchmarks.report import Row, ceiling_lines, table

LOSS_VOC, ARGMAX_VOC = "loss 21×500×500 deconv(8, 31)", "argmax 21×500×500 deconv(8, 31)"
POOLED = "ReLU, max pool 2×2 of 16×698×698"
QUARTER = "FCN-8s at a quarter of the width, 500×500"
MAIN = (
    ("loss and gradient, 21 classes, 70×70 → 500×500, `deconv(8, 31)`", LOSS_VOC, "interpolate"),
    ("… against a dense `F.conv_transpose2d` and `F.cross_entropy`", LOSS_VOC, "dense deconvolution"),
    ("… against `torch.compile` of `F.interpolate` and `F.cross_entropy`", LOSS_VOC, "compiled interpolate"),
    ("loss and gradient, 150 classes, 128×128 → 512×512", "loss 150×512×512 half_pixel", "interpolate"),
    ("loss and gradient, 19 classes, 128×256 → 1024×2048", "loss 19×1024×2048 half_pixel", "interpolate"),
    ("label map, 21 classes, 70×70 → 500×500", ARGMAX_VOC, "interpolate"),
    ("… against `torch.compile`", ARGMAX_VOC, "compiled interpolate"),
    ("skip step: 512 channels scored in the crop, 34×34 → 70×70", "skip step 512→21×70×70", "eager"),
    ("confusion matrix of label maps, 500×500", "confusion of label maps 21×500×500", "bincount"),
    ("ReLU and 2×2 max pooling of 16×698×698", POOLED, "eager"),
    ("… and its gradient", f"{POOLED}, gradients", "eager"),
    ("FCN-8s at a quarter of the width, 500×500, inference", f"{QUARTER}, inference", "stock modules"),
    ("… training step", f"{QUARTER}, step", "stock modules"),
)
"""The README's lines: label, case, rival."""

LEVELS = {"avx512": "AVX-512", "avx2": "AVX2", "generic": "baseline"}


class Report(NamedTuple):
    """What one run measured."""

    facts: dict[str, Any]
    rows: list[Row]

    def row(self, case: str, contender: str) -> Row:
        """Raises KeyError where it was not measured or failed."""
        for row in self.rows:
            if (row.case, row.contender) == (case, contender) and row.times is not None:
                return row
        raise KeyError(f"{self.facts['command']!r} has no time of {contender!r} for {case!r}")


class Results(NamedTuple):
    """The runs that the texts quote."""

    cpu: Report
    avx2: Report
    patches: Report
    full_width: Report
    elision: Report


def blocks(found: Results) -> dict[str, Callable[[], str]]:
    """What makes each block, by its name: those below, and a table of each operation under its stem."""
    made: dict[str, Callable[[], Iterator[str]]] = {
        "figures": functools.partial(_figures, found),
        "circumstances": functools.partial(_circumstances, found.cpu),
        "circumstances_of_patches": functools.partial(_circumstances, found.patches),
        "circumstances_of_full_width": functools.partial(_circumstances, found.full_width),
        "circumstances_of_elision": functools.partial(_circumstances, found.elision),
        "circumstances_of_avx2": functools.partial(_circumstances, found.avx2),
        "goals": functools.partial(_goals, found.cpu, found.avx2),
        "bounds": functools.partial(_bounds, found.cpu),
        "bounds_of_avx2": functools.partial(_bounds, found.avx2),
        "division": functools.partial(_division, found.cpu, found.full_width),
        "full_width": functools.partial(_table, found.full_width.rows),
        "patches": functools.partial(_patches, found.patches),
    }
    for operation in measured(found.cpu):
        report = found.elision if operation == ELISION else found.cpu
        rows = [row for row in report.rows if OPERATION.get(row.case) == operation]
        made[operation] = functools.partial(_table, rows)
    return {name: functools.partial(_joined, make) for name, make in made.items()}


def measured(report: Report) -> list[str]:
    """The operations of a report."""
    return list(dict.fromkeys(OPERATION[row.case] for row in report.rows if row.case in OPERATION))


def machine(facts: dict[str, Any]) -> str:
    """In words, where a report was made."""
    processor = facts["processor"].replace("(R)", "").replace("(TM)", "")
    threads = f"{facts['threads']} thread{'s' * (facts['threads'] > 1)}"
    where = f"{facts['cores']} cores of an {processor}, {threads}"
    return f"{facts.get('gpu', where)}, {LEVELS.get(facts['isa'], facts['isa'])}, torch {facts['torch']}"


def _joined(make: Callable[[], Iterator[str]]) -> str:
    return "".join(f"{line}\n" for line in make())


def _table(rows: list[Row]) -> Iterator[str]:
    yield from table(rows)


def _figures(found: Results) -> Iterator[str]:
    facts = found.cpu.facts
    yield f"Measured on {facts['date']} on {machine(facts)};"
    yield "fp32, one image, int64 labels. Medians of calls taken in turn in one run, their data in the caches;"
    yield "*extra*: peak memory beside inputs and results; *quickest*: the ratio of the run's quickest rival,"
    yield "in any layout. By"
    yield f"\n    {facts['command']}\n"
    yield "| | ms | extra MB | plain PyTorch, ms | extra MB | ratio | quickest |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for label, case, rival in MAIN:
        quickest = "" if label.startswith("… against") else _quickest(found.cpu, case)
        yield _line(label, found.cpu.row(case, "ours"), found.cpu.row(case, rival), quickest)


def _quickest(report: Report, case: str) -> str:
    """Ratio of the quickest rival that computes in fp32, and its name where there are several."""
    rivals = {
        row.contender: row.times.median
        for row in report.rows
        if row.case == case and row.times and _is_rival(row.contender)
    }
    ours = report.row(case, "ours").times
    assert ours is not None
    name = min(rivals, key=rivals.__getitem__)
    return _short(rivals[name] / ours.median) + (f" ({name})" if len(rivals) > 1 else "")


def _is_rival(contender: str) -> bool:
    return is_foreign(contender) and not contender.endswith(("bf16", "alone"))


def _line(label: str, ours: Row, rival: Row, quickest: str) -> str:
    assert ours.times is not None
    assert rival.times is not None
    memory = ["" if row.extra is None else _short(row.extra / 1e6) for row in (ours, rival)]
    ratio = rival.times.median / ours.times.median
    cells = (
        label,
        _short(ours.times.median),
        memory[0],
        _short(rival.times.median),
        memory[1],
        _short(ratio),
        quickest,
    )
    return f"| {' | '.join(cells)} |"


def _short(value: float) -> str:
    """Two digits, or all before the point."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _circumstances(report: Report) -> Iterator[str]:
    facts = report.facts
    yield f"`{facts['command']}`, {facts['date']}, commit {facts['commit']}: {machine(facts)}, {facts['compiler']},"
    yield f"Python {facts['python']}."
    yield from ceiling_lines(facts)
    for name, why in facts.get("missing rivals", {}).items():
        yield f"Not measured: {name} ({why})."


def _goals(*reports: Report) -> Iterator[str]:
    """What has a goal, in each report."""
    heads = [f"{LEVELS[report.facts['isa']]}: ms | ratio" for report in reports]
    yield f"| case | against | goal | {' | '.join(heads)} |"
    yield f"|---|---|---:|{'---:|---:|' * len(reports)}"
    for first in reports[0].rows:
        if first.goal is None:
            continue
        cells = [first.case, first.contender, f"{first.goal:g}"]
        for report in reports:
            ours, rival = report.row(first.case, "ours").times, report.row(first.case, first.contender).times
            assert ours is not None
            assert rival is not None
            cells += [f"{ours.median:.3g}", f"{rival.median / ours.median:.3g}"]
        yield f"| {' | '.join(cells)} |"


def _bounds(report: Report) -> Iterator[str]:
    yield "| case | MB | Mflop | exponentials, M | bound, ms | kernels, ms | part | whole call, ms | part |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    can = Ceilings.of(report.facts)
    ours = {row.case: row for row in report.rows if row.contender == "ours" and row.times}
    for case in CASES:
        if case.operation in NETWORKS or case.name not in ours:
            continue
        row, need = ours[case.name], work(case)
        assert row.times is not None
        cells = [f"{amount / 1e6:.3g}" for amount in need] + [f"{can.bound(need):.3g}"]
        for time in (row.kernel, row.times.median):
            cells += ["", ""] if time is None else [f"{time:.3g}", f"{can.bound(need) / time:.2g}"]
        yield f"| {case.name} | {' | '.join(cells)} |"


def _division(*reports: Report) -> Iterator[str]:
    yield "| network | trunk, ms: ours | stock's | head, ms: ours | stock's | head's part: ours | stock's |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for report in reports:
        for case in (
            name for name in dict.fromkeys(row.case for row in report.rows) if OPERATION[name] == MODELS
        ):
            names = ("trunk alone", "stock trunk alone", "head alone", "stock head alone")
            times = [row.times.median for name in names if (row := report.row(case, name)).times]
            parts = [
                f"{100 * head / (trunk + head):.1f} %"
                for trunk, head in zip(times[:2], times[2:], strict=True)
            ]
            cells = [case, *(f"{value:.3g}" for value in times), *parts]
            yield f"| {' | '.join(cells)} |"


def _patches(report: Report) -> Iterator[str]:
    heads = ("batched crops", "one by one", "batched ÷ whole", "one by one ÷ whole", "paper")
    yield f"| body, pass | scores | whole image, ms per score | {' | '.join(heads)} |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for (body, gradients), lines in panels(report.rows).items():
        each = {name: dict(points) for name, points in lines.items()}
        for scores, ours in each["ours"].items():
            batched, single = (each[name][scores] for name in ("crops, batched", "crops, one by one"))
            paper = f"{PAPER[gradients]:.1f}" if (body, scores) == ("AlexNet", PAPER_SCORES) else ""
            cells = [
                f"{body}, {'forward and backward' if gradients else 'forward'}",
                str(scores),
                *(f"{value:.3g}" for value in (ours, batched, single)),
                *(f"{value / ours:.1f}" for value in (batched, single)),
                paper,
            ]
            yield f"| {' | '.join(cells)} |"
