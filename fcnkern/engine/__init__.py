"""Training, evaluation and prediction: what the command line does, for programs."""

from fcnkern.engine.checkpoint import load_checkpoint, save_checkpoint
from fcnkern.engine.evaluate import confusion_over, confusions_over
from fcnkern.engine.network import Trained, load_trained
from fcnkern.engine.predict import predict_files, predict_image
from fcnkern.engine.report import metrics_line, metrics_record, metrics_table
from fcnkern.engine.runs import resume_run, start_run
from fcnkern.engine.settings import TrainSettings
from fcnkern.engine.trainer import Trainer, TrainResult

__all__ = [
    "TrainResult",
    "TrainSettings",
    "Trained",
    "Trainer",
    "confusion_over",
    "confusions_over",
    "load_checkpoint",
    "load_trained",
    "metrics_line",
    "metrics_record",
    "metrics_table",
    "predict_files",
    "predict_image",
    "resume_run",
    "save_checkpoint",
    "start_run",
]
