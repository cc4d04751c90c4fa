"""Pretrained weights from local files: no downloads, no unpickling of code."""

from fcnkern.weights.readers import read_tensors
from fcnkern.weights.transfer import LoadReport, transfer_same_names, transfer_vgg16
from fcnkern.weights.vgg16 import load_vgg16

__all__ = ["LoadReport", "load_vgg16", "read_tensors", "transfer_same_names", "transfer_vgg16"]
