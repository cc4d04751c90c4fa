"""How an operation is registered: schema, implementation, fake kernel and autograd formula.

The autograd formula is attached to the Autograd dispatch key itself. `torch.library.register_autograd` does the
same with a wrapper that fills in every default of the schema at each call, which costs more than a small kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

LIBRARY = torch.library.Library("fcnkern", "DEF")


def define(name: str, schema: str, compute: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """Registers ``fcnkern::name`` with its implementation and its fake kernel; returns the operator."""
    LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.needs_fixed_stride_order,))
    LIBRARY.impl(name, compute, "CompositeExplicitAutograd")
    torch.library.register_fake(f"fcnkern::{name}", fake, lib=LIBRARY)
    return getattr(torch.ops.fcnkern, name).default


def _records(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def attach_autograd(name: str, operator: Any, function: type[torch.autograd.Function]) -> None:
    """Records ``function`` where a gradient can flow, and otherwise passes the call on."""

    def autograd(*args: Any) -> Any:
        if torch.is_grad_enabled() and any(map(_records, args)):
            return function.apply(*args)
        return below_autograd(operator, *args)

    LIBRARY.impl(name, autograd, "Autograd")


def below_autograd(operator: Any, *args: Any) -> Any:
    """Calls an operator of this library past its autograd formula."""
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*args)


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a backward whose result has no derivative of its own.

    `torch.autograd.function.once_differentiable` looks only at the incoming gradient; here the result depends
    on the saved inputs too, so with ``create_graph=True`` it always carries a node that raises.
    """

    @wraps(backward)
    def guarded(ctx: Any, *grads: Any) -> Any:
        with torch.no_grad():
            results = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return results
        message = f"{type(ctx).__name__}: this gradient cannot be differentiated again"
        fail = torch._C._functions.DelayedError(message, 1)
        return tuple(each if each is None else fail(each.requires_grad_()) for each in results)

    return guarded
