"""A network with a head of PyTorch's own modules on its body: what a user would write, for any body."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from fcnkern.models import FCN
from fcnkern.models.body import HiddenBody
from fcnkern.models.layers import CaffeLRN
from fcnkern.nn import MaxPool2d


class StockFCN(nn.Module):
    """The same function as an `fcnkern.models.FCN`: dense transposed convolutions, full-resolution scores.

    The body is a copy, in which PyTorch's own normalisation, max pooling and 1x1 convolution take the place of ours.

    Args:
        like: the network whose layers and parameters it takes over; its upsampling is fixed.
    """

    def __init__(self, like: FCN) -> None:
        super().__init__()
        self.body = _with_stock_layers(copy.deepcopy(like.body))
        if isinstance(self.body, HiddenBody):
            object.__setattr__(self.body, "classify", partial(_classify, self.body))
        self._taps, self._steps, self._start = like.taps, like.alignment.steps, like.final_offset
        names = ["score_fr", *(f"score_{tap}" for tap in reversed(like.taps[:-1]))]
        self.scores = nn.ModuleList(_conv(like.get_submodule(name)) for name in names)
        deconvs = [*like._step_layers, like.final_layer]
        self.upscores = nn.ModuleList(_deconv(like.get_submodule(name)) for name in deconvs)

    def trunk(self, x: Tensor) -> list[Tensor]:
        """The maps that are scored, coarsest first."""
        features = self.body.features(x)  # type: ignore[operator]
        return [features[tap] for tap in reversed(self._taps)]

    def head(self, maps: Sequence[Tensor]) -> Tensor:
        """Their scores, upsampled and summed, at the finest stride."""
        h: Tensor = self.scores[0](maps[0])
        skips = zip(maps[1:], self.scores[1:], self.upscores[:-1], self._steps, strict=True)
        for features, score, upscore, step in skips:
            h, skip = upscore(h), score(features)
            begins = max(0, -step.offset)
            skip = skip[:, :, max(0, step.offset) :, max(0, step.offset) :]
            height, width = (min(h.shape[d] - begins, skip.shape[d]) for d in (2, 3))
            h = h[:, :, begins : begins + height, begins : begins + width] + skip[:, :, :height, :width]
        return h

    def upsample(self, scores: Tensor, size: Sequence[int]) -> Tensor:
        """Scores at the finest stride -> logits N,C,H,W."""
        start, (height, width) = self._start, size
        full: Tensor = self.upscores[-1](scores)
        return full[:, :, start : start + height, start : start + width].contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """Images N,3,H,W -> logits N,C,H,W."""
        return self.upsample(self.head(self.trunk(x)), x.shape[2:])

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Images N,3,H,W -> label map N,H,W, int64."""
        labels: Tensor = self(x).argmax(1)
        return labels


def _classify(body: HiddenBody, pool5: Tensor) -> Tensor:
    hidden = body.drop6(body.relu6(body.fc6(pool5)))
    features: Tensor = body.drop7(body.relu7(body.fc7(hidden)))
    return features


def _conv(layer: nn.Module) -> nn.Conv2d:
    own = nn.Conv2d(layer.in_channels, layer.out_channels, 1)  # type: ignore[arg-type]
    own.load_state_dict(layer.state_dict())
    return own


def _deconv(layer: nn.Module) -> nn.ConvTranspose2d:
    channels, kernel, stride = layer.in_channels, layer.kernel_size, layer.stride
    own = nn.ConvTranspose2d(channels, channels, kernel, stride=stride, bias=False)  # type: ignore[arg-type]
    own.load_state_dict(layer.state_dict())
    return own.requires_grad_(False)


def _with_stock_layers(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, CaffeLRN):
            setattr(module, name, nn.LocalResponseNorm(child.channels, child.alpha))
        elif isinstance(child, MaxPool2d):
            own = nn.MaxPool2d(child.kernel_size, child.stride, child.padding, ceil_mode=child.ceil_mode)
            setattr(module, name, own)
        else:
            _with_stock_layers(child)
    return module
