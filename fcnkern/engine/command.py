"""``fcnkern train``: every setting of ``TrainSettings`` as an option."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from fcnkern.engine._setting import Setting
from fcnkern.engine.report import metrics_table
from fcnkern.engine.runs import resume_run, start_run
from fcnkern.engine.settings import SETTINGS, TrainSettings
from fcnkern.engine.values import argument

SIGNALLED = 128
DEFAULT_OUT = Path("fcnkern-run")
DEFAULT_TIME = 900.0


def add_train(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``fcnkern train``; what is not given is absent from the result.

    So what a resumed run or a file says is changed by what is given, and by nothing else.
    """
    parser.set_defaults(run=_train)
    parser.argument_default = argparse.SUPPRESS
    group = parser.add_argument_group("where")
    paths: dict[str, Any] = {"type": Path, "default": None}
    group.add_argument(
        "--out", metavar="DIR", help=f"folder of checkpoints and log (default {DEFAULT_OUT})", **paths
    )
    group.add_argument("--resume", metavar="FILE", help="go on from this checkpoint, exactly", **paths)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, known in SETTINGS.items():
        if known.group not in groups:
            groups[known.group] = parser.add_argument_group(known.group)
        _add_option(groups[known.group], name, known)


def _add_option(group: argparse._ArgumentGroup, name: str, known: Setting) -> None:
    default = TrainSettings.__dataclass_fields__[name].default
    text = known.text if default in (None, False) else f"{known.text} (default {default})"
    flag = f"--{name.replace('_', '-')}"
    if default is False:
        group.add_argument(flag, help=text, action=argparse.BooleanOptionalAction)
    else:
        group.add_argument(
            flag, help=text, type=argument(known.parse), metavar=known.metavar, choices=known.choices
        )


def _train(options: argparse.Namespace) -> int:
    given = {name: value for name, value in vars(options).items() if name in SETTINGS}
    if options.resume is not None:
        trainer = resume_run(options.resume, options.out, quiet=options.quiet, **given)
    else:
        if not {"iterations", "time_limit"} & set(given):
            given["time_limit"] = DEFAULT_TIME
        trainer = start_run(TrainSettings(**given), options.out or DEFAULT_OUT, quiet=options.quiet)
    result = trainer.run()
    if result.interrupted:
        print(
            f"stopped at iteration {result.iteration}; go on with: fcnkern train --resume {trainer.last}",
            file=sys.stderr,
        )
        return SIGNALLED + result.signal
    if result.skipped:
        print(f"left out {result.skipped} images that could not be read", file=sys.stderr)
    print(f"trained {result.iteration} iterations in {result.elapsed:.0f} s; written to {trainer.out}")
    if result.metrics is not None:
        print(metrics_table(result.metrics, trainer.train_set.classes))
        print(f"best validation mean IU so far: {100 * result.best_mean_iu:.2f} %, in {trainer.best}")
    return 0
