"""Data sets, preprocessing, augmentation, batches and pictures of label maps.

A data set is a sequence of `Sample`s with `classes`, `palette` and `ignore_index`; `open_dataset` opens
one by name.
"""

from fcnkern.data.augment import Augment
from fcnkern.data.collate import Batch, collate
from fcnkern.data.files import FileDataset, read_image, read_label
from fcnkern.data.indices import ShuffledIndices
from fcnkern.data.layouts import camvid, folder
from fcnkern.data.loader import eval_batches, prefetch, train_batches
from fcnkern.data.palette import CAMVID_CLASSES, CAMVID_PALETTE, voc_palette
from fcnkern.data.preprocess import Preprocess, preset, presets
from fcnkern.data.registry import open_dataset
from fcnkern.data.sample import IGNORE, DataError, Dataset, Sample
from fcnkern.data.scenes import Scenes
from fcnkern.data.visual import colourise, indexed, overlay, sheet

__all__ = [
    "CAMVID_CLASSES",
    "CAMVID_PALETTE",
    "IGNORE",
    "Augment",
    "Batch",
    "DataError",
    "Dataset",
    "FileDataset",
    "Preprocess",
    "Sample",
    "Scenes",
    "ShuffledIndices",
    "camvid",
    "collate",
    "colourise",
    "eval_batches",
    "folder",
    "indexed",
    "open_dataset",
    "overlay",
    "prefetch",
    "preset",
    "presets",
    "read_image",
    "read_label",
    "sheet",
    "train_batches",
    "voc_palette",
]
