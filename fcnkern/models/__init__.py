"""The FCN family: VGG16 body, FCN-32s, FCN-16s, FCN-8s and FCN-8s at once; and the geometry behind their crops."""

from fcnkern.models import geometry
from fcnkern.models.fcn import FCN, FCN8s, FCN8sAtOnce, FCN16s, FCN32s
from fcnkern.models.vgg import VGG16

__all__ = ["FCN", "VGG16", "FCN8s", "FCN8sAtOnce", "FCN16s", "FCN32s", "geometry"]
