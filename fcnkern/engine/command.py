"""``fcnkern train``: every setting of ``TrainSettings`` as an option."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fcnkern.engine._setting import Setting
from fcnkern.engine.checkpoint import LAST
from fcnkern.engine.config import CONFIG, read_config
from fcnkern.engine.distributed import processes, rank
from fcnkern.engine.progress import say
from fcnkern.engine.recipes import RECIPES, with_recipe
from fcnkern.engine.report import scores_table
from fcnkern.engine.runs import check_empty, resume_run, start_run
from fcnkern.engine.settings import SETTINGS, TrainSettings
from fcnkern.engine.stages import run_stages, stages_table
from fcnkern.engine.trainer import Trainer
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
    group.add_argument(
        "--resume", metavar="PATH", help="go on with the run in this folder, or from this checkpoint", **paths
    )
    group.add_argument("--config", metavar="FILE", help="settings in TOML; options come before it", **paths)
    group.add_argument(
        "--recipe", choices=tuple(RECIPES), help="the paper's settings; options and FILE come before them"
    )
    defaults = {name: TrainSettings.__dataclass_fields__[name].default for name in SETTINGS}
    add_settings(parser, {**defaults, "time_limit": DEFAULT_TIME})


def add_settings(parser: argparse.ArgumentParser, defaults: Mapping[str, Any]) -> None:
    """An option for each setting in ``defaults``, grouped; the help shows its default, which is not filled in."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, default in defaults.items():
        known = SETTINGS[name]
        if known.group not in groups:
            groups[known.group] = parser.add_argument_group(known.group)
        _add_option(groups[known.group], name, known, default)


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option for where networks run, as training has it."""
    known, default = SETTINGS["device"], TrainSettings.__dataclass_fields__["device"].default
    _add_option(parser, "device", known, default)
    parser.set_defaults(device=default)


def _add_option(group: argparse._ActionsContainer, name: str, known: Setting, default: Any) -> None:
    text = (
        known.text
        if default is None or default is False
        else f"{known.text} (default {_shown(name, default)})"
    )
    flag = f"--{name.replace('_', '-')}"
    if isinstance(default, bool):
        group.add_argument(flag, help=text, action=argparse.BooleanOptionalAction)
    else:
        group.add_argument(
            flag, help=text, type=argument(known.parse), metavar=known.metavar, choices=known.choices
        )


def _shown(name: str, default: Any) -> str:
    return f"{default / 60:g}m if no end is given" if name == "time_limit" else str(default)


def _train(options: argparse.Namespace) -> int:
    with processes():
        options.quiet = options.quiet or rank() > 0
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    given = {name: value for name, value in vars(options).items() if name in SETTINGS or name == "recipe"}
    if options.resume is not None:
        plan = _resumed(options, given)
    else:
        out = options.out or DEFAULT_OUT
        check_empty(out)
        plan = _settings(options.config, given), out
    if isinstance(plan, Trainer):
        return _run_one(plan)
    settings, out = plan
    if settings.stages is None:
        return _run_one(start_run(settings, out, quiet=options.quiet))
    return _run_stages(settings, out, options.quiet)


def _settings(config: Path | None, given: dict[str, Any]) -> TrainSettings:
    """The settings of a new run: what is given, before what the file says, before the recipe's."""
    wanted = with_recipe({**(read_config(config) if config is not None else {}), **given})
    if not {"iterations", "time_limit"} & set(wanted):
        wanted["time_limit"] = DEFAULT_TIME
    return TrainSettings(**wanted)


def _resumed(options: argparse.Namespace, given: dict[str, Any]) -> Trainer | tuple[TrainSettings, Path]:
    """The trainer of a checkpoint; for a folder without one, the settings it was begun with."""
    for name in ("config", "recipe"):
        if getattr(options, name, None) is not None:
            raise ValueError(f"{name} is for new runs: a resumed run keeps its settings")
    place: Path = options.resume
    if not place.exists():
        raise FileNotFoundError(f"resume {place} does not exist, wanted the folder of a run or a checkpoint")
    if place.is_dir() and not (place / LAST).exists():
        if not (place / CONFIG).exists():
            raise FileNotFoundError(f"{place} holds no run: neither {LAST} nor {CONFIG} is there")
        if options.out is not None:
            raise ValueError(f"out cannot change when resuming the folder {place}")
        return TrainSettings(**read_config(place / CONFIG)).changed(**given), place
    checkpoint = place / LAST if place.is_dir() else place
    return resume_run(checkpoint, options.out, quiet=options.quiet, **given)


def _run_one(trainer: Trainer) -> int:
    result = trainer.run()
    if result.signal:
        return _stopped(result.iteration, trainer.last, result.signal)
    say_skipped(result.skipped)
    _print(f"trained {result.iteration} iterations in {result.elapsed:.0f} s; written to {trainer.out}")
    if result.metrics is not None:
        _print(scores_table(result.scores))
    if result.best_mean_iu >= 0:
        _print(f"best validation mean IU so far: {100 * result.best_mean_iu:.2f} %, in {trainer.best}")
    elif result.metrics is not None:
        _print(f"no validation pixel has a class: {trainer.best} is not written")
    return 0


def _run_stages(settings: TrainSettings, out: Path, quiet: bool) -> int:
    results = run_stages(settings, out, quiet=quiet)
    last = results[-1]
    if last.signal:
        return _stopped(last.iteration, out, last.signal, f" of stage {last.name}")
    say_skipped(sum(result.skipped for result in results))
    if last.metrics is not None:
        _print(scores_table(last.scores), end="\n\n")
    _print(stages_table(results))
    _print(f"trained {len(results)} stages; the last one is in {out / last.name}")
    return 0


def _stopped(iteration: int, place: Path, signal: int, stage: str = "") -> int:
    if rank() == 0:
        say(f"stopped at iteration {iteration}{stage}; go on with: fcnkern train --resume {place}")
    return SIGNALLED + signal


def _print(text: str, **how: Any) -> None:
    """Prints once, however many processes train."""
    if rank() == 0:
        print(text, **how)


def say_skipped(count: int) -> None:
    """Tells on stderr how many images were left out, if any."""
    if count:
        _print(f"left out {count} image{'s' * (count > 1)} that could not be read", file=sys.stderr)
