"""Layers of the networks: convolutions that know their initialisation, Caffe's pools and its normalisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from fcnkern.nn.pool import MaxPool2d


class BodyConv2d(nn.Conv2d):
    """A convolution followed by a ReLU: He-initialised weight (normal, fan in), zero bias."""

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class ScoreConv2d(nn.Conv2d):
    """A 1x1 classifier initialised to zero: training starts at a loss of ln C per pixel, as in the paper."""

    def __init__(self, in_channels: int, n_class: int) -> None:
        super().__init__(in_channels, n_class, kernel_size=1)

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


def in_turn(layers: Sequence[tuple[str, nn.Module]], x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Runs layers one behind the other: the name and output of each, as they come; of sequences, of their layers too.

    A ReLU whose output is only pooled is computed with the pool, and left out, as there is no output to give.
    """
    layer: Any
    every = list(_spread(layers))
    for index, (name, layer) in enumerate(every):
        if index + 1 < len(every) and is_one_pass(layer, every[index + 1][1], x):
            continue
        joined = index > 0 and is_one_pass(every[index - 1][1], layer, x)
        x = layer.pooled(x, relu=True) if joined else layer(x)
        yield name, x


def _spread(layers: Sequence[tuple[str, nn.Module]]) -> Iterator[tuple[str, nn.Module]]:
    """The layers, in place of a sequence those in it, of which the last bears its name."""
    for name, layer in layers:
        if type(layer) is not nn.Sequential or not len(layer) or is_observed(layer):
            yield name, layer
            continue
        *others, (_, last) = layer._modules.items()  # a layer that comes twice stands there twice
        yield from ((f"{name}.{key}", each) for key, each in others)
        yield name, last


def is_one_pass(relu: nn.Module, pool: Any, x: Tensor) -> bool:
    """Whether ``pool.pooled(x, relu=True)`` may take the place of ``pool(relu(x))``: nothing looks at either."""
    return is_plain(relu, nn.ReLU) and is_plain(pool, MaxPool2d, CeilMaxPool2d) and pool.is_ours(x)


def is_plain(module: nn.Module, *types: type[nn.Module]) -> bool:
    """Whether a module is of one of these types, no subclass, and nothing looks at it."""
    return type(module) in types and not is_observed(module)


def is_observed(module: nn.Module) -> bool:
    """Whether a call runs more than the class says: hooks, or a forward of the instance's own."""
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return any(hooks) or "forward" in vars(module) or nn.modules.module._has_any_global_hook()


def is_conv1x1(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether `fcnkern.functional.conv1x1` may take the place of a call: it does no more, and nothing looks at it."""
    return (
        isinstance(layer, nn.Conv2d)
        and type(layer).forward is nn.Conv2d.forward
        and type(layer)._conv_forward is nn.Conv2d._conv_forward
        and (layer.kernel_size, layer.stride, layer.groups) == ((1, 1), (1, 1), 1)
        and layer.padding in ((0, 0), "valid", "same")
        and not is_observed(layer)
    )


class CeilMaxPool2d(MaxPool2d):
    """Max pooling without padding whose output size is rounded up, as Caffe's: `nn.MaxPool2d(ceil_mode=True)`.

    An exported program pads by stride - 1 values of -inf at the end and rounds down instead, which is the same where
    the kernel is no smaller than the stride. PyTorch's rounding up asks whether the last window begins behind the
    input, a question that depends on the size of the image and would pin it.
    """

    def __init__(self, kernel_size: int, stride: int) -> None:
        super().__init__(kernel_size, stride, ceil_mode=True)
        self.end = stride - 1

    def forward(self, x: Tensor) -> Tensor:
        """N,C,H,W -> N,C,h,w."""
        if not torch.compiler.is_exporting():
            return super().forward(x)
        padded = nn.functional.pad(x, (0, self.end, 0, self.end), value=-torch.inf)
        return nn.functional.max_pool2d(padded, self.kernel_size, self.stride)


def bilinear_kernel(size: int) -> Tensor:
    """The (size, size) fp64 kernel of the authors' `upsample_filt`, for upsampling by (size + 1) // 2."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    taps = 1 - (torch.arange(size, dtype=torch.float64, device="cpu") - centre).abs() / factor
    return taps[:, None] * taps[None, :]


class CaffeLRN(nn.Module):
    """AlexNet's and GoogLeNet's normalisation, N,C,H,W: x / (1 + alpha/5 · sum of x² over 5 channels around)^beta.

    alpha 1e-4 and beta 0.75, as in both nets; Caffe divides alpha by the number of channels. The same as
    `nn.LocalResponseNorm(5)`, which spends most of its time in a three-dimensional pooling; here five shifted maps
    are added, and the power is two square roots. Half precision is widened to fp32.
    """

    channels, alpha, beta = 5, 1e-4, 0.75

    def forward(self, x: Tensor) -> Tensor:
        """The normalised map, of x's shape and type."""
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        side = self.channels // 2
        squares = nn.functional.pad(wide * wide, (0, 0, 0, 0, side, side))
        around = squares[:, : x.shape[1]] + squares[:, 1 : x.shape[1] + 1]
        for shift in range(2, self.channels):
            around.add_(squares[:, shift : x.shape[1] + shift])
        del squares
        root = around.mul_(self.alpha / self.channels).add_(1).rsqrt_()
        return (wide * (root * root.sqrt())).to(x.dtype)


class BilinearDeconv2d(nn.ConvTranspose2d):
    """A transposed convolution (C, C, k, k) that starts as bilinear upsampling by f: stride f, no padding, no bias.

    The kernel k is 2f - f%2 unless given: 2f - 1 puts the inputs on pixels of the output, 2f between two of them.
    `learned` sets `weight.requires_grad`. While the weight is frozen and really is bilinear, `taps()` is None and the
    models use the fixed two-tap path, which gives the same numbers without the dense C x C kernel. A frozen weight
    that is not bilinear (loaded from a checkpoint, say) is used as it is. The check is repeated when the weight has
    been loaded, replaced or changed in place. An edit through `.data`, which PyTorch does not record, needs a
    `refresh()`; so does any edit after `torch.compile` has traced the model.
    """

    _bilinear = True
    _checked: tuple[Tensor | None, int] = (None, 0)

    def __init__(
        self, channels: int, factor: int, kernel: int | None = None, *, learned: bool = False
    ) -> None:
        usual = 2 * factor - factor % 2
        super().__init__(channels, channels, kernel or usual, stride=factor, bias=False)
        self.weight.requires_grad_(learned)
        self._usual = self.kernel_size[0] == usual
        self._two_taps = self._usual or self.kernel_size[0] == 2 * factor - 1

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            with torch.no_grad():
                self.weight.copy_(self._bilinear_weight())
        self.refresh()

    def taps(self) -> Tensor | None:
        """The weight to upsample with, or None where `Resample.deconv` is the same thing."""
        if self._learned():
            return self.weight
        return None if self._two_taps else self._depthwise()

    def step_weight(self) -> Tensor | None:
        """The weight for `fcnkern.functional.upsample_add`: None where its own bilinear kernel is the same thing."""
        if self._learned():
            return self.weight
        return None if self._usual else self._depthwise()

    def _depthwise(self) -> Tensor:
        """The bilinear kernel once per channel: any of those on the diagonal."""
        channels, _, size, _ = self.weight.shape
        return self.weight[:1, :1].expand(channels, 1, size, size).contiguous()

    def _learned(self) -> bool:
        """Whether the weight is, or may become, another than bilinear."""
        weight = self.weight
        if weight.requires_grad:
            return True
        if not torch.compiler.is_compiling() and not self._is_checked(weight):
            if torch._C._functorch.is_batchedtensor(weight):  # vmap over networks: one answer for all of them
                return True
            self.refresh()
        return not self._bilinear

    def refresh(self) -> None:
        """Look again whether the weight is bilinear (to one unit in the last place of its dtype)."""
        weight = self.weight.detach()
        self._checked = self.weight, _version(self.weight)
        if not weight.is_meta:
            expected = self._bilinear_weight().to(weight)
            tolerance = torch.finfo(weight.dtype).eps
            self._bilinear = torch.allclose(weight, expected, rtol=0.0, atol=tolerance)

    def _is_checked(self, weight: Tensor) -> bool:
        """Whether it is the one looked at last, and has not been changed in place since."""
        # The tensor itself, not its id, which another one may get once it is gone.
        checked, version = self._checked
        return weight is checked and _version(weight) == version

    def __getstate__(self) -> dict[str, Any]:
        # The weight of a copy counts its versions anew.
        return {**self.__dict__, "_checked": (None, 0)}

    def _bilinear_weight(self) -> Tensor:
        channels, _, size, _ = self.weight.shape
        weight = torch.zeros(channels, channels, size, size, dtype=torch.float64, device="cpu")
        weight[range(channels), range(channels)] = bilinear_kernel(size)
        return weight

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.refresh()


def _version(weight: Tensor) -> int:
    # An inference tensor has no version: it cannot be changed in place outside inference mode either.
    return 0 if weight.is_inference() else weight._version
