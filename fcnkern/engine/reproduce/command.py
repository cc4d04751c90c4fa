"""``fcnkern reproduce``: an experiment of the paper, with training's options where they have a meaning."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from fcnkern.engine.command import SIGNALLED, add_settings
from fcnkern.engine.reproduce.camvid import CAMVID, SPLITS, reproduce_stages, results_table
from fcnkern.engine.reproduce.experiment import StoppedByError, resized
from fcnkern.engine.reproduce.sampling import SAMPLING, reproduce_sampling
from fcnkern.engine.settings import TrainSettings
from fcnkern.engine.values import argument, size

OPTIONS = (
    *("iterations", "time_limit", "save_every", "threads", "precision", "device", "seed"),
    *("data", "batch_size", "accumulate", "preprocess", "arch", "width", "elide", "dropout", "weights"),
    *("lr", "momentum", "weight_decay", "score_lr", "schedule", "warmup", "clip", "reduction"),
)
STAGED_OPTIONS = (*OPTIONS, "stage_lr", "class_weights", "augment", "shift", "scale", "pipeline")
SAMPLED_OPTIONS = (*OPTIONS, "cell", "shift")


def add_reproduce(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """The arguments of ``fcnkern reproduce``."""
    experiments = parser.add_subparsers(dest="experiment", required=True, metavar="EXPERIMENT")
    _add_experiment(
        experiments.add_parser("sampling", parents=[common], help="Figure 5: what loss sampling does"),
        SAMPLING,
        SAMPLED_OPTIONS,
    )
    _add_experiment(
        experiments.add_parser("camvid", parents=[common], help="FCN-32s, 16s, 8s in turn, on CamVid"),
        CAMVID,
        STAGED_OPTIONS,
    )


def _add_experiment(parser: argparse.ArgumentParser, defaults: TrainSettings, names: tuple[str, ...]) -> None:
    parser.set_defaults(run=_reproduce)
    parser.argument_default = argparse.SUPPRESS
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of all results")
    parser.add_argument(
        "--size",
        type=argument(size),
        metavar="HxW",
        default=None,
        help="scale images and labels to this size, once, into a copy in DIR",
    )
    shown = {name: getattr(defaults, name) for name in names}
    add_settings(parser, {**shown, "data": None})


def _reproduce(options: argparse.Namespace) -> int:
    staged = options.experiment == "camvid"
    defaults, names = (CAMVID, STAGED_OPTIONS) if staged else (SAMPLING, SAMPLED_OPTIONS)
    given = {name: value for name, value in vars(options).items() if name in names}
    if "data" not in given:
        raise ValueError("data is needed, such as --data camvid:PATH")
    if "iterations" in given and "time_limit" not in given:
        given["time_limit"] = None
    if options.size is not None:
        folder = options.out / f"data-{options.size[0]}x{options.size[1]}"
        given["data"] = resized(given["data"], options.size, SPLITS if staged else SPLITS[:2], folder)
    settings = dataclasses.replace(defaults, **given)
    try:
        if staged:
            print(results_table(reproduce_stages(settings, options.out, quiet=options.quiet)))
        else:
            print(reproduce_sampling(settings, options.out, quiet=options.quiet).sentence)
    except StoppedByError as error:
        print(error, file=sys.stderr)
        return SIGNALLED + error.signal
    print(f"written to {options.out}")
    return 0
