"""The Triton upsample_add: tiles, bands, parts of sums, scratch memory, and bits that no program order changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from fcnkern.backends.reference import upsample_add as reference
from tests.placement import interpreted_only, placed_all, refusal

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(refusal("triton") is not None, reason=str(refusal("triton")))

from fcnkern.backends.triton import _upsample_add_shapes as shapes  # noqa: E402
from fcnkern.backends.triton import upsample_add as backend  # noqa: E402

ours = placed_all(backend, "triton")
OFFSET, SCALE = (3, 2), 0.5


class Case(NamedTuple):
    """Shapes of one call. ``kind``: of weight. ``skip``: None, "scores", or the number of features."""

    kind: str
    inputs: int
    outputs: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    skip: int | str | None


CASES = [
    Case("dense", 40, 70, (3, 4), (4, 4), (2, 2), 37),  # two tiles of outputs and of inputs, ragged features
    Case(
        "dense", 3, 4, (3, 2), (5, 7), (2, 3), "scores"
    ),  # three taps an axis, a phase count of no power of 2
    Case("dense", 3, 4, (2, 3), (2, 1), (3, 2), 5),  # outputs that no tap reaches
    Case("dense", 1, 2, (1, 1), (3, 3), (1, 1), None),
    Case("depthwise", 5, 5, (3, 4), (5, 6), (2, 2), "scores"),  # three taps: the general kernel
    Case("depthwise", 5, 5, (4, 3), (2, 3), (3, 2), "scores"),
    Case("depthwise", 5, 5, (6, 4), (4, 4), (2, 2), None),
    Case("depthwise", 5, 5, (3, 4), (4, 4), (2, 2), 130),
    Case("bilinear", 5, 5, (6, 3), (5, 4), (3, 2), "scores"),
    Case("bilinear", 66, 66, (1, 2), (4, 4), (2, 2), 20),
]


class Arguments(NamedTuple):
    tensors: list[Tensor | None]
    grad: Tensor
    stride: tuple[int, int]

    @property
    def needs(self) -> tuple[bool, ...]:
        return tuple(tensor is not None for tensor in self.tensors)

    def mapped(self, change: Callable[[Tensor], Tensor], image: bool = False) -> Arguments:
        """With every tensor changed, or only x, skip and the gradient."""
        tensors = [
            None if t is None else t if image and i not in (0, 2) else change(t)
            for i, t in enumerate(self.tensors)
        ]
        return Arguments(tensors, change(self.grad), self.stride)


def make(case: Case) -> Arguments:
    shape = {
        "dense": (case.inputs, case.outputs, *case.kernel),
        "depthwise": (case.outputs, 1, *case.kernel),
        "bilinear": None,
    }[case.kind]
    height, width = ((n - 1) * s + k for n, s, k in zip(case.size, case.stride, case.kernel, strict=True))
    features = case.skip if isinstance(case.skip, int) else None
    window = (height + 5, width + 4)
    tensors = [
        torch.randn(2, case.inputs, *case.size),
        None if shape is None else torch.randn(shape) * case.inputs**-0.5,
        None if case.skip is None else torch.randn(2, features or case.outputs, *window),
        None if features is None else torch.randn(case.outputs, features, 1, 1) * features**-0.5,
        None if features is None else torch.randn(case.outputs),
    ]
    return Arguments(tensors, torch.randn(2, case.outputs, height, width), case.stride)


def run(module: Any, a: Arguments) -> list[Tensor | None]:
    out = module.upsample_add_fwd(*a.tensors, a.stride, OFFSET, SCALE)
    return [out, *module.upsample_add_bwd(a.grad, *a.tensors[:4], a.stride, OFFSET, SCALE, a.needs)]


def assert_near(values: list[Tensor | None], exact: list[Tensor | None], tolerance: float = 5e-7) -> None:
    for value, truth in zip(values, exact, strict=True):
        if truth is None:
            assert value is None
        else:
            assert value is not None
            assert value.shape == truth.shape
            assert (value.double() - truth).norm() <= tolerance * truth.norm()


def same(a: list[Tensor | None], b: list[Tensor | None]) -> bool:
    return all(x is y if x is None or y is None else torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory holds NaN."""

    def poison(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *args, **kwargs: allocate(*args, **kwargs).fill_(float("nan"))

    monkeypatch.setattr(torch, "empty", poison(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poison(torch.empty_like))
    monkeypatch.setattr(Tensor, "new_empty", poison(Tensor.new_empty))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_tile_against_fp64(case: Case) -> None:
    a = make(case)
    assert_near(run(ours, a), run(reference, a.mapped(Tensor.double)))


@pytest.mark.parametrize("case", CASES[2:3] + CASES[5:6] + CASES[8:9], ids=str)
def test_channels_last_is_kept(case: Case) -> None:
    a = make(case)
    last = a.mapped(lambda t: t.to(memory_format=torch.channels_last), image=True)
    results = run(ours, last)
    assert_near(results, run(reference, a.mapped(Tensor.double)))
    for tensor in (results[0], results[1], results[3]):
        assert tensor is None or tensor.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("case", CASES[2:3] + CASES[6:7], ids=str)
def test_any_strides(case: Case) -> None:
    a = make(case)

    def spread(tensor: Tensor) -> Tensor:
        wide = torch.full((*tensor.shape[:-1], 2 * tensor.shape[-1]), float("nan"))
        wide[..., ::2] = tensor
        return wide[..., ::2]

    assert_near(run(ours, a.mapped(spread)), run(reference, a.mapped(Tensor.double)))


@pytest.mark.parametrize("case", [CASES[2], CASES[6], CASES[8]], ids=str)
def test_bands_make_up_the_whole(case: Case) -> None:
    """Near, not equal: the interpreter's matrix products round by the place of a column, those of a GPU do not."""
    a = make(case)
    x, weight = a.tensors[:2]
    height, width = a.grad.shape[2:]
    whole = ours.deconv_rows_fwd(x, weight, a.stride, (0, height), (0, width))
    needs = (True, weight is not None)
    exact = reference.upsample_add_bwd(
        a.grad, x, weight, None, None, a.stride, OFFSET, 1.0, (*needs, False, False, False)
    )
    sums: list[Tensor | None] = [None if t is None else torch.zeros_like(t) for t in exact[:2]]
    for rows in ((0, 5), (5, height)):
        for cols in ((0, width // 3), (width // 3, width)):
            band = ours.deconv_rows_fwd(x, weight, a.stride, rows, cols)
            assert torch.allclose(
                band, whole[:, :, rows[0] : rows[1], cols[0] : cols[1]], rtol=1e-6, atol=1e-6
            )
            grad = a.grad[:, :, rows[0] : rows[1], cols[0] : cols[1]]
            parts = ours.deconv_rows_bwd(grad, x, weight, a.stride, rows, cols, needs)
            sums = [None if s is None else s + p for s, p in zip(sums, parts, strict=True)]
    assert_near(sums, [None if t is None else t.double() for t in exact[:2]])


def test_a_band_of_a_slice_of_rows() -> None:
    a = make(CASES[0]._replace(inputs=3, outputs=4, size=(7, 3)))
    x, weight = a.tensors[:2]
    rows, cols = (5, 9), (0, a.grad.shape[3])
    first, last = (rows[0] - 4) // 2 + 1, (rows[1] - 1) // 2 + 1
    shifted = (rows[0] - 2 * first, rows[1] - 2 * first)
    source, grad = x[:, :, first:last], a.grad[:, :, rows[0] : rows[1]]
    band = ours.deconv_rows_fwd(x, weight, a.stride, rows, cols)
    again = ours.deconv_rows_fwd(source, weight, a.stride, shifted, cols)
    assert torch.allclose(again, band, rtol=1e-6, atol=1e-6)
    whole, _ = ours.deconv_rows_bwd(grad, x, weight, a.stride, rows, cols, (True, False))
    part, _ = ours.deconv_rows_bwd(grad, source, weight, a.stride, shifted, cols, (True, False))
    assert torch.allclose(part, whole[:, :, first:last], rtol=1e-6, atol=1e-6)
    assert not whole[:, :, :first].any()
    assert not whole[:, :, last:].any()


@interpreted_only
@pytest.mark.parametrize("case", [CASES[5], CASES[6], CASES[8]], ids=str)
def test_bits_do_not_depend_on_the_order_of_programs(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime import interpreter

    a = make(case)
    expected = run(ours, a)
    assert same(run(ours, a), expected)
    builder = interpreter.interpreter_builder
    forward = builder.set_grid_idx
    monkeypatch.setattr(builder, "set_grid_idx", lambda x, y, z: forward(builder.grid_dim[0] - 1 - x, y, z))
    assert same(run(ours, a), expected)


@pytest.mark.parametrize("case", [CASES[2], CASES[5], CASES[0]], ids=str)
def test_only_needed_gradients(case: Case) -> None:
    a = make(case)
    exact = run(reference, a.mapped(Tensor.double))[1:]
    for i, possible in enumerate(a.needs):
        if possible:
            needs = tuple(j == i for j in range(5))
            grads = ours.upsample_add_bwd(a.grad, *a.tensors[:4], a.stride, OFFSET, SCALE, needs)
            assert_near(list(grads), [truth if j == i else None for j, truth in enumerate(exact)])


@pytest.mark.parametrize("case", [CASES[1], CASES[5], CASES[8]], ids=str)
def test_infinity_reaches_the_pixels_that_read_it(case: Case) -> None:
    a = make(case)
    a.tensors[0][0, 0, 1, 1] = float("inf")
    out = ours.upsample_add_fwd(*a.tensors, a.stride, OFFSET, SCALE)
    assert torch.equal(
        out.isfinite(), reference.upsample_add_fwd(*a.tensors, a.stride, OFFSET, SCALE).isfinite()
    )


def test_gradients_of_short_types_are_summed_in_fp32() -> None:
    """A sum of 400 ones and one of 200 halves, which an accumulator of 8 bits loses."""
    x, grad = torch.ones(1, 1, 20, 20).bfloat16(), torch.ones(1, 2, 20, 20).bfloat16()
    features = torch.full((1, 16, 20, 20), 0.5).bfloat16()
    weight, skip_weight = torch.ones(1, 2, 1, 1).bfloat16(), torch.ones(2, 16, 1, 1).bfloat16()
    needs = (False, True, False, True, True)
    grads = ours.upsample_add_bwd(grad, x, weight, features, skip_weight, (1, 1), (0, 0), 1.0, needs)
    assert [float(each.flatten()[0]) for each in grads if each is not None] == [400, 200, 400]


def test_a_sum_is_split_by_its_shape_alone() -> None:
    assert shapes.split(programs=1, most=10**6) == shapes.ENOUGH_PROGRAMS
    assert shapes.split(programs=100, most=10**6) == 5
    assert shapes.split(programs=100, most=3) == 3
    assert shapes.split(programs=10**6, most=8) == 1


def test_offsets_in_a_tile_are_wide_where_they_must_be() -> None:
    from fcnkern.backends.triton._launch import index_type

    assert index_type(32 * (2**26 - 1)) == triton.language.int32
    assert index_type(0, 32 * 2**26) == triton.language.int64


def test_no_images() -> None:
    a = make(CASES[7])
    tensors = [t[:0] if t is not None and i in (0, 2) else t for i, t in enumerate(a.tensors)]
    out, *grads = run(ours, Arguments(tensors, a.grad[:0], a.stride))
    assert out is not None
    assert out.shape == a.grad[:0].shape
    assert not any(t.any() for t in grads if t is not None)
