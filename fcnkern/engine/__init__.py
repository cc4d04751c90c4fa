"""Training, evaluation and prediction: what the command line does, for programs."""

from fcnkern.engine.checkpoint import load_checkpoint, save_checkpoint
from fcnkern.engine.evaluate import confusion_over, confusions_over
from fcnkern.engine.network import Trained, load_trained, save_trained
from fcnkern.engine.predict import predict_files, predict_image
from fcnkern.engine.recipes import RECIPES, Rates, convert_rate, with_recipe
from fcnkern.engine.released import RELEASED, load_released
from fcnkern.engine.report import (
    Scores,
    metrics_line,
    metrics_record,
    metrics_table,
    scores_by_task,
    scores_record,
    scores_table,
)
from fcnkern.engine.runs import resume_run, start_run
from fcnkern.engine.settings import TrainSettings
from fcnkern.engine.stages import StageResult, run_stages
from fcnkern.engine.step import DivergedError
from fcnkern.engine.trainer import Trainer, TrainResult

__all__ = [
    "RECIPES",
    "RELEASED",
    "DivergedError",
    "Rates",
    "Scores",
    "StageResult",
    "TrainResult",
    "TrainSettings",
    "Trained",
    "Trainer",
    "confusion_over",
    "confusions_over",
    "convert_rate",
    "load_checkpoint",
    "load_released",
    "load_trained",
    "metrics_line",
    "metrics_record",
    "metrics_table",
    "predict_files",
    "predict_image",
    "resume_run",
    "run_stages",
    "save_checkpoint",
    "save_trained",
    "scores_by_task",
    "scores_record",
    "scores_table",
    "start_run",
    "with_recipe",
]
