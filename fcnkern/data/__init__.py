"""Data sets, preprocessing, augmentation, batches and pictures of label maps.

A data set is a sequence of `Sample`s with `classes`, `palette` and `ignore_index`; `open_dataset` opens
one by name.
"""

from fcnkern.data.ade20k import ade20k
from fcnkern.data.augment import Augment
from fcnkern.data.cityscapes import cityscapes
from fcnkern.data.collate import Batch, collate
from fcnkern.data.context import context
from fcnkern.data.files import FileDataset, read_image, read_label
from fcnkern.data.indices import ShuffledIndices
from fcnkern.data.layouts import camvid, folder
from fcnkern.data.loader import eval_batches, prefetch, train_batches
from fcnkern.data.nyud import nyud, read_input
from fcnkern.data.palette import CAMVID_CLASSES, CAMVID_PALETTE, VOC_CLASSES, voc_palette
from fcnkern.data.pipeline import Pipeline, load_pipeline
from fcnkern.data.preprocess import (
    Preprocess,
    channels_of,
    image_dtype,
    preset,
    presets,
    with_depth,
    with_hha,
)
from fcnkern.data.registry import dataset_splits, open_dataset
from fcnkern.data.sample import IGNORE, DataError, Dataset, Sample, wanted_preset
from fcnkern.data.scenes import Scenes
from fcnkern.data.siftflow import siftflow
from fcnkern.data.tasks import Tasks, numbered, tasks_of
from fcnkern.data.visual import colourise, indexed, overlay, sheet, shown
from fcnkern.data.voc import sbd, voc

__all__ = [
    "CAMVID_CLASSES",
    "CAMVID_PALETTE",
    "IGNORE",
    "VOC_CLASSES",
    "Augment",
    "Batch",
    "DataError",
    "Dataset",
    "FileDataset",
    "Pipeline",
    "Preprocess",
    "Sample",
    "Scenes",
    "ShuffledIndices",
    "Tasks",
    "ade20k",
    "camvid",
    "channels_of",
    "cityscapes",
    "collate",
    "colourise",
    "context",
    "dataset_splits",
    "eval_batches",
    "folder",
    "image_dtype",
    "indexed",
    "load_pipeline",
    "numbered",
    "nyud",
    "open_dataset",
    "overlay",
    "prefetch",
    "preset",
    "presets",
    "read_image",
    "read_input",
    "read_label",
    "sbd",
    "sheet",
    "shown",
    "siftflow",
    "tasks_of",
    "train_batches",
    "voc",
    "voc_palette",
    "wanted_preset",
    "with_depth",
    "with_hha",
]
