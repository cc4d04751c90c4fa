"""Triton's interpreter, faster.

It replaces the functions of `triton.language` by interpreted ones at each call of one kernel function by another,
which takes a third of its time; once a launch is enough.
"""

from __future__ import annotations

from typing import Any

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


def patch_once_a_launch() -> None:
    """Replaces the interpreter's replacing function; does nothing where Triton has none of that name."""
    original = getattr(interpreter, "_patch_lang", None)
    if original is None:
        return
    done: set[frozenset[int]] = set()

    def patch(fn: Any) -> Any:
        languages = (interpreter.tl, interpreter.tl.core)
        seen = frozenset(
            id(value) for value in fn.__globals__.values() if any(value is each for each in languages)
        )
        if seen in done:
            return _Nothing()
        done.add(seen)
        return _Scope(original(fn), done)

    interpreter._patch_lang = patch
