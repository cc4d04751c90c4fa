"""The FCN head on any body: scores of several feature maps, upsampled and summed (CVPR 2015 section 4.2).

Crop offsets and kernels come from the traced body (`fcnkern.models.alignment`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from numbers import Integral
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from fcnkern import functional as F
from fcnkern.models import portable
from fcnkern.models.alignment import Alignment, Step, align
from fcnkern.models.averaging import averaged_probabilities, of_copies
from fcnkern.models.body import Body, Chain, Network, Taps, check_images, parameter_layers
from fcnkern.models.elision import elided_features
from fcnkern.models.elision_chain import chain_of, geometry
from fcnkern.models.layers import BilinearDeconv2d, ScoreConv2d
from fcnkern.models.names import score_name, upscore_names
from fcnkern.models.skip import add_skip, score, upsample
from fcnkern.models.tiling import tiled
from fcnkern.models.tracing import trace
from fcnkern.resample import Pair, Resample
from fcnkern.weights import LoadReport, transfer_same_names

Upsampling = Literal["fixed", "learned"]


class FCN(Network):
    """A fully convolutional network on any body: FCN-32s with one tap, 16s with two, 8s with three.

    Each tap gets a 1x1 classifier that starts at zero. The scores of the coarsest are upsampled to the grid of the
    next, summed, and so on; the last upsampling goes to the pixels of the image. Where the maps lie, and so every
    kernel and crop, is found by tracing the body once. Images too small for the body are padded with zeros at the
    bottom and on the right.

        fcn = FCN(resnet, taps=("layer2", "layer3", "layer4"), classes=21)

    Args:
        body: a `Body` of this package, or any module. It becomes `fcn.body`.
        taps: one or more names of feature maps, in any order: of a `Body` among its `tap_names` (default: all), of
            another module its submodules, whose outputs are taken, or keys of the mapping that it returns. What is
            computed behind the coarsest tap is computed for nothing. A tap must not be changed in place later.
        classes: number of classes C.
        upsampling: "fixed" keeps the bilinear transposed convolutions as they are, as the authors' code does (they
            stay in the state_dict, without gradient); "learned" trains all of them, from bilinear.
        scales: factor on the features of each tap but the coarsest, finest first (the at-once FCN-8s has 0.0001 and
            0.01); default 1.
        pad: zeros around the image, on every side, before the body.
        in_channels: of the images.
        elide: compute only what the images influence, of bodies that are one chain of layers; see the attribute.

    Attributes:
        alignment: kernels, crops, stride, receptive field and smallest image; see `Alignment`.
        taps: names of the taps, finest first.
        final_layer, final_stride, final_offset: name, factor and crop of the last upsampling.

    The layers of the head: `score_fr` (coarsest tap) and `score_<tap>`; `upscore2` (the first upsampling, by 2) and
    `upscore_<tap>` (of the sum with that tap); `upscore<final stride>`, or `upscore` with one tap. Dots in the name
    of a tap become underscores. Layers with hooks, and classifiers replaced by other modules, are called as modules;
    of the last upsampling that is so in `forward` alone, as `loss` and `predict` never form its output.

    Raises:
        ValueError: an argument out of range; an unknown tap; or taps that do not line up, with the reason.
    """

    n_class: int
    upsampling: Upsampling
    alignment: Alignment
    taps: tuple[str, ...]
    final_layer: str
    final_stride: int
    final_offset: int
    score_fr: ScoreConv2d
    _features: Taps
    _pad: int
    _in_channels: int
    _elide = False

    def __init__(
        self,
        body: nn.Module,
        taps: str | Sequence[str] | None = None,
        classes: int = 21,
        *,
        upsampling: Upsampling = "fixed",
        scales: Sequence[float] | None = None,
        pad: int = 0,
        in_channels: int = 3,
        elide: bool = False,
    ) -> None:
        super().__init__()
        if taps is None:
            if not isinstance(body, Body):
                raise ValueError(f"taps must name feature maps of the {type(body).__name__}, got None")
            taps = body.tap_names
        taps = (taps,) if isinstance(taps, str) else taps
        self.body = body
        self._attach_head(taps, classes, upsampling, scales, pad, in_channels, elide)

    @property
    def elide(self) -> bool:
        """Whether to leave out the work that the margin of zeros causes, and not the images; may be switched.

        The same network, state_dict, result and gradients, but for rounding (`fcnkern.models.elision`): what the
        body makes of its margin is computed once, on a small map, and put round what the images influence. For
        bodies that are one chain of layers: VGG16, a third to half of whose work is for its margin of 100 pixels,
        and any `nn.Sequential`.

        Setting it raises ValueError where the body is another, or has a layer that cannot be computed in part. A
        call raises RuntimeError where layers have hooks, and where batch normalisation or dropout before the last
        stage is in training mode: these must see whole maps. Dropout after fc6 and fc7 draws the numbers that it
        draws without `elide`. Under `torch.compile` and `torch.export` the body runs plainly: elided, each size of
        images would be a graph of its own.
        """
        return self._elide

    @elide.setter
    def elide(self, on: bool) -> None:
        if on:
            geometry(self._chain())
        self._elide = bool(on)

    @property
    def preprocess(self) -> str:
        """Name of the preset for input images; it belongs to the weights of the body."""
        return getattr(self.body, "preprocess", "torchvision")

    @preprocess.setter
    def preprocess(self, name: str) -> None:
        object.__setattr__(self.body, "preprocess", name)

    def _attach_head(
        self,
        taps: Sequence[str],
        classes: int,
        upsampling: Upsampling,
        scales: Sequence[float] | None = None,
        pad: int = 0,
        in_channels: int = 3,
        elide: bool = False,
    ) -> None:
        """Trace the body and add the layers of the head; where that fails, the body is left as it was."""
        if not isinstance(classes, Integral) or classes < 1:
            raise ValueError(f"the number of classes must be a whole number of at least 1, got {classes!r}")
        if upsampling not in ("fixed", "learned"):
            raise ValueError(f"upsampling must be 'fixed' or 'learned', got {upsampling!r}")
        if pad < 0:
            raise ValueError(f"pad must be at least 0, got {pad!r}")
        if not taps or len(set(taps)) < len(taps):
            raise ValueError(f"taps must be one or more different names, got {tuple(taps)!r}")
        self.n_class, self.upsampling = classes, upsampling
        self._pad, self._in_channels = pad, in_channels
        self._features = Taps(self.body, taps)
        try:
            self._trace_and_add(taps, scales)
            self.elide = elide
        except Exception:
            self._features.remove()
            raise

    def _trace_and_add(self, taps: Sequence[str], scales: Sequence[float] | None) -> None:
        traced = trace(self.body, self._features, self._in_channels)
        self._traced = dict(sorted(traced.items(), key=lambda item: item[1].rows.stride))
        self.alignment = align(self._traced, self._pad)
        self.taps = tuple(self._traced)
        self._scales = tuple(scales) if scales is not None else (1.0,) * (len(taps) - 1)
        if len(self._scales) != len(taps) - 1:
            raise ValueError(f"scales must be {len(taps) - 1} numbers for {len(taps)} taps, got {scales!r}")
        self._add_layers()

    def _add_layers(self) -> None:
        # In the order of pytorch-fcn, which is the order of the state_dict.
        steps, final = self.alignment.steps, self.alignment.final
        *skips, coarsest = self.taps
        names, self.final_layer = upscore_names(self._traced)
        self.score_fr = ScoreConv2d(self._traced[coarsest].channels, self.n_class)
        for tap in skips:
            self.add_module(score_name(tap), ScoreConv2d(self._traced[tap].channels, self.n_class))
        self.final_stride, self.final_offset = final.factor, self.alignment.final_offset
        if steps:
            self.add_module(names[0], self._new_deconv(steps[0]))
        self.add_module(self.final_layer, self._new_deconv(final))
        for name, step in list(zip(names, steps, strict=True))[1:]:
            self.add_module(name, self._new_deconv(step))
        self._step_layers = names

    def scores(self, x: Tensor) -> tuple[Tensor, Resample]:
        """Low-resolution scores and the upsampling that takes them to the pixels of `x`.

        Args:
            x: images N,3,H,W, floating point, prepared as `preprocess` says; any H, W >= 1.

        Returns:
            Scores N,C,h,w before the last upsampling, and `Resample.deconv` bound to (H, W). Where the last
            transposed convolution is not fixed bilinear its weight, `final_weight()`, belongs to it.
        """
        return self.streams(x)[0]

    def stream_alignments(self) -> dict[str, Alignment]:
        """How the scores of each tap alone lie on the image, coarsest first: what `streams` takes.

        Raises:
            ValueError: those of a tap do not cover images of every size.
        """
        return {tap: align({tap: self._traced[tap]}, self._pad) for tap in reversed(self.taps)}

    def streams(
        self, x: Tensor, alone: Mapping[str, Alignment] | None = None
    ) -> list[tuple[Tensor, Resample]]:
        """`scores` of `x`, and behind them those of each tap in `alone`, with its own upsampling to the pixels."""
        check_images(x, self._in_channels)
        size = (x.shape[2], x.shape[3])
        features = self._feature_maps(x)
        scores = score(self.score_fr, features[self.taps[-1]])
        skips = reversed(self.taps[:-1])
        steps = zip(skips, self.alignment.steps, self._step_layers, reversed(self._scales), strict=True)
        for tap, step, layer, scale in steps:
            classifier = getattr(self, score_name(tap))
            scores = add_skip(scores, self._deconv(layer), step, features[tap], classifier, scale)
        summed = (scores, _to_image(self.alignment, size))
        return [summed, *(self._stream(tap, features[tap], own, size) for tap, own in (alone or {}).items())]

    def _stream(
        self, tap: str, features: Tensor, own: Alignment, size: tuple[int, int]
    ) -> tuple[Tensor, Resample]:
        """The scores of one tap where they reach pixels of the image, and their upsampling to it."""
        factor, kernel, offset = own.final.factor, own.final.kernel, own.final_offset
        start = max(0, (offset - kernel) // factor + 1)
        bottom, right = ((offset + side - 1) // factor + 1 for side in size)
        seen = features[:, :, start:bottom, start:right]
        name, scale = "score_fr", 1.0
        if tap != self.taps[-1]:
            name, scale = score_name(tap), self._scales[self.taps.index(tap)]
        moved = own._replace(final=own.final._replace(offset=start * factor - offset))
        return score(getattr(self, name), seen, scale), _to_image(moved, size)

    def final_weight(self) -> Tensor | None:
        """Weight (C, C, k, k) of the last upsampling, in the dtype of the scores under autocast, or None where it is
        fixed bilinear."""
        weight = self._deconv(self.final_layer).taps()
        if weight is not None and torch.is_autocast_enabled(weight.device.type):
            weight = weight.to(torch.get_autocast_dtype(weight.device.type))
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """Images N,3,H,W -> logits N,C,H,W. For a loss or a label map `loss` and `predict` need far less memory."""
        if torch.compiler.is_exporting():
            return portable.logits(self, x)
        scores, _ = self.scores(x)
        full = upsample(self._deconv(self.final_layer), scores)
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

        Raises:
            TypeError: `weight` is among the options.
        """
        if "weight" in options:
            raise TypeError(
                "loss takes no weight, the last upsampling's: weights of classes are class_weight"
            )
        scores, resample = self.scores(x)
        options["return_stats"] = return_stats
        return F.upsample_cross_entropy(scores, labels, resample, weight=self.final_weight(), **options)

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
        """Images N,3,H,W -> label map N,H,W, without full-resolution scores. Call `eval()` first: dropout is not
        switched off here.

        Args:
            scales, flip: label what is most probable on average over resized and mirrored copies of the images, as
                `fcnkern.models.averaging.averaged_probabilities` forms it, at full resolution.
            tile: height and width, or one number, of the windows that the network sees one at a time, for images
                larger than memory; the labels are those without tiles. `x` may then lie on another device than the
                network, the CPU for example, where the labels are put together. Not with `scales` or `flip`.

        Raises:
            ValueError: a bad scale, a tile too small for the receptive field, or tiles with `scales` or `flip`.
        """
        several = of_copies(scales, flip, tile)
        if tile is not None:
            check_images(x, self._in_channels)
            one = partial(self.predict, out_dtype=out_dtype)
            return tiled(one, x, tile, self.alignment, self.score_fr.weight.device, out_dtype)
        if not several:
            if torch.compiler.is_exporting():
                return portable.logits(self, x).argmax(1).to(out_dtype)
            scores, resample = self.scores(x)
            return F.upsample_argmax(scores, resample, weight=self.final_weight(), out_dtype=out_dtype)
        check_images(x, self._in_channels)
        probabilities = averaged_probabilities(self, x, scales, flip)
        return F.upsample_argmax(probabilities, Resample.identity(), out_dtype=out_dtype)

    def copy_params_from(self, coarser: nn.Module | Mapping[str, Any]) -> LoadReport:
        """Start from the next coarser network on the same body (a module or a state_dict), as the paper trains 32s,
        16s and 8s in turn.

        Body, classifiers and intermediate upsampling are copied; the classifier of the finest tap, which the coarser
        network lacks, stays as it is: zero when new, so that this network starts with the other's predictions.
        Where the networks scale the features of a tap differently, the weight of its classifier makes up for it; a
        state_dict, which does not tell, is taken for one of a network without scales.

        Raises:
            ValueError: a layer both have differs in shape, or one of those named is missing; nothing is changed then.
        """
        state = coarser.state_dict() if isinstance(coarser, nn.Module) else coarser
        given = dict(zip(coarser.taps, coarser._scales, strict=False)) if isinstance(coarser, FCN) else {}
        head = {score_name(self.taps[0]), *self._step_layers, self.final_layer}
        own = [layer for layer in parameter_layers(self) if layer not in head]
        steps, final = upscore_names({tap: self._traced[tap] for tap in self.taps[1:]})
        names = {final: None, **dict(zip(steps, self._step_layers, strict=False))}
        report = transfer_same_names(self, coarser, required=(*own, *self._step_layers[:-1]), names=names)
        with torch.no_grad():
            for name, buffer in self.named_buffers():
                if name in state:
                    buffer.copy_(torch.as_tensor(state[name]))
            for tap, scale in zip(self.taps[1:-1], self._scales[1:], strict=True):
                self.get_parameter(f"{score_name(tap)}.weight").div_(scale / given.get(tap, 1.0))
        return report

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the classifiers and of the upsampling layers."""
        scores = [score_name(tap) for tap in self.taps[:-1]]
        for name in ("score_fr", *scores, *self._step_layers, self.final_layer):
            yield from self.get_submodule(name).parameters()

    def body_parameters(self) -> Iterator[nn.Parameter]:
        """All others. Frozen, they leave the classifiers to be trained alone: the paper's FCN-32s-fixed (Table 2).

        On VGG16 `body` is the network itself, whose parameters are the head's too.
        """
        head = set(self.head_parameters())
        return (parameter for parameter in self.parameters() if parameter not in head)

    def _chain(self) -> Chain:
        return chain_of(self.body, self.taps)

    def _feature_maps(self, x: Tensor) -> dict[str, Tensor]:
        """The taps by name."""
        margins = self._margins(x)
        if self._elide and not torch.compiler.is_compiling():
            return elided_features(self._chain(), x, margins)
        return self._features(self.body, nn.functional.pad(x, margins) if any(margins) else x)

    def _margins(self, x: Tensor) -> tuple[int, int, int, int]:
        """Zeros that the body wants around the images, and those that small ones need: left, right, top, bottom."""
        least, pad = self.alignment.min_size, self._pad
        height, width = x.shape[2], x.shape[3]
        if height < least or width < least:
            return pad, pad + max(0, least - width), pad, pad + max(0, least - height)
        return pad, pad, pad, pad

    def _new_deconv(self, step: Step) -> BilinearDeconv2d:
        return BilinearDeconv2d(self.n_class, step.factor, step.kernel, learned=self.upsampling == "learned")

    def _deconv(self, name: str) -> BilinearDeconv2d:
        layer = getattr(self, name)
        if not isinstance(layer, BilinearDeconv2d):
            raise TypeError(f"layer {name!r} must be a BilinearDeconv2d, got {type(layer).__name__}")
        return layer


def _to_image(alignment: Alignment, size: tuple[int, int]) -> Resample:
    final = alignment.final
    return Resample.deconv(final.factor, alignment.final_offset, size, odd=final.kernel % 2 == 1)
