"""Colours of classes."""

from __future__ import annotations

import numpy as np


def voc_palette(count: int = 256) -> np.ndarray:
    """PASCAL VOC's colours of classes 0..count-1, uint8 (count, 3), RGB.

    The rule of the VOC development kit: bits 0, 1, 2 of the index become the top bits of R, G, B, the next
    three bits the second highest, and so on (1 -> 128,0,0; 15 -> 192,128,128; 255 -> 224,224,192).

    Raises: ValueError if count is not in 1..256.
    """
    if not 1 <= count <= 256:
        raise ValueError(f"count is {count}, wanted 1 to 256 colours")
    index = np.arange(count)
    colours = np.zeros((count, 3), np.uint8)
    for level in range(3):
        for channel in range(3):
            bit = index >> (3 * level + channel) & 1
            colours[:, channel] |= (bit << (7 - level)).astype(np.uint8)
    return colours


VOID_COLOUR = (224, 224, 192)
"""Colour of pixels without a class: VOC's colour of label 255."""

CAMVID_CLASSES = [
    "sky", "building", "pole", "road", "pavement", "tree", "sign_symbol", "fence", "car", "pedestrian",
    "bicyclist",
]  # fmt: skip
"""SegNet's 11 classes of CamVid, in its order."""

CAMVID_PALETTE = np.array(
    [
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ],
    np.uint8,
)  # fmt: skip
"""Colours of SegNet's script for them, RGB."""

VOC_CLASSES = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip
"""PASCAL VOC's 20 classes and the background, in its order."""
