"""FCN-32s, FCN-16s, FCN-8s and the at-once FCN-8s (Long, Shelhamer, Darrell; CVPR 2015 section 4, PAMI 2017).

Attribute names, state_dict keys and shapes are those of pytorch-fcn. Crop offsets are written out here;
`fcnkern.models.geometry` derives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, overload

import torch
from torch import Tensor, nn

from fcnkern import functional as F
from fcnkern.models.layers import BilinearDeconv2d, ScoreConv2d
from fcnkern.models.vgg import VGG16
from fcnkern.resample import Resample
from fcnkern.weights import LoadReport, transfer_same_names

Upsampling = Literal["fixed", "learned"]


class FCN(VGG16):
    """What the four networks share. A subclass adds its score and upsampling layers and `_fuse`.

    Args:
        n_class: number of classes C.
        width: scales the channels of the body; 1 is the paper's network.
        upsampling: "fixed" keeps the bilinear transposed convolutions as they are, as the authors' code does (they
            stay in the state_dict, without gradient); "learned" trains all of them, from bilinear.

    Raises:
        ValueError: `n_class` < 1, a bad `width`, or an unknown `upsampling`.
    """

    final_layer: ClassVar[str]
    final_stride: ClassVar[int]
    final_offset: ClassVar[int]
    score_fr: ScoreConv2d

    def __init__(self, n_class: int = 21, width: float = 1.0, upsampling: Upsampling = "fixed") -> None:
        super().__init__(width)
        if n_class < 1:
            raise ValueError(f"n_class must be at least 1, got {n_class!r}")
        if upsampling not in ("fixed", "learned"):
            raise ValueError(f"upsampling must be 'fixed' or 'learned', got {upsampling!r}")
        self.n_class = n_class
        self.upsampling = upsampling
        self.score_fr = ScoreConv2d(self.fc7.out_channels, n_class)

    def scores(self, x: Tensor) -> tuple[Tensor, Resample]:
        """Low-resolution scores and the upsampling that takes them to the pixels of `x`.

        Args:
            x: images N,3,H,W, floating point, prepared as `preprocess` says; any H, W >= 1.

        Returns:
            Scores N,C,h,w before the last upsampling, and `Resample.deconv` bound to (H, W). Where the last
            transposed convolution is not fixed bilinear its weight, `final_weight()`, belongs to it.
        """
        pool3, pool4, pool5 = self.pools(x)
        features = self.classify(pool5)
        coarse = F.conv1x1(features, self.score_fr.weight, self.score_fr.bias)
        size = (x.shape[2], x.shape[3])
        resample = Resample.deconv(self.final_stride, self.final_offset, size)
        return self._fuse(coarse, pool4, pool3), resample

    def final_weight(self) -> Tensor | None:
        """Weight (C, C, k, k) of the last upsampling, or None where it is fixed bilinear."""
        return self._deconv(self.final_layer).taps()

    def forward(self, x: Tensor) -> Tensor:
        """Images N,3,H,W -> logits N,C,H,W. For a loss or a label map `loss` and `predict` need far less memory."""
        scores, _ = self.scores(x)
        full = F.upsample_add(scores, self.final_weight(), stride=self.final_stride)
        height, width = x.shape[2], x.shape[3]
        start = self.final_offset
        return full[:, :, start : start + height, start : start + width].contiguous()

    @overload
    def loss(
        self, x: Tensor, labels: Tensor, *, return_stats: Literal[False] = ..., **options: Any
    ) -> Tensor: ...

    @overload
    def loss(
        self, x: Tensor, labels: Tensor, *, return_stats: Literal[True], **options: Any
    ) -> tuple[Tensor, Tensor]: ...

    def loss(self, x: Tensor, labels: Tensor, *, return_stats: bool = False, **options: Any) -> Any:
        """Softmax cross-entropy against labels N,H,W, without full-resolution scores.

        Args:
            x: images N,3,H,W, as for `scores`.
            labels: uint8, int16, int32 or int64.
            return_stats: also return the int64 counts (valid pixels, correctly predicted pixels).
            options: `class_weight`, `ignore_index` (255), `label_smoothing`, `reduction` ("valid"), `sampling` and
                `backend`, as in `fcnkern.functional.upsample_cross_entropy`, which also says what is raised.
        """
        scores, resample = self.scores(x)
        options["return_stats"] = return_stats
        return F.upsample_cross_entropy(scores, labels, resample, weight=self.final_weight(), **options)

    @torch.no_grad()
    def predict(self, x: Tensor, *, out_dtype: torch.dtype = torch.uint8) -> Tensor:
        """Images N,3,H,W -> label map N,H,W, without full-resolution scores. Call `eval()` first: dropout is not
        switched off here.
        """
        scores, resample = self.scores(x)
        return F.upsample_argmax(scores, resample, weight=self.final_weight(), out_dtype=out_dtype)

    def _fuse(self, coarse: Tensor, pool4: Tensor, pool3: Tensor) -> Tensor:
        raise NotImplementedError

    def _new_deconv(self, factor: int) -> BilinearDeconv2d:
        return BilinearDeconv2d(self.n_class, factor, learned=self.upsampling == "learned")

    def _deconv(self, name: str) -> BilinearDeconv2d:
        layer = getattr(self, name)
        assert isinstance(layer, BilinearDeconv2d)
        return layer

    def _skip(
        self,
        coarse: Tensor,
        deconv: BilinearDeconv2d,
        pool: Tensor,
        score: ScoreConv2d,
        offset: int,
        scale: float,
    ) -> Tensor:
        """Upsample `coarse` twofold and add the scores of `pool`, computed only inside the crop."""
        return F.upsample_add(
            coarse,
            deconv.taps(),
            pool,
            stride=2,
            skip_offset=(offset, offset),
            skip_weight=score.weight,
            skip_bias=score.bias,
            skip_scale=scale,
        )


class FCN32s(FCN):
    """One stream: fc7 scores, upsampled 32 times, cropped at 19."""

    final_layer, final_stride, final_offset = "upscore", 32, 19

    def __init__(self, n_class: int = 21, width: float = 1.0, upsampling: Upsampling = "fixed") -> None:
        super().__init__(n_class, width, upsampling)
        self.upscore = self._new_deconv(32)

    def _fuse(self, coarse: Tensor, pool4: Tensor, pool3: Tensor) -> Tensor:
        return coarse


class FCN16s(FCN):
    """Two streams: fc7 scores upsampled twice plus pool4 scores (crop 5), upsampled 16 times, cropped at 27."""

    final_layer, final_stride, final_offset = "upscore16", 16, 27
    pool4_offset: ClassVar[int] = 5

    def __init__(self, n_class: int = 21, width: float = 1.0, upsampling: Upsampling = "fixed") -> None:
        super().__init__(n_class, width, upsampling)
        self.score_pool4 = ScoreConv2d(self.pool_channels(4), n_class)
        self.upscore2 = self._new_deconv(2)
        self.upscore16 = self._new_deconv(16)

    def _fuse(self, coarse: Tensor, pool4: Tensor, pool3: Tensor) -> Tensor:
        return self._skip(coarse, self.upscore2, pool4, self.score_pool4, self.pool4_offset, 1.0)

    def copy_params_from_fcn32s(self, fcn32s: nn.Module | Mapping[str, Any]) -> LoadReport:
        """Start from a trained FCN-32s (a module or a state_dict): body and score_fr; score_pool4 stays as it is.

        Raises:
            ValueError: a layer both have differs in shape, or body or score_fr are missing; nothing is changed then.
        """
        return transfer_same_names(self, fcn32s, required=(*self.body_layers, "score_fr"))


class FCN8s(FCN):
    """Three streams: as FCN-16s, then twice again plus pool3 scores (crop 9), upsampled 8 times, cropped at 31."""

    final_layer, final_stride, final_offset = "upscore8", 8, 31
    pool4_offset: ClassVar[int] = 5
    pool3_offset: ClassVar[int] = 9
    pool4_scale: ClassVar[float] = 1.0
    pool3_scale: ClassVar[float] = 1.0

    def __init__(self, n_class: int = 21, width: float = 1.0, upsampling: Upsampling = "fixed") -> None:
        super().__init__(n_class, width, upsampling)
        self.score_pool3 = ScoreConv2d(self.pool_channels(3), n_class)
        self.score_pool4 = ScoreConv2d(self.pool_channels(4), n_class)
        self.upscore2 = self._new_deconv(2)
        self.upscore8 = self._new_deconv(8)
        self.upscore_pool4 = self._new_deconv(2)

    def _fuse(self, coarse: Tensor, pool4: Tensor, pool3: Tensor) -> Tensor:
        fused = self._skip(
            coarse, self.upscore2, pool4, self.score_pool4, self.pool4_offset, self.pool4_scale
        )
        return self._skip(
            fused, self.upscore_pool4, pool3, self.score_pool3, self.pool3_offset, self.pool3_scale
        )

    def copy_params_from_fcn16s(self, fcn16s: nn.Module | Mapping[str, Any]) -> LoadReport:
        """Start from a trained FCN-16s (a module or a state_dict): body, score_fr, score_pool4 and upscore2.

        score_pool3 stays as it is. The at-once network divides the weight of score_pool4 by its feature scale, so
        that the scores are the same.

        Raises:
            ValueError: a layer both have differs in shape, or one of these is missing; nothing is changed then.
        """
        required = (*self.body_layers, "score_fr", "score_pool4", "upscore2")
        report = transfer_same_names(self, fcn16s, required=required)
        with torch.no_grad():
            self.score_pool4.weight.div_(self.pool4_scale)
        return report


class FCN8sAtOnce(FCN8s):
    """FCN-8s trained in one go: pool4 and pool3 features are scaled by 0.01 and 0.0001 before their classifiers."""

    pool4_scale = 0.01
    pool3_scale = 0.0001
