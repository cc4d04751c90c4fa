"""Triton's interpreter, faster, and with masks that stay masks.

Most of its time goes into finding the same things again: the functions of `triton.language` to replace, at each
call of one kernel function by another; the NumPy type of a Triton type; the shape of a tensor whose type has it. Here
each is found once. What a kernel computes stays the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from triton.language import core
from triton.language.semantic import TritonSemantic
from triton.runtime import interpreter


class _Nothing:
    """What there is to undo where nothing was replaced."""

    def restore(self) -> None:
        pass


class _Scope:
    """Undoes the replacements of a launch."""

    def __init__(self, scope: Any, done: set[frozenset[int]]) -> None:
        self.scope, self.done = scope, done

    def restore(self) -> None:
        self.done.clear()
        self.scope.restore()


def _patching_once_a_launch(original: Any) -> Any:
    done: set[frozenset[int]] = set()
    seen_by: dict[int, frozenset[int]] = {}  # a module's globals → the languages that it sees

    def patch(fn: Any) -> Any:
        module = fn.__globals__
        if id(module) not in seen_by:
            languages = (interpreter.tl, interpreter.tl.core)
            seen_by[id(module)] = frozenset(
                id(value) for value in module.values() if any(value is each for each in languages)
            )
        seen = seen_by[id(module)]
        if seen in done:
            return _Nothing()
        done.add(seen)
        return _Scope(original(fn), done)

    return patch


def _remembering_numpy_types(original: Any) -> Any:
    known: dict[str, Any] = {}

    def numpy_type(kind: Any) -> Any:
        name = kind.scalar.name
        if name not in known:
            known[name] = original(kind)
        return known[name]

    return numpy_type


def _remembering_block_types(original: Any) -> Any:
    known: dict[tuple[str, tuple[int, ...]], dict[str, Any]] = {}

    def init(self: Any, element_ty: Any, shape: Any) -> None:
        key = element_ty.name, tuple(int(side) for side in shape)
        if key not in known:
            original(self, element_ty, shape)
            known[key] = dict(vars(self))
        vars(self).update(known[key])

    return init


def _remembering_shapes(original: Any) -> Any:
    known: dict[tuple[int, ...], tuple[Any, Any]] = {}

    def init(self: Any, handle: Any, type: Any) -> None:
        shape = tuple(type.shape) if type.is_block() else ()
        if shape not in known:
            original(self, handle, type)
            known[shape] = self.shape, self.numel
        self.handle, self.type, self.dtype = handle, type, type.scalar
        self.shape, self.numel = known[shape]

    return init


def _passing_equal_shapes(original: Any) -> Any:
    """Tensors of equal shape share their ``shape`` here, and need no broadcasting."""

    def broadcast(self: Any, lhs: Any, rhs: Any) -> Any:
        return (lhs, rhs) if lhs.shape is rhs.shape else original(self, lhs, rhs)

    return broadcast


def _dropping_ignored_checks(original: Any) -> Any:
    """Whether integers overflow is computed by interpreted operations and then, without debug, not looked at."""

    def check(self: Any, *operands: Any) -> None:
        if self.builder.options.debug:
            original(self, *operands)

    return check


def _keeping_booleans(original: Any) -> Any:
    """A comparison's handle says it holds integers; spread over a block it would become them, and no mask."""

    def splat(self: Any, block_type: Any, scalar: Any) -> Any:
        if scalar.data.dtype == np.bool_:
            scalar = interpreter.TensorHandle(scalar.data, core.int1)
        return original(self, block_type, scalar)

    return splat


def mend() -> None:
    """Replaces what is slow in the interpreter, and one function that errs; one that Triton lacks is left out."""
    for owner, name, replacement in (
        (interpreter, "_patch_lang", _patching_once_a_launch),
        (interpreter, "_get_np_dtype", _remembering_numpy_types),
        (core.block_type, "__init__", _remembering_block_types),
        (core.tensor, "__init__", _remembering_shapes),
        (TritonSemantic, "broadcast_impl_value", _passing_equal_shapes),
        (interpreter.InterpreterBuilder, "create_splat", _keeping_booleans),
        (TritonSemantic, "binary_op_sanitize_overflow_impl", _dropping_ignored_checks),
    ):
        original = getattr(owner, name, None)
        if original is not None:
            setattr(owner, name, replacement(original))
