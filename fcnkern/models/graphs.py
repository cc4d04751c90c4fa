"""A module's computation as a graph of its layers, which surgery and rarefaction rewrite layer by layer."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as T
from torch import fx, nn

from fcnkern.models.layers import CaffeLRN

POINTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Softplus),
    *(nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Identity, nn.Dropout),
)
"""Layers that treat every number alike, wherever it lies."""

POINTWISE_CALLS: set[Callable[..., Any] | str] = {
    *(T.relu, torch.relu, torch.relu_, T.relu6, T.leaky_relu, T.gelu, T.silu, T.hardswish, T.dropout),
    *(
        torch.sigmoid,
        torch.tanh,
        torch.add,
        torch.mul,
        operator.add,
        operator.iadd,
        operator.mul,
        operator.imul,
    ),
    *("relu", "relu_", "sigmoid", "tanh", "add", "add_", "mul", "mul_", "contiguous"),
}
"""Functions, and names of methods, that do."""


class _Tracer(fx.Tracer):
    """Takes this package's layers for layers, as it does PyTorch's."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d | nn.MaxPool2d | CaffeLRN) or super().is_leaf_module(
            m, module_qualified_name
        )


def symbolic(module: nn.Module) -> fx.GraphModule:
    """A copy of `module` as a graph, its layers under the same names.

    Raises:
        ValueError: the forward cannot be followed symbolically, because it branches on values or sizes of a tensor,
            say.
    """
    copied = copy.deepcopy(module)
    try:
        graph = _Tracer().trace(copied)
    except Exception as error:  # whatever the user's code raises
        text = " ".join(str(error).split()[:60])
        raise ValueError(
            f"the layers of {type(module).__name__} cannot be told from its forward: {type(error).__name__}: {text}"
        ) from error
    for node in graph.nodes:
        node.type = None  # annotations, which may be strings that the generated code cannot resolve
    return fx.GraphModule(copied, graph, type(module).__name__)


def called(network: fx.GraphModule, node: fx.Node) -> Any:
    """What a node calls: a module, a function, or the name of a method."""
    return network.get_submodule(str(node.target)) if node.op == "call_module" else node.target


def is_pointwise(call: Any) -> bool:
    """Whether what is called treats every number alike."""
    return isinstance(call, POINTWISE) or (not isinstance(call, nn.Module) and call in POINTWISE_CALLS)


def described(node: fx.Node, call: Any) -> str:
    """A node for messages: `avgpool (AdaptiveAvgPool2d)`."""
    what = type(call).__name__ if isinstance(call, nn.Module) else getattr(call, "__name__", call)
    return f"{node.target if node.op == 'call_module' else node.name} ({what})"
