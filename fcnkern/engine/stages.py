"""FCN-32s, FCN-16s and FCN-8s trained in turn, each from the one before (CVPR section 4.2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fcnkern.engine.checkpoint import LAST, load_checkpoint
from fcnkern.engine.config import CONFIG, write_config
from fcnkern.engine.distributed import rank
from fcnkern.engine.lock import only_run_in
from fcnkern.engine.progress import say
from fcnkern.engine.report import NAMES, Scores, scores_by_task
from fcnkern.engine.runs import resume_run, start_run
from fcnkern.engine.settings import SETTINGS, TrainSettings
from fcnkern.metrics import Metrics, from_confusion
from fcnkern.models.registry import parse_name


@dataclass(frozen=True)
class StageResult:
    """How a stage stands.

    Attributes:
        name: such as ``32s``, which is also its folder's name.
        iteration, elapsed: iterations done and seconds taken.
        metrics: of its last validation, or None.
        classes: names of the classes.
        signal: number of the signal that stopped it, or 0.
        skipped: images left out because they could not be read.
        scores: as ``TrainResult.scores``.
    """

    name: str
    iteration: int
    elapsed: float
    metrics: Metrics | None
    classes: list[str]
    signal: int = 0
    skipped: int = 0
    scores: dict[str, Scores] = field(default_factory=dict)


def stage_settings(settings: TrainSettings) -> dict[str, TrainSettings]:
    """The settings of each stage by its name; the checkpoints that the later ones start from are not among them.

    Each stage has all the iterations and an equal part of the time. Its rate is that of the stage before times
    ``stage_lr``.
    """
    assert settings.stages is not None
    _, body, late = parse_name(settings.arch)
    share = None if settings.time_limit is None else settings.time_limit / len(settings.stages)
    plan = {}
    for place, stride in enumerate(settings.stages):
        plan[f"{stride}s"] = dataclasses.replace(
            settings,
            arch=f"fcn{stride}s{'-late' * late}_{body}",
            stages=None,
            time_limit=share,
            lr=settings.lr * settings.stage_lr**place,
            weights=settings.weights if place == 0 else None,
            init_from=settings.init_from if place == 0 else None,
        )
    return plan


def run_stages(settings: TrainSettings, out: str | Path, *, quiet: bool = False) -> list[StageResult]:
    """Trains the stages that are not complete in ``out``, each in a folder of its own, from where they stand.

    So the same call begins a run and, after whatever ended it, goes on with it; with more iterations or time a
    complete run goes on with its last stage. A stage starts from the last checkpoint of the one before (the paper's
    way), not from its best.

    Returns:
        The stages, up to one that a signal stopped.

    Raises:
        FileExistsError: another process trains the stages; nothing is changed.
        FileNotFoundError, ValueError, RuntimeError, OSError: as ``start_run``, ``resume_run`` and ``Trainer.run``.
    """
    out = Path(out)
    if rank() > 0:
        return _run_each(settings, out, quiet)
    with only_run_in(out):
        write_config(out / CONFIG, settings)
        return _run_each(settings, out, quiet)


def _run_each(settings: TrainSettings, out: Path, quiet: bool) -> list[StageResult]:
    results: list[StageResult] = []
    before: Path | None = None
    plan = stage_settings(settings)
    for name, stage in plan.items():
        if before is not None:
            stage = dataclasses.replace(stage, init_from=str(before))
        is_last = len(results) + 1 == len(plan)
        results.append(run_stage(name, stage, out / name, quiet, extend=is_last))
        if results[-1].signal:
            break
        before = out / name / LAST
    return results


def run_stage(
    name: str, settings: TrainSettings, folder: Path, quiet: bool, extend: bool = False
) -> StageResult:
    """Trains one network in its folder from where it stands; one that is complete is left as it is.

    Args:
        extend: go on with a complete one where the settings want more iterations and more time than it had.
    """
    last = folder / LAST
    if last.exists():
        record = load_checkpoint(last)
        is_done = settings.progress(record["iteration"], record["elapsed"]) >= 1
        if record["complete"] and (is_done or not extend):
            confusion, classes = record["confusion"], record["classes"]
            metrics, scores = None, {}
            if confusion is not None:
                metrics = from_confusion(confusion)
                scores = scores_by_task([confusion], classes, record.get("tasks", {}))
            return StageResult(name, record["iteration"], record["elapsed"], metrics, classes, scores=scores)
        del record
        changes = {key: getattr(settings, key) for key, known in SETTINGS.items() if known.resumable}
        trainer = resume_run(last, quiet=quiet, **changes)
    else:
        trainer = start_run(settings, folder, quiet=quiet)
    if not quiet:
        say(f"stage {name}, from iteration {trainer.position.iteration}, in {folder}")
    result = trainer.run()
    return StageResult(
        name,
        result.iteration,
        result.elapsed,
        result.metrics,
        list(trainer.train_set.classes),
        result.signal,
        result.skipped,
        result.scores,
    )


def stages_table(results: Sequence[StageResult]) -> str:
    """A line for each stage: iterations, seconds and the four metrics in per cent."""
    head = f"{'stage':<6} {'iterations':>10} {'seconds':>8}  {'  '.join(NAMES.values())}"
    lines = [head]
    for stage in results:
        numbers = [
            f"{'-' if stage.metrics is None else f'{100 * getattr(stage.metrics, field):.2f} %':>{len(text)}}"
            for field, text in NAMES.items()
        ]
        lines.append(f"{stage.name:<6} {stage.iteration:>10} {stage.elapsed:>8.0f}  {'  '.join(numbers)}")
    return "\n".join(lines)
