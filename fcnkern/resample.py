"""`Resample`: what "upsampling" means to the operations that take one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import index
from typing import Any, Literal, NamedTuple, get_args

from torch import SymInt

Kind = Literal["deconv", "half_pixel", "align_corners", "identity"]
Pair = tuple[int, int]
_KINDS = get_args(Kind)
_WHOLE = (int, SymInt)
"""Types that stay as they are: `operator.index` would pin a size that `torch.export` leaves open."""


class Axis(NamedTuple):
    """Two-tap linear resampling along one axis.

    Output ``Y`` in ``0..n_out-1`` reads the source at ``s = Y * step + shift``: the point ``floor(s)`` with
    weight ``1 - frac(s)`` and the next one with weight ``frac(s)``. With ``zero`` the points outside the source
    are zeros; otherwise ``s`` is clamped to ``0..n_in-1`` first.
    """

    n_in: int
    n_out: int
    step: float
    shift: float
    zero: bool


def as_whole(name: str, value: Any, wanted: str = "a whole number") -> int:
    """`value` as an int; TypeError calls it `name`."""
    try:
        whole: int = value if type(value) in _WHOLE else index(value)
    except TypeError:
        raise TypeError(f"{name} must be {wanted}, got {value!r}") from None
    return whole


def check_share(name: str, value: float) -> None:
    """Refuses what is no number in 0..1; TypeError and ValueError call it `name`."""
    try:
        inside = 0.0 <= value <= 1.0
    except TypeError:
        raise TypeError(f"{name} must be a number in 0..1, got {value!r}") from None
    if not inside:
        raise ValueError(f"{name} must lie in 0..1, got {value!r}")


def as_pair(name: str, value: int | Sequence[int], minimum: int) -> Pair:
    """`value` for both axes, or as it is, each at least `minimum`; TypeError and ValueError call it `name`."""
    given: Any = value if hasattr(value, "__len__") else (value, value)
    pair = tuple(as_whole(name, each, "a whole number or a pair of them") for each in given)
    if len(pair) != 2:
        raise ValueError(f"{name} must be a whole number or a pair of them, got {value!r}")
    if min(pair) < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value!r}")
    return pair


def _scales(value: float | Sequence[float]) -> tuple[float, float]:
    """`value` for both axes, or as it is; TypeError and ValueError call it `scale_factor`."""
    given: Any = value if isinstance(value, Sequence) else (value, value)
    try:
        vertical, horizontal = (float(each) for each in given)
    except (TypeError, ValueError):
        raise TypeError(f"scale_factor must be a number or a pair of them, got {value!r}") from None
    if not all(0 < scale < math.inf and 1 / scale < math.inf for scale in (vertical, horizontal)):
        raise ValueError(f"scale_factor must be positive and finite, got {value!r}")
    return vertical, horizontal


@dataclass(frozen=True)
class Resample:
    """A linear resampling with two taps per axis, from h×w scores to H×W outputs.

    Made by `deconv`, `half_pixel`, `align_corners` or `identity`. ``size`` is (H, W); None stands for the size
    of the target, or, where there is none, for the whole output.
    """

    kind: Kind
    factor: Pair = (1, 1)
    offset: Pair = (0, 0)
    size: Pair | None = None
    scale_factor: tuple[float, float] | None = None
    odd: bool = False

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"kind must be one of {', '.join(_KINDS)}, got {self.kind!r}")

    @classmethod
    def deconv(
        cls,
        factor: int | Pair,
        offset: int | Pair = 0,
        size: int | Sequence[int] | None = None,
        *,
        odd: bool = False,
    ) -> Resample:
        """Caffe's fixed bilinear deconvolution, cropped.

        A transposed convolution with stride ``factor``, kernel ``2 * factor - factor % 2``, no padding and
        bilinear weights, of which the outputs from ``offset`` on are kept (Long et al. 2015, section 3.3; the
        crop is that of the released networks). The first and last outputs, which only one source point per
        axis reaches, are attenuated exactly as there. With ``odd`` the kernel is ``2 * factor - 1``, as in the
        authors' FCN-AlexNet (63 for 32): source points then lie on output pixels, not between two of them.
        """
        pair = as_pair("factor", factor, 1)
        return cls(
            "deconv",
            factor=pair,
            offset=as_pair("offset", offset, 0),
            size=None if size is None else as_pair("size", size, 1),
            odd=odd and any(f % 2 == 0 for f in pair),
        )

    @classmethod
    def half_pixel(
        cls,
        size: int | Sequence[int] | None = None,
        scale_factor: float | tuple[float, float] | None = None,
    ) -> Resample:
        """``F.interpolate(mode="bilinear", align_corners=False)``, any size, up or down.

        As there, source positions follow from ``scale_factor`` where it is given and from the ratio of the
        sizes otherwise; a size beside it must be the one that follows.
        """
        scales = None if scale_factor is None else _scales(scale_factor)
        return cls("half_pixel", size=None if size is None else as_pair("size", size, 1), scale_factor=scales)

    @classmethod
    def align_corners(cls, size: int | Sequence[int] | None = None) -> Resample:
        """``F.interpolate(mode="bilinear", align_corners=True)``."""
        return cls("align_corners", size=None if size is None else as_pair("size", size, 1))

    @classmethod
    def identity(cls) -> Resample:
        """Scores that already have the full size."""
        return cls("identity")

    @property
    def kernel(self) -> Pair:
        """Kernel (kh, kw) of the transposed convolution that `deconv` stands for."""
        fy, fx = self.factor
        if self.odd:
            return 2 * fy - 1, 2 * fx - 1
        return 2 * fy - fy % 2, 2 * fx - fx % 2

    def out_size(self, in_size: Pair, kernel: Pair | None = None) -> Pair:
        """(H, W) of the output for scores of ``in_size`` (h, w).

        ``kernel`` is that of a learned weight which takes the place of the bilinear one.

        Raises:
            ValueError: the kind leaves the size open and ``size`` is None.
        """
        if self.size is not None:
            return self.size
        if self.kind == "identity":
            return in_size
        if self.kind == "deconv":
            return self._deconv_size(in_size, kernel)
        scaled = self._scaled_size(in_size)
        if scaled is not None:
            return scaled
        raise ValueError(f"resample: {self.kind} needs size=(H, W) where there is no target to take it from")

    def _scaled_size(self, in_size: Pair) -> Pair | None:
        """What `scale_factor` makes of a size."""
        if self.scale_factor is None:
            return None
        return int(in_size[0] * self.scale_factor[0]), int(in_size[1] * self.scale_factor[1])

    def _deconv_size(self, in_size: Pair, kernel: Pair | None) -> Pair:
        """All that a `deconv` gives behind its offset."""
        kh, kw = self.kernel if kernel is None else kernel
        return (
            (in_size[0] - 1) * self.factor[0] + kh - self.offset[0],
            (in_size[1] - 1) * self.factor[1] + kw - self.offset[1],
        )

    def check(self, in_size: Pair, out_size: Pair, kernel: Pair | None = None) -> None:
        """Refuses an output of ``out_size`` that scores of ``in_size`` cannot fill.

        Raises:
            ValueError: naming the sizes.
        """
        if self.kind == "identity" and in_size != out_size:
            raise ValueError(
                f"resample: identity of {in_size[0]}×{in_size[1]} scores, output {out_size[0]}×{out_size[1]}"
            )
        if self.kind == "deconv":
            full = self._deconv_size(in_size, kernel)
            if out_size[0] > full[0] or out_size[1] > full[1]:
                raise ValueError(
                    f"resample: {self.spec} of {in_size[0]}×{in_size[1]} scores gives at most "
                    f"{full[0]}×{full[1]} outputs, {out_size[0]}×{out_size[1]} were asked for"
                )
        wanted = self._scaled_size(in_size)
        if wanted is not None and out_size != wanted:
            raise ValueError(
                f"resample: {self.spec} of {in_size[0]}×{in_size[1]} scores gives {wanted[0]}×{wanted[1]} outputs, "
                f"{out_size[0]}×{out_size[1]} were asked for"
            )

    def axes(self, in_size: Pair, out_size: Pair) -> tuple[Axis, Axis]:
        """The vertical and the horizontal `Axis` between the two sizes."""
        return self._axis(0, in_size[0], out_size[0]), self._axis(1, in_size[1], out_size[1])

    def _axis(self, dim: int, n_in: int, n_out: int) -> Axis:
        if self.kind == "deconv":
            f = self.factor[dim]
            centre = (self.kernel[dim] - 1) / 2
            return Axis(n_in, n_out, 1 / f, (self.offset[dim] - centre) / f, True)
        if self.kind == "half_pixel":
            step = n_in / n_out if self.scale_factor is None else 1 / self.scale_factor[dim]
            return Axis(n_in, n_out, step, 0.5 * step - 0.5, False)
        if self.kind == "align_corners":
            return Axis(n_in, n_out, (n_in - 1) / (n_out - 1) if n_out > 1 else 0.0, 0.0, False)
        return Axis(n_in, n_out, 1.0, 0.0, False)

    @property
    def spec(self) -> str:
        """The kind and its numbers, without the size, as text; `parse` reads it back."""
        if self.kind == "deconv":
            numbers = f"{self.factor[0]},{self.factor[1]}:{self.offset[0]},{self.offset[1]}"
            return f"deconv:{numbers}{':odd' if self.odd else ''}"
        if self.scale_factor is not None:
            return f"{self.kind}:{self.scale_factor[0]!r},{self.scale_factor[1]!r}"
        return self.kind

    @staticmethod
    @lru_cache(maxsize=1024)
    def parse(spec: str) -> Resample:
        """The `Resample` that `spec` was made from, with size None."""
        kind, *numbers = spec.split(":")
        if kind == "deconv":
            (fy, fx), (oy, ox) = ((int(part) for part in pair.split(",")) for pair in numbers[:2])
            return Resample.deconv((fy, fx), (oy, ox), odd=len(numbers) == 3)
        if kind == "half_pixel" and numbers:
            sy, sx = (float(part) for part in numbers[0].split(","))
            return Resample.half_pixel(scale_factor=(sy, sx))
        return {
            "half_pixel": Resample.half_pixel(),
            "align_corners": Resample.align_corners(),
            "identity": Resample.identity(),
        }[kind]
