"""FCN-32s, FCN-16s, FCN-8s and the at-once FCN-8s on VGG16 (Long, Shelhamer, Darrell; CVPR 2015, PAMI 2017).

Attribute names, state_dict keys and shapes are those of pytorch-fcn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from fcnkern.models.body import Body
from fcnkern.models.fcn import FCN, Upsampling
from fcnkern.models.vgg import VGG16
from fcnkern.weights import LoadReport


class FCNVGG16(FCN, VGG16):
    """What the four networks share. The network is its own body, so that the names of its layers have no prefix.

    Args:
        n_class: number of classes C.
        width: scales the channels of the body; 1 is the paper's network.
        upsampling: "fixed" keeps the bilinear transposed convolutions as they are, as the authors' code does (they
            stay in the state_dict, without gradient); "learned" trains all of them, from bilinear.
        in_channels: of the images.
        elide: compute only what the images influence, of the margin that conv1_1 pads with; see `FCN.elide`.

    Raises:
        ValueError: `n_class` < 1, a bad `width` or `in_channels`, or an unknown `upsampling`.
    """

    preprocess: str = "torchvision"
    tapped: ClassVar[tuple[str, ...]]
    tap_scales: ClassVar[tuple[float, ...]]

    def __init__(
        self,
        n_class: int = 21,
        width: float = 1.0,
        upsampling: Upsampling = "fixed",
        in_channels: int = 3,
        elide: bool = False,
    ) -> None:
        VGG16.__init__(self, width, in_channels=in_channels)
        self._attach_head(
            self.tapped, n_class, upsampling, self.tap_scales, in_channels=in_channels, elide=elide
        )

    @property
    def body(self) -> Body:  # type: ignore[override]
        """The network itself."""
        return self


class FCN32s(FCNVGG16):
    """One stream: fc7 scores, upsampled 32 times, cropped at 19."""

    final_layer, final_stride, final_offset = "upscore", 32, 19
    tapped, tap_scales = ("fc7",), ()


class FCN16s(FCNVGG16):
    """Two streams: fc7 scores upsampled twice plus pool4 scores (crop 5), upsampled 16 times, cropped at 27."""

    final_layer, final_stride, final_offset = "upscore16", 16, 27
    pool4_offset: ClassVar[int] = 5
    tapped, tap_scales = ("pool4", "fc7"), (1.0,)

    def copy_params_from_fcn32s(self, fcn32s: nn.Module | Mapping[str, Any]) -> LoadReport:
        """Start from a trained FCN-32s (a module or a state_dict): body and score_fr; score_pool4 stays as it is.

        Raises:
            ValueError: a layer both have differs in shape, or body or score_fr are missing; nothing is changed then.
        """
        return self.copy_params_from(fcn32s)


class FCN8s(FCNVGG16):
    """Three streams: as FCN-16s, then twice again plus pool3 scores (crop 9), upsampled 8 times, cropped at 31."""

    final_layer, final_stride, final_offset = "upscore8", 8, 31
    pool4_offset: ClassVar[int] = 5
    pool3_offset: ClassVar[int] = 9
    pool4_scale: ClassVar[float] = 1.0
    pool3_scale: ClassVar[float] = 1.0
    tapped, tap_scales = ("pool3", "pool4", "fc7"), (1.0, 1.0)

    def copy_params_from_fcn16s(self, fcn16s: nn.Module | Mapping[str, Any]) -> LoadReport:
        """Start from a trained FCN-16s (a module or a state_dict): body, score_fr, score_pool4 and upscore2.

        score_pool3 stays as it is. The at-once network divides the weight of score_pool4 by its feature scale, so
        that the scores are the same.

        Raises:
            ValueError: a layer both have differs in shape, or one of these is missing; nothing is changed then.
        """
        return self.copy_params_from(fcn16s)


class FCN8sAtOnce(FCN8s):
    """FCN-8s trained in one go: pool4 and pool3 features are scaled by 0.01 and 0.0001 before their classifiers."""

    pool4_scale = 0.01
    pool3_scale = 0.0001
    tap_scales = (0.0001, 0.01)
