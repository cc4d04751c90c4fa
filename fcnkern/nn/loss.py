"""The loss as a module."""

from __future__ import annotations

from torch import Tensor, nn

from fcnkern.functional import upsample_cross_entropy
from fcnkern.ops.upsample_cross_entropy import Reduction
from fcnkern.resample import Resample
from fcnkern.sampling import Sampling


class UpsampleCrossEntropyLoss(nn.Module):
    """`fcnkern.upsample_cross_entropy` with its settings: in place of an upsampling and ``nn.CrossEntropyLoss``.

    Args:
        resample: how scores become the target's size; `Resample.half_pixel()` stands for
            ``F.interpolate(mode="bilinear", align_corners=False)``.
        class_weight: C weights, kept as a buffer.
        ignore_index, label_smoothing, reduction, sampling: as in the function. A sampling without a seed draws a
            new one from torch's generator at each call.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        resample: Resample | None = None,
        class_weight: Tensor | None = None,
        ignore_index: int = 255,
        label_smoothing: float = 0.0,
        reduction: Reduction = "valid",
        sampling: Sampling | None = None,
    ) -> None:
        super().__init__()
        self.resample = Resample.half_pixel() if resample is None else resample
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.reduction = reduction
        self.sampling = sampling
        self.register_buffer("class_weight", class_weight)

    def forward(self, scores: Tensor, target: Tensor) -> Tensor:
        """N×C×h×w scores and N×H×W labels to the loss."""
        return upsample_cross_entropy(
            scores,
            target,
            self.resample,
            class_weight=self.class_weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
            sampling=self.sampling,
        )

    def extra_repr(self) -> str:
        """Settings for ``print``."""
        return f"{self.resample.spec}, ignore_index={self.ignore_index}, reduction={self.reduction!r}"
