"""Net surgery: classifiers made fully convolutional (CVPR 2015 section 3.1), and weights moved between networks.

The rules for weights are those of the authors' surgery.py and of their early fusion of colour and depth.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor, fx, nn

from fcnkern.models.graphs import called, described, is_pointwise, symbolic
from fcnkern.models.tracing import run_on_meta, trace
from fcnkern.weights import LoadReport, WeightsMismatchError
from fcnkern.weights.mismatch import shortened

_FLATTENS = {torch.flatten, torch.reshape, torch.squeeze, "flatten", "view", "reshape", "squeeze"}


def convolutionalize(
    classifier: nn.Module, input_size: tuple[int, int, int] = (3, 224, 224)
) -> fx.GraphModule:
    """A classifier as a fully convolutional network: its fully connected layers become convolutions.

    The first after a flattened map of C,h,w becomes an h x w convolution, those behind it 1x1. What flattens goes.
    An adaptive average pooling is the identity at the classifier's own size and goes too, or is global, and becomes
    an average over a window as large as its map is there.

    On an image of the classifier's size the result gives the classifier's logits. On a larger one it gives a grid of
    logits, one each stride: those of the crops that begin there, where the body neither pads nor rounds sizes up;
    elsewhere the body sees pixels in place of a crop's padding. Layers that look at the whole image (group
    normalisation, squeeze and excitation) then look at the larger one.

    Args:
        classifier: gives logits N,K for images of `input_size`: an `nn.Sequential`, or any module whose forward
            `torch.fx` can trace, as torchvision's AlexNet, VGG and ResNet. It is left as it is.
        input_size: C, H, W of the images that it classifies.

    Returns:
        The network, images N,C,H,W -> N,K,h,w. It has a copy of the weights, under the same names, fully connected
        matrices (O, C·h·w) as (O, C, h, w).

    Raises:
        ValueError: the classifier does not run on `input_size`, gives no logits N,K, or does something to flattened
            features or to the whole image that has no place on a grid. The message names the layer.
    """
    network = symbolic(classifier)
    _Surgery(network, _shapes(network, input_size)).run()
    network.graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.recompile()
    trace(network, lambda net, x: {"logits": net(x)}, input_size[0])
    return network


class _Shapes(fx.Interpreter):
    """Runs a graph and notes the shape of what each node gives, None where that is no tensor."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.shapes: dict[fx.Node, tuple[int, ...] | None] = {}

    def run_node(self, n: fx.Node) -> Any:
        out = super().run_node(n)
        self.shapes[n] = tuple(out.shape) if isinstance(out, Tensor) else None
        return out


def _shapes(
    network: fx.GraphModule, input_size: tuple[int, int, int]
) -> dict[fx.Node, tuple[int, ...] | None]:
    """The shapes that all nodes give for one image, without computing anything."""
    kinds = [each.dtype for each in network.parameters() if each.is_floating_point()]
    probe = torch.empty(1, *input_size, device="meta", dtype=kinds[0] if kinds else None)
    interpreter = _Shapes(network)
    try:
        with torch.no_grad():
            run_on_meta(network, lambda _, x: {"out": interpreter.run(x)}, probe)
    except Exception as error:  # whatever the user's code raises
        text = " ".join(str(error).split()[:60])
        raise ValueError(
            f"the classifier does not run on an image of {'x'.join(map(str, probe.shape))} (input_size "
            f"{tuple(input_size)}): {type(error).__name__}: {text}"
        ) from error
    return interpreter.shapes


class _Surgery:
    """Rewrites the graph of a classifier in the order in which it computes."""

    def __init__(self, network: fx.GraphModule, shapes: Mapping[fx.Node, tuple[int, ...] | None]) -> None:
        self.network, self.shapes = network, shapes
        self.flat: dict[fx.Node, tuple[int, ...]] = {}  # features N,D that were, or stand for, a map C,h,w

    def run(self) -> None:
        """Convert every node, then leave out those that do nothing any more."""
        idle = [node for node in self.network.graph.nodes if self._convert(node)]
        for node in idle:
            node.replace_all_uses_with(node.all_input_nodes[0])

    def _convert(self, node: fx.Node) -> bool:
        """Convert one node; whether it is to be left out."""
        shape = self.shapes[node]
        if node.op == "output":
            self._check_logits(node)
        if node.op not in ("call_module", "call_function", "call_method") or shape is None:
            return False
        call, sources = called(self.network, node), node.all_input_nodes
        before = self.shapes[sources[0]] if sources else None
        if any(source in self.flat for source in sources):
            self.flat[node] = self._flat_layer(node, call)
        elif isinstance(call, nn.AdaptiveAvgPool2d) or call is T.adaptive_avg_pool2d:
            return self._adaptive_pool(node, call)
        elif before is not None and len(before) == 4 and len(shape) != 4:
            if not (isinstance(call, nn.Flatten) or call in _FLATTENS) or shape != (1, math.prod(before)):
                raise _refusal(node, call, "does not keep the pixels of a map apart in N,C·h·w")
            self.flat[node] = before[1:]
            return True
        return False

    def _flat_layer(self, node: fx.Node, call: Any) -> tuple[int, ...]:
        """Convert a layer on flattened features; the map that its result stands for."""
        maps = {self.flat.get(source) for source in node.all_input_nodes}
        window = maps.pop()
        if window is None or maps:
            raise _refusal(node, call, "joins flattened features of maps of different sizes")
        if isinstance(call, nn.Linear):
            self.network.set_submodule(str(node.target), _as_convolution(call, window))
            return (call.out_features, 1, 1)
        if not is_pointwise(call):
            raise _refusal(
                node, call, "works on flattened features, and only linear and element-wise layers can"
            )
        return window

    def _adaptive_pool(self, node: fx.Node, call: Any) -> bool:
        """Replace a global pooling by a window; whether the pooling is none at this size."""
        source = node.all_input_nodes[0]
        before, after = self.shapes[source], self.shapes[node]
        assert before is not None
        assert after is not None
        if before == after:
            return True
        if after[2:] != (1, 1):
            sizes = " to ".join(f"{size[2]}x{size[3]}" for size in (before, after))
            raise _refusal(
                node,
                call,
                f"pools {sizes}: its windows grow with the image; at the right input_size it does nothing",
            )
        name = str(node.target) if node.op == "call_module" else node.name
        self.network.add_submodule(name, nn.AvgPool2d((before[2], before[3]), stride=1))
        node.op, node.target, node.args, node.kwargs = "call_module", name, (source,), {}
        return False

    def _check_logits(self, node: fx.Node) -> None:
        result = node.args[0]
        if not isinstance(result, fx.Node) or self.flat.get(result, ())[1:] != (1, 1):
            given = self.shapes.get(result) if isinstance(result, fx.Node) else type(result).__name__
            raise ValueError(f"the classifier must give logits N,K of flattened features, it gives {given}")


def _refusal(node: fx.Node, call: Any, reason: str) -> ValueError:
    return ValueError(f"the classifier cannot be made convolutional: {described(node, call)} {reason}")


def _as_convolution(linear: nn.Linear, window: tuple[int, ...]) -> nn.Conv2d:
    """The convolution that a fully connected layer on a flattened map C,h,w is; it takes the layer's weights."""
    channels, height, width = window
    with torch.device("meta"):
        conv = nn.Conv2d(channels, linear.out_features, (height, width), bias=linear.bias is not None)
    weight = linear.weight
    conv.weight = nn.Parameter(weight.detach().view(-1, *window), requires_grad=weight.requires_grad)
    conv.bias = linear.bias
    return conv.train(linear.training)


def transplant(new: nn.Module, old: nn.Module | Mapping[str, Any], suffix: str = "") -> LoadReport:
    """Copy the weights of every layer of `old` whose name, with `suffix` behind it, is a layer of `new`.

    After the authors' surgery.py: values are copied flat, so that shapes need only the same number of them, which
    makes convolutions of fully connected matrices (O, C·h·w). What has no place in `new` is left out, which drops a
    classifier of another name.

    Args:
        old: a module or a state_dict, its layers named as in `new` but for the suffix: with "_sem" `score_fr` goes to
            `score_fr_sem`.

    Raises:
        WeightsMismatchError (a ValueError): a layer that both have differs in the number of values; `new` is
            unchanged then.
    """
    state: Mapping[str, Any] = old.state_dict() if isinstance(old, nn.Module) else old
    own = new.state_dict()
    targets = {key: _with_suffix(key, suffix) for key in state}
    given = {ours: torch.as_tensor(state[key]).detach() for key, ours in targets.items() if ours in own}
    unused = tuple(key for key, ours in targets.items() if ours not in own)
    misshapen = {
        key: (tuple(value.shape), tuple(own[key].shape))
        for key, value in given.items()
        if value.numel() != own[key].numel()
    }
    if misshapen:
        raise WeightsMismatchError(type(old).__name__, (), misshapen, unused)
    with torch.no_grad():
        for key, value in given.items():
            own[key].copy_(value.reshape(own[key].shape))
    if not suffix and hasattr(old, "preprocess"):
        new.preprocess = old.preprocess
    loaded, layers = (tuple(dict.fromkeys(map(_layer, keys))) for keys in (given, own))
    kept = tuple(layer for layer in layers if layer not in loaded)
    return LoadReport(type(old).__name__, loaded, (), unused, kept=kept)


def fuse_early(new: nn.Module, old: nn.Module | Mapping[str, Any]) -> LoadReport:
    """Start a network with more input channels from one on colour images: early fusion (CVPR 2015 section 5, NYUDv2).

    As `transplant`, but in the first convolution of `new` each channel beyond those of `old` gets the mean of the
    weights over `old`'s channels, with no rescaling, as in the authors' nyud-fcn32s-color-d.

    Args:
        new: `create(name, in_channels=4)`, say.
        old: the same network, its body or their state_dict, with fewer input channels.

    Raises:
        ValueError: `old` has not the weight of the first convolution, or not fewer input channels; or the reasons of
            `transplant`. `new` is unchanged then.
    """
    state = dict(old.state_dict() if isinstance(old, nn.Module) else old)
    convs = (name for name, each in new.named_modules() if isinstance(each, nn.Conv2d))
    key = f"{next(convs, '')}.weight"
    if key not in state:
        raise ValueError(
            f"old must have the weight of new's first convolution, {key}; it has {shortened(list(state))}"
        )
    weight, wanted = torch.as_tensor(state[key]), new.get_parameter(key).shape[1]
    extra = wanted - weight.shape[1]
    if extra < 1:
        raise ValueError(f"old must have fewer than {wanted} input channels in {key}, got {weight.shape[1]}")
    state[key] = torch.cat([weight, weight.mean(1, keepdim=True).expand(-1, extra, -1, -1)], 1)
    report = transplant(new, state)
    if hasattr(old, "preprocess"):
        new.preprocess = old.preprocess
    return dataclasses.replace(report, source=type(old).__name__)


def _layer(key: str) -> str:
    return key.rpartition(".")[0]


def _with_suffix(key: str, suffix: str) -> str:
    layer, _, kind = key.rpartition(".")
    return f"{layer}{suffix}.{kind}" if layer else key
