"""Two networks for one prediction, one network for several: the paper's nets for NYUDv2 and SIFT Flow (section 5).

For the third, four channels into one network, see `fcnkern.models.surgery.fuse_early`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fcnkern import functional as F
from fcnkern.models.alignment import Alignment
from fcnkern.models.averaging import averaged_probabilities, of_copies
from fcnkern.models.body import Network
from fcnkern.models.fcn import FCN
from fcnkern.models.tiling import tiled
from fcnkern.resample import Pair, Resample


class LateFusion(Network):
    """Two networks side by side, whose scores are averaged before the last upsampling: late fusion of RGB and HHA.

    After the authors' nyud-fcn32s-color-hha, which takes both networks trained, each on its own input, and trains
    them on together. As that upsampling is bilinear, the logits are the average of both networks' logits.

        late = LateFusion(color, hha)
        loss = late.loss(torch.cat([images, hha_images], dim=1), labels)

    Args:
        color, hha: networks with the same classes, strides and crops, and fixed bilinear upsampling at their end.
        weights: of their scores; the authors' 0.5, 0.5.

    Attributes:
        taps, alignment: of both networks.

    Raises:
        ValueError: networks that do not fit together, or weights that are not two finite numbers.
    """

    def __init__(self, color: FCN, hha: FCN, weights: Sequence[float] = (0.5, 0.5)) -> None:
        super().__init__()
        for name in ("n_class", "alignment"):
            ours, theirs = getattr(color, name), getattr(hha, name)
            if ours != theirs:
                raise ValueError(f"color and hha must have the same {name}, they have {ours} and {theirs}")
        if len(weights) != 2 or not all(map(math.isfinite, weights)):
            raise ValueError(f"weights must be two finite numbers, got {tuple(weights)!r}")
        for name, net in (("color", color), ("hha", hha)):
            _check_bilinear(name, net)
        self.color, self.hha, self.weights = color, hha, tuple(weights)
        self.n_class, self.taps, self.alignment = color.n_class, color.taps, color.alignment
        self._in_channels = color._in_channels + hha._in_channels
        self.training = color.training or hha.training

    @property
    def preprocess(self) -> str:
        """Names of both networks' presets for input images, joined by "+"."""
        return f"{self.color.preprocess}+{self.hha.preprocess}"

    @preprocess.setter
    def preprocess(self, name: str) -> None:
        names = name.split("+")
        if len(names) != 2:
            raise ValueError(f"preprocess must be two presets joined by '+', got {name!r}")
        self.color.preprocess, self.hha.preprocess = names

    def scores(self, x: Tensor) -> tuple[Tensor, Resample]:
        """Low-resolution scores, averaged, and the upsampling that takes them to the pixels of `x`.

        Args:
            x: N,C,H,W: the channels that `color` takes, then those that `hha` takes.

        Raises:
            ValueError: another number of channels; a network was given another last upsampling than bilinear since.
        """
        return self.streams(x)[0]

    def streams(
        self, x: Tensor, alone: Mapping[str, Alignment] | None = None
    ) -> list[tuple[Tensor, Resample]]:
        """`scores` of `x`, and behind them those of each tap in `alone`, averaged too, as `FCN.streams`."""
        images, hha = self._split(x)
        for name, net in (("color", self.color), ("hha", self.hha)):
            _check_bilinear(name, net)
        pairs = zip(self.color.streams(images, alone), self.hha.streams(hha, alone), strict=True)
        first, second = self.weights
        return [(first * ours + second * theirs, resample) for (ours, resample), (theirs, _) in pairs]

    def stream_alignments(self) -> dict[str, Alignment]:
        """As `FCN.stream_alignments`, the same for both networks."""
        return self.color.stream_alignments()

    def final_weight(self) -> None:
        """As `FCN.final_weight`: the last upsampling is fixed bilinear."""

    def forward(self, x: Tensor) -> Tensor:
        """Images N,C,H,W, as for `scores` -> logits N,K,H,W; `loss` and `predict` need far less memory."""
        images, hha = self._split(x)
        return self.weights[0] * self.color(images) + self.weights[1] * self.hha(hha)

    def loss(self, x: Tensor, labels: Tensor, **options: Any) -> Any:
        """Softmax cross-entropy against labels N,H,W, as `FCN.loss`."""
        scores, resample = self.scores(x)
        return F.upsample_cross_entropy(scores, labels, resample, **options)

    @torch.no_grad()
    def predict(
        self,
        x: Tensor,
        *,
        out_dtype: torch.dtype = torch.uint8,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        tile: int | Pair | None = None,
    ) -> Tensor:
        """Images N,C,H,W, as for `scores` -> label map N,H,W, as `FCN.predict`."""
        several = of_copies(scales, flip, tile)
        if tile is not None:
            self._split(x)
            one = partial(self.predict, out_dtype=out_dtype)
            return tiled(one, x, tile, self.alignment, self.color.score_fr.weight.device, out_dtype)
        if torch.compiler.is_exporting():
            return self(x).argmax(1).to(out_dtype)
        if not several:
            scores, resample = self.scores(x)
        else:
            scores, resample = averaged_probabilities(self, x, scales, flip), Resample.identity()
        return F.upsample_argmax(scores, resample, out_dtype=out_dtype)

    def body_parameters(self) -> Iterator[nn.Parameter]:
        """As `FCN.body_parameters`, of both networks."""
        yield from self.color.body_parameters()
        yield from self.hha.body_parameters()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """As `FCN.head_parameters`, of both networks."""
        yield from self.color.head_parameters()
        yield from self.hha.head_parameters()

    def check_ready(self) -> None:
        """As `Network.check_ready`, of both networks."""
        self.color.check_ready()
        self.hha.check_ready()

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = self.color._in_channels, self.hha._in_channels
        if x.dim() != 4 or x.shape[1] != self._in_channels:
            raise ValueError(
                f"x must have shape (N, {self._in_channels}, H, W), {first} channels for color and {second} for hha, "
                f"got {tuple(x.shape)}"
            )
        return x[:, :first], x[:, first:]


Segmenter = FCN | LateFusion
"""A network that gives one label map: what the engine trains and uses."""


class MultiTask(Network):
    """Several heads on one body, as the paper's nets for SIFT Flow have: semantic and geometric classes.

    The heads are the classes of one FCN, in order: its classifiers have the channels of all heads, and each step of
    the decoder runs once for all of them.

        net = MultiTask(create("fcn16s", classes=33 + 3), {"semantic": 33, "geometric": 3})
        loss = net.loss(x, {"semantic": labels, "geometric": horizon})

    Args:
        net: a network with fixed bilinear upsampling, as many classes as the heads have in all.
        heads: names and numbers of classes.

    Raises:
        ValueError: numbers of classes that do not sum up to the network's, or are below 1; learned upsampling, which
            would mix the heads.
    """

    def __init__(self, net: Segmenter, heads: Mapping[str, int]) -> None:
        super().__init__()
        if sum(heads.values()) != net.n_class or min(heads.values()) < 1:
            raise ValueError(
                f"heads must have at least one class each and net's {net.n_class} in all, got {dict(heads)}"
            )
        _check_bilinear("net", net)
        self.net, self.heads = net, dict(heads)
        self._in_channels, self.training = net._in_channels, net.training

    @property
    def body(self) -> nn.Module:
        """The body that all heads share; of late fusion both networks."""
        return self.net.body if isinstance(self.net, FCN) else self.net

    @property
    def preprocess(self) -> str:
        """Name of the preset for input images."""
        return self.net.preprocess

    @preprocess.setter
    def preprocess(self, name: str) -> None:
        self.net.preprocess = name

    def scores(self, x: Tensor) -> tuple[dict[str, Tensor], Resample]:
        """Low-resolution scores N,C,h,w of each head by name, and the upsampling to the pixels of `x`.

        Args:
            x: images N,3,H,W, as for `FCN.scores`.

        Raises:
            ValueError: the network was given another last upsampling than bilinear since.
        """
        _check_bilinear("net", self.net)
        scores, resample = self.net.scores(x)
        return self._by_head(scores), resample

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images N,3,H,W -> logits N,C,H,W of each head; for a loss or label maps `loss` and `predict` need less."""
        return self._by_head(self.net(x))

    def losses(
        self,
        x: Tensor,
        labels: Mapping[str, Tensor],
        *,
        class_weight: Mapping[str, Tensor] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Softmax cross-entropy of each head by name.

        Args:
            x: images N,3,H,W.
            labels: N,H,W of each head.
            class_weight: of some heads.
            options: those of `FCN.loss`; with `return_stats` each head has a loss and counts.

        Raises:
            ValueError: labels that are not those of the heads; class weights of no head.
        """
        weights = class_weight or {}
        if set(labels) != set(self.heads) or not set(weights) <= set(self.heads):
            raise ValueError(
                f"labels must be those of the heads {', '.join(self.heads)}, and class_weight of some of them, got "
                f"labels of {', '.join(labels)} and weights of {', '.join(weights) or 'none'}"
            )
        scores, resample = self.scores(x)
        return {
            name: F.upsample_cross_entropy(
                each, labels[name], resample, class_weight=weights.get(name), **options
            )
            for name, each in scores.items()
        }

    def loss(self, x: Tensor, labels: Mapping[str, Tensor], **options: Any) -> Tensor:
        """The sum of `losses`, each with weight 1, as the authors train; no `return_stats`."""
        return torch.stack(list(self.losses(x, labels, **options).values())).sum()

    @torch.no_grad()
    def predict(
        self,
        x: Tensor,
        *,
        out_dtype: torch.dtype = torch.uint8,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        tile: int | Pair | None = None,
    ) -> dict[str, Tensor]:
        """Images N,3,H,W -> label map N,H,W of each head by name, as `FCN.predict`; call `eval()` first.

        With `scales`, `flip` or `tile` the network runs once for each head.
        """
        if torch.compiler.is_exporting():
            return {name: each.argmax(1).to(out_dtype) for name, each in self(x).items()}
        several = of_copies(scales, flip, tile)
        if tile is not None:
            device = next(self.net.parameters()).device
            ones = {name: partial(self._labels, name, out_dtype) for name in self.heads}
            return {
                name: tiled(one, x, tile, self.net.alignment, device, out_dtype) for name, one in ones.items()
            }
        if several:
            return {
                name: F.upsample_argmax(
                    averaged_probabilities(partial(self._logits, name), x, scales, flip),
                    Resample.identity(),
                    out_dtype=out_dtype,
                )
                for name in self.heads
            }
        scores, resample = self.scores(x)
        return {name: F.upsample_argmax(each, resample, out_dtype=out_dtype) for name, each in scores.items()}

    def _labels(self, name: str, out_dtype: torch.dtype, x: Tensor) -> Tensor:
        return self.predict(x, out_dtype=out_dtype)[name]

    def _logits(self, name: str, x: Tensor) -> Tensor:
        return self(x)[name]

    def check_ready(self) -> None:
        """As `Network.check_ready`."""
        self.net.check_ready()

    def _by_head(self, scores: Tensor) -> dict[str, Tensor]:
        parts = scores.split(list(self.heads.values()), 1)
        # Whether a part is contiguous depends on the sizes, which the question would pin in an exported program.
        if not torch.compiler.is_exporting():
            parts = tuple(part.contiguous() for part in parts)
        return dict(zip(self.heads, parts, strict=True))


def _check_bilinear(name: str, net: Segmenter) -> None:
    if isinstance(net, FCN) and net.final_weight() is not None:
        raise ValueError(
            f"the last upsampling of {name}, {net.final_layer}, must be fixed bilinear: it is "
            f"{'learned' if net.upsampling == 'learned' else 'another one'}"
        )
