"""``fcnkern data``: what is in a data set, what is wrong with it, and how well it can be segmented at best."""

from __future__ import annotations

import argparse
import json

from fcnkern.data.check import Report, SplitReport, check_data
from fcnkern.data.registry import forms

BROKEN = 1
MOST_SIZES = 6


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
    check.add_argument("--json", action="store_true", help="as JSON")
    check.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _check(options: argparse.Namespace) -> int:
    report = check_data(options.spec, options.split)
    print(json.dumps(report.record(), indent=2) if options.json else report_text(report))
    return 0 if report.sound else BROKEN


def report_text(report: Report) -> str:
    """The report for a person to read."""
    parts = [_split_text(split) for split in report.splits]
    troubles = [f"  {line}" for split in report.splits for line in split.broken] + [
        f"  {s}" for s in report.shared
    ]
    verdict = f"broken: {len(troubles)}\n" + "\n".join(troubles) if troubles else "everything could be read"
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
