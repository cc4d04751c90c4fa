"""What bodies and networks have in common: new weights, a check before training, dropout, feature maps by name."""

from __future__ import annotations

import difflib
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.utils.hooks import RemovableHandle

from fcnkern import functional as F
from fcnkern._tensors import accumulation_type
from fcnkern.models.layers import BodyConv2d, is_conv1x1, is_plain

FC_CHANNELS = 4096


def scale_channels(channels: int, width: float) -> int:
    """`channels * width`, rounded to a multiple of four and at least four."""
    return max(4, 4 * round(channels * width / 4))


def parameter_layers(module: nn.Module) -> Iterator[str]:
    """Names of the modules inside `module` that hold parameters of their own, in order."""
    for name, each in module.named_modules():
        if name and any(True for _ in each.parameters(recurse=False)):
            yield name


class Network(nn.Module):
    """A module that can be initialised anew and checked before training."""

    def reset_parameters(self) -> None:
        """Initialise every layer anew: He body, and in the FCNs zero score layers and bilinear upsampling."""
        for name, _ in self.named_children():
            self.reset_layer(name)

    def reset_layer(self, name: str) -> None:
        """Initialise one layer, with all inside it, anew."""
        _reset(self.get_submodule(name))

    def set_dropout(self, p: float) -> None:
        """Set the probability of every dropout layer."""
        for module in self.modules():
            if isinstance(module, nn.Dropout | nn.Dropout2d):
                module.p = p

    def check_ready(self) -> None:
        """Report weights from which training cannot start, before it does.

        Raises:
            RuntimeError: layers of the body are all zero (nothing reaches the classifier, the loss stays at ln C for
                ever), or parameters contain NaN or infinity, or have no storage (meta device).
        """
        problems: dict[str, list[str]] = {"not finite": [], "all zero": [], "on the meta device": []}
        for name, parameter in self.named_parameters():
            if parameter.is_meta:
                problems["on the meta device"].append(name)
                continue
            norm = torch.linalg.vector_norm(
                parameter.detach(), dtype=accumulation_type(parameter.dtype)
            ).item()
            if not math.isfinite(norm):
                problems["not finite"].append(name)
            elif norm == 0 and parameter.dim() > 1 and not name.startswith("score_"):
                problems["all zero"].append(name)
        found = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names)
        if found:
            raise RuntimeError(
                f"{type(self).__name__} cannot be trained from these weights ({found}). Load weights "
                "(fcnkern.weights.load_body, copy_params_from_vgg16, load_state_dict) or call reset_parameters()."
            )


class Chain(NamedTuple):
    """A body as layers that run one after another, each on what the one before gave.

    Attributes:
        layers: with their names, in the order in which they run.
        taps: feature map -> number of layers that it lies behind.
        tails: feature map -> what is done to that map before it is returned, where anything is.
        containers: modules, with their names, within which the layers are called.
    """

    layers: tuple[tuple[str, nn.Module], ...]
    taps: Mapping[str, int]
    tails: Mapping[str, Callable[[Tensor], Tensor]]
    containers: tuple[tuple[str, nn.Module], ...] = ()


class Body(Network):
    """A classifier without its classifier: what an FCN computes its feature maps with.

    Attributes:
        preprocess: how input images must be prepared, a name of `fcnkern.data.presets`: at first that of the body's
            best known weights. It belongs to the weights: set it after loading others by `load_state_dict`.
        tap_names: the feature maps that the paper's heads tap, finest first; the last one goes into the classifier.
        not_elided: why `FCN.elide` refuses this body, of those that have no `chain`.
    """

    preprocess: str = "torchvision"
    tap_names: ClassVar[tuple[str, ...]]
    not_elided: ClassVar[str] = "it is not known to be one chain of layers"

    def features(self, x: Tensor) -> Mapping[str, Tensor]:
        """Images N,3,H,W -> the feature maps of `tap_names` by name."""
        raise NotImplementedError

    def chain(self) -> Chain:
        """The layers that give the feature maps of `tap_names`, for `fcnkern.models.elision`.

        Raises:
            ValueError: this body has none, for the reason `not_elided`.
        """
        raise ValueError(f"elide is not for {type(self).__name__}: {self.not_elided}")

    def forward(self, x: Tensor) -> Tensor:
        """Images N,3,H,W -> the features that go into the classifier."""
        return self.features(x)[self.tap_names[-1]]


class HiddenBody(Body):
    """A body with two hidden layers before its classifier: fc6, then fc7 (1x1), each with ReLU and dropout.

    fc7 with its ReLU and dropout is one `fcnkern.functional.conv1x1`, or the three modules in turn where one of them
    has hooks or was replaced by another kind. Dropout is element-wise, as
    Caffe's is (pytorch-fcn drops whole channels), and set by `set_dropout` or by `drop6.p` and `drop7.p`.
    """

    fc6: BodyConv2d
    fc7: BodyConv2d
    drop6: nn.Dropout
    drop7: nn.Dropout

    def _add_hidden(self, channels: int, kernel: int, width: float) -> None:
        hidden = scale_channels(FC_CHANNELS, width)
        self.fc6 = BodyConv2d(channels, hidden, kernel)
        self.relu6 = nn.ReLU(inplace=True)
        self.drop6 = nn.Dropout()
        self.fc7 = BodyConv2d(hidden, hidden, 1)
        self.relu7 = nn.ReLU(inplace=True)
        self.drop7 = nn.Dropout()

    def classify(self, pool5: Tensor) -> Tensor:
        """pool5 -> fc7 features (after dropout, in training), smaller by fc6's kernel less one on each axis."""
        hidden = self.drop6(self.relu6(self.fc6(pool5)))
        # An exported program and a traced one are made of layers that other programs know too.
        in_layers = torch.compiler.is_exporting() or isinstance(hidden, fx.Proxy)
        if in_layers or not (is_conv1x1(self.fc7) and is_plain(self.relu7, nn.ReLU)):
            return self.drop7(self.relu7(self.fc7(hidden)))
        if not is_plain(self.drop7, nn.Dropout):
            return self.drop7(F.conv1x1(hidden, self.fc7.weight, self.fc7.bias, relu=True))
        dropout_p = self.drop7.p if self.drop7.training else 0.0
        return F.conv1x1(hidden, self.fc7.weight, self.fc7.bias, relu=True, dropout_p=dropout_p)


class UnknownTapError(ValueError):
    """A feature map that a body does not have."""


class Taps:
    """Feature maps of a module by name: of a `Body`, or of any module.

    Of any module a name is that of a submodule, whose output is taken, or else a key of the mapping that the module
    returns.

    Submodules get hooks, which do nothing but during a call, and stay until `remove`.
    """

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._hooks: dict[str, Keep] = {}
        self._handles: list[RemovableHandle] = []
        if isinstance(module, Body):
            unknown = [name for name in names if name not in module.tap_names]
            if unknown:
                raise ValueError(
                    f"taps {unknown} are unknown, {type(module).__name__} has {module.tap_names}"
                )
            return
        submodules = dict(module.named_modules())
        for name in names:
            if name and name in submodules:
                self._hooks[name] = Keep()
                self._handles.append(submodules[name].register_forward_hook(self._hooks[name]))

    def remove(self) -> None:
        """Take the hooks off the module."""
        for handle in self._handles:
            handle.remove()

    def __call__(self, module: nn.Module, x: Tensor) -> dict[str, Tensor]:
        """The feature maps for images `x`, in the order of `names`."""
        for hook in self._hooks.values():
            hook.open()
        try:
            return self._found(module, module.features(x) if isinstance(module, Body) else module(x))
        finally:
            for hook in self._hooks.values():
                hook.close()

    def _found(self, module: nn.Module, returned: Any) -> dict[str, Tensor]:
        """The feature maps by name, of the module that has just run."""
        found: dict[str, Tensor] = {}
        for name in self.names:
            if name in self._hooks:
                found[name] = self._hooks[name].kept(name)
            elif isinstance(returned, Mapping) and name in returned:
                found[name] = returned[name]
            else:
                known = [key for key, _ in module.named_modules() if key]
                near = difflib.get_close_matches(str(name), known, n=1)
                raise UnknownTapError(
                    f"tap {name!r} is neither a submodule of {type(module).__name__} nor a key of what it returns"
                    f"{f' (did you mean {near[0]}?)' if near else ''}"
                )
        return found


class Keep:
    """A forward hook that keeps the output, from when it is opened until it is closed, for each thread its own.

    Closed, it holds no tensor and no graph: other calls of the module leave nothing behind.
    """

    def __init__(self) -> None:
        self.outputs: dict[int, Any] = {}

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        thread = _thread()
        if thread in self.outputs:
            self.outputs[thread] = output

    def open(self) -> None:
        self.outputs[_thread()] = None

    def kept(self, name: str) -> Any:
        output = self.outputs[_thread()]
        if output is None:
            raise ValueError(f"tap {name!r} was not called by the body's forward")
        return output

    def close(self) -> None:
        self.outputs.pop(_thread(), None)


def _thread() -> int:
    """The thread that runs; 0, which is none's, in a compiler's graph."""
    return 0 if torch.compiler.is_compiling() else threading.get_ident()


def check_images(x: Tensor, channels: int = 3) -> None:
    """Refuse what is no batch of preprocessed images: TypeError, ValueError. A graph's stand-in passes."""
    if isinstance(x, fx.Proxy):
        return
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(
            "x must be a floating-point tensor of preprocessed images, got "
            f"{x.dtype if isinstance(x, Tensor) else type(x).__name__}; see fcnkern.data for the presets"
        )
    if x.dim() != 4 or x.shape[1] != channels:
        raise ValueError(f"x must have shape (N, {channels}, H, W), got {tuple(x.shape)}")
    if 0 in x.shape:
        raise ValueError(f"x must have at least one image and one pixel, got shape {tuple(x.shape)}")


def check_width(width: float) -> float:
    """`width` as a float; ValueError where it is no positive finite number."""
    if not (math.isfinite(width) and width > 0):
        raise ValueError(f"width must be a positive finite number, got {width!r}")
    return float(width)


def check_in_channels(channels: int) -> int:
    """`channels`; ValueError where they are fewer than one."""
    if channels < 1:
        raise ValueError(f"in_channels must be at least 1, got {channels!r}")
    return channels


def _reset(module: nn.Module) -> None:
    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    for child in module.children():
        _reset(child)
