"""``fcnkern data``: what is in a data set, what is wrong with it, and how well it can be segmented at best."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import torch
from torch import Tensor

from fcnkern.data.check import Report, SplitReport, check_data
from fcnkern.data.loader import prefetch
from fcnkern.data.registry import forms, open_dataset
from fcnkern.data.sample import Dataset
from fcnkern.data.tasks import numbered, tasks_of
from fcnkern.engine.progress import Progress
from fcnkern.metrics import from_confusion, upper_bound

BROKEN = 1
FACTORS = (128, 64, 32, 16, 8, 4)
"""Of the table in arXiv:1411.4038v2, appendix A."""
MOST_SIZES, MOST_TURNED = 6, 20


def add_data(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``fcnkern data``."""
    commands = parser.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check", help="read every file: counts, class frequencies, sizes, what is broken (exit code 1)"
    )
    check.set_defaults(run=_check)
    check.add_argument("spec", metavar="SPEC", help=forms())
    check.add_argument(
        "--split", action="append", metavar="NAME", help="this split only; may be repeated (default: all)"
    )
    bounds = commands.add_parser(
        "bounds", help="mean IU that coarse scores can reach at best, for several strides"
    )
    bounds.set_defaults(run=_bounds)
    bounds.add_argument("spec", metavar="SPEC", help=forms())
    bounds.add_argument("--split", default="val", metavar="NAME", help="whose labels (default val)")
    for command in (check, bounds):
        command.add_argument("--json", action="store_true", help="as JSON")
        command.add_argument("--quiet", action="store_true", help="show no progress")
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _check(options: argparse.Namespace) -> int:
    with Progress("check", None, enabled=not options.quiet) as bar:
        report = check_data(options.spec, options.split, after_each=bar.advance)
    print(json.dumps(report.record(), indent=2) if options.json else report_text(report))
    return 0 if report.sound else BROKEN


def _bounds(options: argparse.Namespace) -> int:
    dataset = open_dataset(options.spec, options.split)
    with Progress("bounds", len(dataset), enabled=not options.quiet) as bar:
        matrices = bounds_of(dataset, after_each=bar.advance)
    found = {factor: from_confusion(matrix).mean_iu for factor, matrix in matrices.items()}
    if options.json:
        print(json.dumps({str(factor): iu for factor, iu in found.items()}, indent=2))
    else:
        rows = [f"{factor:>6}  {100 * iu:>5.2f} %" for factor, iu in found.items()]
        print("\n".join(["factor  mean IU", *rows]))
    return 0


def bounds_of(dataset: Dataset, after_each: Callable[[], object] = lambda: None) -> dict[int, Tensor]:
    """The confusion matrix of `fcnkern.metrics.upper_bound` over a data set, for each factor of the paper's table.

    Of several tasks, each has its block on the diagonal.

    Raises: as reading the labels does.
    """
    count, tasks = len(dataset.classes), tasks_of(dataset)
    matrices = {factor: torch.zeros(count, count, dtype=torch.int64) for factor in FACTORS}
    for sample in prefetch(dataset.__getitem__, range(len(dataset))):
        for label in map(torch.from_numpy, numbered(sample.label, tasks)):
            for factor, matrix in matrices.items():
                matrix += upper_bound(label[None], factor, count, dataset.ignore_index)
        after_each()
    return matrices


def report_text(report: Report) -> str:
    """The report for a person to read."""
    parts = [_split_text(split) for split in report.splits]
    troubles = [line for split in report.splits for line in split.broken] + report.shared
    verdict = "everything could be read"
    if troubles:
        verdict = "\n  ".join([f"broken: {len(troubles)}", *troubles])
    return "\n\n".join((*parts, verdict))


def _split_text(report: SplitReport) -> str:
    count = f"{report.images} images"
    if report.published is not None:
        same = report.published == report.images
        count += ", as published" if same else f"; published: {report.published}"
    sizes = ", ".join(f"{w}x{h} ({n})" for (h, w), n in report.sizes.most_common(MOST_SIZES))
    more = len(report.sizes) - MOST_SIZES
    lines = [
        f"{report.split}: {count}",
        f"  sizes, width x height: {sizes or 'none could be read'}{f', and {more} more' if more > 0 else ''}",
    ]
    if report.turned:
        lines.append(
            f"  an EXIF orientation, which is not applied, have {len(report.turned)} images: "
            f"{', '.join(report.turned[:MOST_TURNED])}{', ...' if len(report.turned) > MOST_TURNED else ''}; check "
            "that their labels lie as the stored pixels do"
        )
    total = int(report.pixels.sum())
    if total == 0:
        return "\n".join(lines)
    width = max(map(len, report.classes))
    lines += [
        f"  without a class: {100 * report.void / (total + report.void):.2f} % of the pixels",
        f"  {'class':<{width}}   pixels   in images",
    ]
    rows = zip(report.classes, report.pixels.tolist(), report.in_images.tolist(), strict=True)
    lines += [f"  {name:<{width}}  {100 * n / total:>6.2f} %  {seen:>9}" for name, n, seen in rows]
    return "\n".join(lines)
