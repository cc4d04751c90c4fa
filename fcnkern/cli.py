"""The ``fcnkern`` command: train, eval, predict, sheet, reproduce, demo, models, convert, export, data, info."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import fcnkern
from fcnkern._files import write_atomically
from fcnkern.data import DataError, open_dataset, preset
from fcnkern.data.command import add_data
from fcnkern.engine import (
    confusions_over,
    load_trained,
    metrics_line,
    metrics_table,
    predict_files,
    scores_by_task,
    scores_record,
    scores_table,
)
from fcnkern.engine.agreement import check_classes, check_images
from fcnkern.engine.broken import SkipBroken, check_present
from fcnkern.engine.command import SIGNALLED, add_device, add_train, say_skipped
from fcnkern.engine.demo import run_demo
from fcnkern.engine.device import choose_device
from fcnkern.engine.interrupt import StoppedError
from fcnkern.engine.progress import Progress, drop, say
from fcnkern.engine.reproduce.command import add_reproduce
from fcnkern.engine.settings import PRECISIONS
from fcnkern.engine.sheets import add_sheet
from fcnkern.engine.values import argument, numbers, size, widths
from fcnkern.export import add_export
from fcnkern.models.summary import models_table, summarize
from fcnkern.weights.command import add_convert

USER_ERROR, INTERRUPTED, UNREAD = 2, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code.

    0; 2 for an error of the user's; 128 and its number when a signal stopped the command, also where nobody
    reads its output to the end.
    """
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed before the start
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115
    try:
        try:
            return _run(make_parser().parse_args(arguments))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        drop(sys.stdout)
        drop(sys.stderr)
        return UNREAD


def _run(options: argparse.Namespace) -> int:
    """Runs the command; errors of the user's become a line and an exit code."""
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        print("fcnkern: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        if options.debug:
            raise
        print(f"fcnkern: error: {' '.join(_reason(error).split())}", file=sys.stderr)
        return USER_ERROR


def _reason(error: Exception) -> str:
    """What the error says; of a name that is no text in UTF-8, the line that has it."""
    if not isinstance(error, UnicodeEncodeError):
        return str(error)
    line = error.object[: error.start].rpartition("\n")[2] + error.object[error.start :].partition("\n")[0]
    return f"{line!a} cannot be written as {error.encoding}: rename the file or folder"


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="fcnkern", description="Train and run fully convolutional networks for semantic segmentation."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    common.add_argument("--quiet", action="store_true", help="show no progress")
    add_train(commands.add_parser("train", parents=[common], help="train a network"))
    _add_eval(commands.add_parser("eval", parents=[common], help="score a checkpoint on a data set"))
    _add_predict(commands.add_parser("predict", parents=[common], help="segment images"))
    add_sheet(commands.add_parser("sheet", parents=[common], help="compare networks in a picture"))
    add_reproduce(commands.add_parser("reproduce", help="the paper's experiments, at any size"), common)
    _add_demo(
        commands.add_parser("demo", parents=[common], help="train on generated street scenes, in two minutes")
    )
    _add_models(commands.add_parser("models", parents=[common], help="the networks, in numbers"))
    add_convert(commands.add_parser("convert", parents=[common], help="rename weights of another library"))
    add_export(commands.add_parser("export", parents=[common], help="a network as ONNX or torch.export"))
    add_data(commands.add_parser("data", help="examine a data set"))
    _add_info(commands.add_parser("info", parents=[common], help="versions, build, backends"))
    return parser


# -------------------------------------------------------------------- eval and predict


def _add_eval(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_eval)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="PATH",
        help="written by fcnkern train, or a run's folder: its last.pt",
    )
    parser.add_argument("--data", metavar="SPEC", help="as for train (default: what it was trained on)")
    parser.add_argument("--split", default="val", metavar="NAME", help="split to score (default val)")
    parser.add_argument("--limit", type=int, metavar="N", help="score this many images only")
    parser.add_argument(
        "--skip-broken",
        action="store_true",
        help="leave out images that are missing or damaged, and count them",
    )
    parser.add_argument(
        "--trimap",
        type=argument(widths),
        default=(),
        metavar="N,N",
        help="score bands of these widths along the boundaries too: 1,2,4,8",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there; -: print them")
    _add_machine(parser)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    add_device(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="fp32", help="bf16: faster where the CPU has it"
    )


def _eval(options: argparse.Namespace) -> int:
    if options.limit is not None and options.limit < 1:
        raise ValueError(f"limit must be at least 1, got {options.limit}")
    if options.json is not None:
        _check_json(options.json)
    device, trained = choose_device(options.device), load_trained(options.checkpoint)
    spec = options.data or trained.settings.data
    if not spec:
        raise ValueError(f"checkpoint {options.checkpoint} names no data set to score on: give --data")
    dataset, source = open_dataset(spec, options.split), f"checkpoint {options.checkpoint}"
    check_images(source, trained.model.preprocess, trained.settings.data, spec, dataset)
    check_classes(source, trained.classes, spec, dataset.classes)
    if options.skip_broken:
        dataset = SkipBroken(dataset, blank=True, report=say)
    else:
        check_present(dataset)
    _set_threads(options.threads)
    trained.model.to(device)
    count = len(dataset) if options.limit is None else min(options.limit, len(dataset))
    with Progress("eval", count, enabled=not options.quiet) as bar:
        matrices = confusions_over(
            trained.model,
            dataset,
            preset(trained.model.preprocess),
            options.trimap,
            limit=options.limit,
            precision=options.precision,
            progress=bar,
        )
    broken = list(dataset.broken.values()) if isinstance(dataset, SkipBroken) else []
    if len(broken) == count:
        raise DataError(f"{dataset.name} has no image that can be read; the first: {broken[0]}")
    say_skipped(len(broken))
    scores = scores_by_task(matrices, dataset.classes, trained.tasks, options.trimap)
    if options.json is None or str(options.json) != "-":
        print(scores_table(scores), flush=True)
    if options.json is not None:
        record = {
            "checkpoint": str(options.checkpoint),
            "data": spec,
            "split": options.split,
            "images": count - len(broken),
        }
        _write_json(options.json, record | scores_record(scores))
    return 0


def _check_json(path: Path) -> None:
    """Finds out before the work whether its results can be written, other than to the output."""
    if str(path) == "-":
        return
    if path.is_dir():
        raise IsADirectoryError(f"json must be a file to write, got the folder {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise PermissionError(f"json {path} cannot be written")


def _write_json(path: Path, record: dict[str, Any]) -> None:
    text = json.dumps(record, indent=2, allow_nan=False)
    if str(path) == "-":
        print(text)
    else:
        write_atomically(path, lambda file: file.write(f"{text}\n".encode()))


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_predict)
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="image files, or folders of them; any size"
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="PATH",
        help="written by fcnkern train, or a run's folder: its last.pt",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("fcnkern-predictions"),
        metavar="DIR",
        help="folder of NAME.png (labels) and NAME_overlay.png, of several tasks NAME_TASK.png and "
        "NAME_TASK_overlay.png (default fcnkern-predictions)",
    )
    parser.add_argument("--flip", action="store_true", help="average over the mirrored image too")
    parser.add_argument(
        "--scales",
        type=argument(numbers),
        default=(1.0,),
        metavar="X,X",
        help="average over sizes, such as 0.75,1,1.25",
    )
    parser.add_argument(
        "--tile",
        type=argument(size),
        metavar="HxW",
        help="windows of this size, for images larger than memory; without --flip and --scales",
    )
    _add_machine(parser)


def _predict(options: argparse.Namespace) -> int:
    device, trained = choose_device(options.device), load_trained(options.checkpoint)
    _set_threads(options.threads)
    trained.model.to(device)
    written = predict_files(
        trained,
        options.images,
        options.out,
        precision=options.precision,
        scales=options.scales,
        flip=options.flip,
        tile=options.tile,
        quiet=options.quiet,
    )
    count = len(written) // max(1, len(trained.tasks))
    print(f"wrote the labels and overlays of {count} image{'s' * (count != 1)} to {options.out}")
    return 0


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        if threads < 1:
            raise ValueError(f"threads must be more than 0, got {threads}")
        torch.set_num_threads(threads)


# -------------------------------------------------------------------- demo, models and info


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_demo)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("."),
        metavar="DIR",
        help="folder of fcnkern-demo.png and fcnkern-demo.pt (default: the current one)",
    )
    parser.add_argument("--seconds", type=float, default=75.0, metavar="S", help="time to train (default 75)")


def _demo(options: argparse.Namespace) -> int:
    if not options.seconds > 0:
        raise ValueError(f"seconds must be more than 0, got {options.seconds}")
    try:
        result = run_demo(options.out, options.seconds, quiet=options.quiet)
    except StoppedError as error:
        print(f"{error}; nothing is written", file=sys.stderr)
        return SIGNALLED + error.signal
    print(metrics_table(result.after, result.classes))
    print()
    print(f"before training: {metrics_line(result.before)}")
    print(f"after training:  {metrics_line(result.after)}")
    print(f"picture (image | truth | prediction): {result.picture}")
    print("next, segment images of your own:")
    print(f"  fcnkern predict --checkpoint {result.checkpoint} IMAGE...")
    return 0


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_models)
    parser.add_argument("--classes", type=int, default=21, metavar="C", help="number of classes (default 21)")
    parser.add_argument("--json", action="store_true", help="as JSON")


def _models(options: argparse.Namespace) -> int:
    records = summarize(options.classes)
    print(json.dumps(records, indent=2) if options.json else models_table(records))
    return 0


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_info)
    parser.add_argument("--json", action="store_true", help="as JSON")


def _info(options: argparse.Namespace) -> int:
    print(json.dumps(fcnkern.info(), indent=2) if options.json else fcnkern.format_info())
    return 0


if __name__ == "__main__":
    sys.exit(main())
