"""The FCN family: the paper's bodies (VGG16, CaffeNet, AlexNet, GoogLeNet), heads for any body, and their geometry.

`create` makes a network by name, `FCN` puts a head on a body of your own.
"""

from fcnkern.models import alignment, geometry, tracing
from fcnkern.models.alexnet import AlexNet, CaffeNet
from fcnkern.models.body import Body
from fcnkern.models.density import rarefy, shift_and_stitch
from fcnkern.models.fcn import FCN
from fcnkern.models.fcn_vgg16 import FCN8s, FCN8sAtOnce, FCN16s, FCN32s
from fcnkern.models.fusion import LateFusion, MultiTask, Segmenter
from fcnkern.models.googlenet import GoogLeNet
from fcnkern.models.registry import create, create_late, list_late, list_models
from fcnkern.models.surgery import convolutionalize, fuse_early, transplant
from fcnkern.models.vgg import VGG16

__all__ = [
    "FCN",
    "VGG16",
    "AlexNet",
    "Body",
    "CaffeNet",
    "FCN8s",
    "FCN8sAtOnce",
    "FCN16s",
    "FCN32s",
    "GoogLeNet",
    "LateFusion",
    "MultiTask",
    "Segmenter",
    "alignment",
    "convolutionalize",
    "create",
    "create_late",
    "fuse_early",
    "geometry",
    "list_late",
    "list_models",
    "rarefy",
    "shift_and_stitch",
    "tracing",
    "transplant",
]
