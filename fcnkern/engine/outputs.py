"""All that a training run writes: checkpoints, the log and, on request, TensorBoard's events."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnkern.engine.checkpoint import LAST, save_checkpoint
from fcnkern.engine.config import CONFIG, write_config
from fcnkern.engine.distributed import rank, wait_for_all
from fcnkern.engine.log import CsvLog
from fcnkern.engine.settings import TrainSettings
from fcnkern.metrics import Metrics

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

BEST, LOG, EVENTS = "best.pt", "log.csv", "events"


class Outputs:
    """Writes into the folder ``out``: ``last.pt``, ``best.pt``, ``log.csv``, ``config.toml`` and, on request,
    ``events/`` for TensorBoard.

    Nothing is written before the first call; ``close`` may be followed by further calls. Of several processes, rank 0
    writes; the others return from ``save`` once that is done.

    Raises:
        RuntimeError: TensorBoard is asked for and not installed.
    """

    def __init__(self, out: Path, *, tensorboard: bool = False) -> None:
        self.out = out
        self._writer_type = _summary_writer() if tensorboard else None
        self._log: CsvLog | None = None
        self._events: SummaryWriter | None = None

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.out / LAST

    @property
    def best(self) -> Path:
        """The checkpoint of best validation mean IU."""
        return self.out / BEST

    def save(self, path: Path, record: dict[str, Any]) -> None:
        """Writes a checkpoint, once the events until then are on the disk; where that fails the previous one stays.

        Raises:
            OSError: naming the file.
        """
        if rank() == 0:
            if self._events is not None:
                self._events.flush()
            save_checkpoint(path, record)
        wait_for_all()

    def open(self, iteration: int, settings: TrainSettings, validates: bool = False) -> None:
        """Writes the settings and begins the log after ``iteration``: what it holds of later ones comes again.

        With ``validates`` the validation at ``iteration`` comes again too.
        """
        if rank() > 0:
            return
        write_config(self.out / CONFIG, settings)
        self._log = CsvLog(self.out / LOG, iteration, validates)
        if self._writer_type is not None:
            self._events = self._writer_type(str(self.out / EVENTS), purge_step=iteration + 1)

    def step(self, iteration: int, elapsed: float, **numbers: float) -> None:
        """Logs an iteration: ``loss``, ``pixel_loss``, ``accuracy``, ``lr``."""
        self._write("train", iteration, elapsed, numbers)

    def metrics(self, iteration: int, elapsed: float, metrics: Metrics, task: str | None = None) -> None:
        """Logs a validation, of one of several tasks as the split ``val TASK``."""
        numbers = {
            "accuracy": metrics.pixel_accuracy,
            "mean_accuracy": metrics.mean_accuracy,
            "mean_iu": metrics.mean_iu,
            "fw_iu": metrics.fw_iu,
        }
        self._write("val" if task is None else f"val {task}", iteration, elapsed, numbers)

    def _write(self, split: str, iteration: int, elapsed: float, numbers: dict[str, float]) -> None:
        if rank() > 0:
            return
        assert self._log is not None
        self._log.write(iteration=iteration, split=split, elapsed=round(elapsed, 3), **numbers)
        if self._events is not None:
            for name, value in numbers.items():
                self._events.add_scalar(f"{split}/{name}", value, iteration)

    def close(self) -> None:
        """Ends the log."""
        for file in (self._log, self._events):
            if file is not None:
                file.close()


def _summary_writer() -> type[SummaryWriter]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RuntimeError(
            f"tensorboard is not installed ({error}): pip install tensorboard, or do without --tensorboard: "
            f"{LOG} has the same numbers"
        ) from error
    return SummaryWriter
