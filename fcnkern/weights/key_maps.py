"""What VGG16's layers are called elsewhere."""

from __future__ import annotations

_TORCHVISION_FEATURES = {
    0: "conv1_1",
    2: "conv1_2",
    5: "conv2_1",
    7: "conv2_2",
    10: "conv3_1",
    12: "conv3_2",
    14: "conv3_3",
    17: "conv4_1",
    19: "conv4_2",
    21: "conv4_3",
    24: "conv5_1",
    26: "conv5_2",
    28: "conv5_3",
}
_TORCHVISION_CLASSIFIER = {0: "fc6", 3: "fc7", 6: "fc8"}
_LAYERS = {f"features.{index}": name for index, name in _TORCHVISION_FEATURES.items()}
_LAYERS |= {f"classifier.{index}": name for index, name in _TORCHVISION_CLASSIFIER.items()}


def canonical_name(key: str) -> str:
    """This package's (Caffe's, pytorch-fcn's) name of a VGG16 parameter: "features.0.weight" -> "conv1_1.weight".

    A leading "module." of DataParallel is dropped; names that are not torchvision's are returned as they are.
    """
    layer, _, kind = key.removeprefix("module.").rpartition(".")
    return f"{_LAYERS.get(layer, layer)}.{kind}"
