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
from torch.autograd import forward_ad

LIBRARY = torch.library.Library("fcnkern", "DEF")

Compute = Callable[..., Any]
Packing = Callable[[tuple[Any, ...]], tuple[Any, ...]]
_PLAIN_TENSORS = (Tensor, torch.nn.Parameter)
is_batched = torch._C._functorch.is_legacy_batchedtensor
"""Whether a tensor stands for several, as gradients do under ``is_grads_batched``."""


def _as_they_are(args: Any) -> Any:
    return args


class Operator:
    """The operator ``fcnkern::name``.

    A call goes through PyTorch's dispatcher wherever something may watch it or take its place: a compiler, a
    tracer, a dispatch mode, a function transform, a tensor that is more or less than its memory. Otherwise it takes
    the same steps without the dispatcher, which costs more than a small kernel.

    Args:
        compute: the implementation, for every device.
        fake: shapes, types and strides of the results, without the results.
        packing: two functions of a call's arguments, into those of the schema and back, where they differ.
        fill: makes the results of ``compute`` those of the schema, where some are None.
    """

    def __init__(
        self,
        name: str,
        schema: str,
        compute: Compute,
        fake: Compute,
        packing: tuple[Packing, Packing] = (_as_they_are, _as_they_are),
        fill: Callable[[Any], Any] = _as_they_are,
    ) -> None:
        self.name, self.compute = name, compute
        self.pack, self.unpack = packing
        self.record: Compute | None = None
        LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.needs_fixed_stride_order,))
        LIBRARY.impl(name, self._unpacked(lambda *args: fill(compute(*args))), "CompositeExplicitAutograd")
        torch.library.register_fake(f"fcnkern::{name}", self._unpacked(fake), lib=LIBRARY)
        self.overload = getattr(torch.ops.fcnkern, name).default

    def _unpacked(self, function: Compute) -> Compute:
        return lambda *packed: function(*self.unpack(packed))

    def set_autograd(self, record: Compute) -> None:
        """Calls ``record`` where a gradient can flow, as a rule `torch.autograd.Function.apply`.

        It takes what runs the operation past this formula and then the call's arguments.
        """
        self.record = record
        LIBRARY.impl(self.name, self._unpacked(self._dispatched), "Autograd")

    def __call__(self, *args: Any) -> Any:
        if is_watched(args):
            return self.overload(*self.pack(args))
        return self._run(self.compute, args)

    def _dispatched(self, *args: Any) -> Any:
        return self._run(self._below_autograd, args)

    def _below_autograd(self, *args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return self.overload(*self.pack(args))

    def _run(self, run: Compute, args: tuple[Any, ...]) -> Any:
        if forward_ad._current_level >= 0 and any(map(_has_tangent, args)):
            raise NotImplementedError(
                f"{self.name} has no forward-mode derivative, got an argument with a tangent"
            )
        if self.record is not None and torch.is_grad_enabled() and any(map(_needs_gradient, args)):
            return self.record(run, *args)
        return run(*args)


def _needs_gradient(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _has_tangent(value: Any) -> bool:
    return isinstance(value, Tensor) and forward_ad.unpack_dual(value).tangent is not None


def is_watched(args: tuple[Any, ...]) -> bool:
    """Whether the dispatcher would do more with these arguments than choose the implementation."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._get_tracing_state() is not None
        or _holds_other_than_memory(args)
    )


def _holds_other_than_memory(args: tuple[Any, ...]) -> bool:
    """Whether the elements of a tensor are not what lies at its address: a subclass, no memory, a sign kept apart."""
    for value in args:
        if type(value) in _PLAIN_TENSORS:
            # One look at `torch._C._dispatch_keys` takes longer than these four.
            if value.is_meta or value.is_neg() or value._is_zerotensor() or is_batched(value):
                return True
        elif isinstance(value, Tensor):
            return True
    return False


def with_empties(results: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    """Tensors without elements for those that are None; one at least is not."""
    some = next(each for each in results if each is not None)
    return tuple(some.new_empty(0) if each is None else each for each in results)


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a backward whose result has no derivative of its own.

    `torch.autograd.function.once_differentiable` looks only at the incoming gradient; here the result depends
    on the saved inputs too, so with ``create_graph=True`` it always carries a node that raises.
    """

    @wraps(backward)
    def guarded(ctx: Any, *grads: Any) -> Any:
        if not torch.is_grad_enabled():
            return backward(ctx, *grads)
        with torch.no_grad():
            results = backward(ctx, *grads)
        message = f"{type(ctx).__name__}: this gradient cannot be differentiated again"
        fail = torch._C._functions.DelayedError(message, 1)
        return tuple(each if each is None else fail(each.requires_grad_()) for each in results)

    return guarded
