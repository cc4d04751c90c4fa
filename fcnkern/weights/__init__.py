"""Pretrained weights from local files: no downloads, no unpickling of code."""

from fcnkern.weights.body import load_body
from fcnkern.weights.caffe import CaffeLayer, CaffeNetwork, read_caffemodel
from fcnkern.weights.conventions import disagreements, fold_first_layer
from fcnkern.weights.convert import Conversion, convert, fold_input
from fcnkern.weights.files import load, save, sha256_of
from fcnkern.weights.mismatch import WeightsMismatchError
from fcnkern.weights.transfer import LoadReport, transfer_body, transfer_network, transfer_same_names

__all__ = [
    "CaffeLayer",
    "CaffeNetwork",
    "Conversion",
    "LoadReport",
    "WeightsMismatchError",
    "convert",
    "disagreements",
    "fold_first_layer",
    "fold_input",
    "load",
    "load_body",
    "read_caffemodel",
    "save",
    "sha256_of",
    "transfer_body",
    "transfer_network",
    "transfer_same_names",
]
