"""The C++ upsample_add: geometries against fp64, types and layouts, bands, and bits that no thread count changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from fcnkern._native import extension
from fcnkern.backends.reference import upsample_add as reference

cpu = pytest.importorskip("fcnkern.backends.cpu.upsample_add", reason="needs the compiled part")

OFFSET, SCALE = (3, 2), 0.5


class Case(NamedTuple):
    """Shapes of one call. ``skip``: None, "scores", or the number of features."""

    n: int
    inputs: int
    outputs: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    skip: int | str | None


CASES = [
    Case(1, 21, 21, (17, 15), (4, 4), (2, 2), 130),
    Case(2, 5, 7, (3, 7), (4, 4), (2, 2), "scores"),
    Case(1, 3, 4, (5, 6), (63, 63), (32, 32), None),
    Case(1, 3, 4, (3, 4), (64, 64), (32, 32), "scores"),
    Case(2, 4, 6, (5, 3), (3, 5), (2, 3), 9),
    Case(1, 4, 6, (5, 3), (2, 1), (3, 2), 9),  # outputs that no tap reaches
    Case(1, 4, 6, (5, 3), (7, 16), (1, 8), "scores"),
    Case(2, 9, 9, (1, 1), (16, 16), (8, 8), 3),
    Case(1, 40, 40, (9, 9), (4, 4), (2, 2), None),
]
KINDS = ["dense", "depthwise", "bilinear"]


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Arguments(NamedTuple):
    x: Tensor
    weight: Tensor | None
    skip: Tensor | None
    skip_weight: Tensor | None
    skip_bias: Tensor | None
    grad: Tensor
    stride: tuple[int, int]

    def to(self, *args: object, **kwargs: object) -> Arguments:
        """Every tensor converted; the layout of images only."""
        layout = kwargs.pop("memory_format", None)
        moved = [t.to(*args, **kwargs) if isinstance(t, Tensor) and args else t for t in self]
        if layout is not None:
            for i in (0, 2, 5):
                moved[i] = None if moved[i] is None else moved[i].to(memory_format=layout)
        return Arguments(*moved)

    @property
    def needs(self) -> tuple[bool, ...]:
        return tuple(t is not None for t in self[:5])


def make(case: Case, kind: str) -> Arguments:
    rng = torch.Generator().manual_seed(sum(case.size) + case.inputs)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    outputs = case.outputs if kind == "dense" else case.inputs
    x = draw(case.n, case.inputs, *case.size)
    weight = None
    if kind == "dense":
        weight = draw(case.inputs, outputs, *case.kernel) * case.inputs**-0.5
    elif kind == "depthwise":
        weight = draw(case.inputs, 1, *case.kernel)
    kernel = case.kernel if weight is not None else tuple(2 * s - s % 2 for s in case.stride)
    height, width = ((n - 1) * s + k for n, s, k in zip(case.size, case.stride, kernel, strict=True))
    skip = skip_weight = skip_bias = None
    if case.skip is not None:
        channels = outputs if isinstance(case.skip, str) else case.skip
        skip = draw(case.n, channels, height + 7, width + 5)
    if isinstance(case.skip, int):
        skip_weight, skip_bias = draw(outputs, case.skip, 1, 1) * case.skip**-0.5, draw(outputs)
    grad = draw(case.n, outputs, height, width)
    return Arguments(x, weight, skip, skip_weight, skip_bias, grad, case.stride)


def ours(a: Arguments) -> list[Tensor | None]:
    out = cpu.upsample_add_fwd(*a[:5], a.stride, OFFSET, SCALE)
    return [out, *cpu.upsample_add_bwd(a.grad, *a[:4], a.stride, OFFSET, SCALE, a.needs)]


def autograd(a: Arguments) -> list[Tensor | None]:
    """Output and gradients by plain PyTorch."""
    leaves = [None if t is None else t.clone().requires_grad_() for t in a[:5]]
    out = reference.upsample_add_fwd(*leaves, a.stride, OFFSET, SCALE)
    out.backward(a.grad)
    return [out.detach(), *(None if t is None else t.grad for t in leaves)]


def error(value: Tensor, exact: Tensor) -> float:
    return float((value.double() - exact).norm() / exact.norm().clamp_min(1e-30))


def same(a: list[Tensor | None], b: list[Tensor | None]) -> bool:
    return all(x is y if x is None or y is None else torch.equal(x, y) for x, y in zip(a, b, strict=True))


def same_but_for_order(a: list[Tensor | None], b: list[Tensor | None]) -> bool:
    """The same bits, but for the sums over pixels, whose order follows the layout of the features."""
    sums = zip(a[4:], b[4:], strict=True)
    return same(a[:4], b[:4]) and all(
        x is y if x is None or y is None else error(x, y.double()) < 5e-7 for x, y in sums
    )


def errors(values: list[Tensor | None], exact: list[Tensor | None]) -> list[float]:
    assert [v is None for v in values] == [e is None for e in exact]
    return [error(v, e) for v, e in zip(values, exact, strict=True) if v is not None and e is not None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_error_stays_at_the_level_of_torch(case: Case, kind: str) -> None:
    a = make(case, kind)
    exact = autograd(a.to(torch.float64))
    for mine, theirs in zip(errors(ours(a), exact), errors(autograd(a), exact), strict=True):
        assert mine <= max(2 * theirs, 5e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_bits_do_not_depend_on_threads_nor_but_for_sums_on_layout(case: Case, kind: str) -> None:
    a = make(case, kind)
    expected = ours(a)
    for threads in (1, 3, 7):
        torch.set_num_threads(threads)
        assert same(ours(a), expected)
    assert same_but_for_order(ours(a.to(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_results_follow_the_layout_of_x_and_skip(kind: str) -> None:
    a = make(CASES[0], kind).to(memory_format=torch.channels_last)
    out, grad_x, _, grad_skip, _, _ = ours(a)
    for t in (out, grad_x, grad_skip):
        assert t is not None
        assert t.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.bfloat16, 4e-3), (torch.float16, 5e-4)], ids=str
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES[:3] + CASES[4:5], ids=str)
def test_types(
    case: Case, kind: str, dtype: torch.dtype, tolerance: float, layout: torch.memory_format
) -> None:
    a = make(case, kind).to(dtype).to(memory_format=layout)
    results = ours(a)
    assert all(t.dtype == dtype for t in results if t is not None)
    exact = autograd(a.to(torch.float64))
    assert max(errors(results, exact)) < tolerance


@pytest.mark.parametrize("kind", KINDS)
def test_any_strides(kind: str) -> None:
    a = make(CASES[0], kind)

    def spread(t: Tensor) -> Tensor:
        wide = torch.full((*t.shape[:-1], 2 * t.shape[-1]), float("nan"))
        wide[..., ::2] = t
        return wide[..., ::2]

    spaced = Arguments(*(None if t is None else spread(t) for t in a[:6]), a.stride)
    assert same_but_for_order(ours(spaced), ours(a))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_bands_make_up_the_whole(case: Case, kind: str) -> None:
    a = make(case, kind)
    height, width = a.grad.shape[2:]
    whole = cpu.deconv_rows_fwd(a.x, a.weight, a.stride, (0, height), (0, width))
    needs = (True, a.weight is not None)
    exact = cpu.deconv_rows_bwd(
        a.grad.double(),
        a.x.double(),
        None if a.weight is None else a.weight.double(),
        a.stride,
        (0, height),
        (0, width),
        needs,
    )
    sums = [None if t is None else torch.zeros_like(t) for t in exact]
    for y0 in range(0, height, 7):
        for x0, x1 in ((0, width // 3), (width // 3, width)):
            rows = (y0, min(y0 + 7, height))
            band = cpu.deconv_rows_fwd(a.x, a.weight, a.stride, rows, (x0, x1))
            assert torch.equal(band, whole[:, :, rows[0] : rows[1], x0:x1])
            grad = a.grad[:, :, rows[0] : rows[1], x0:x1]
            parts = cpu.deconv_rows_bwd(grad, a.x, a.weight, a.stride, rows, (x0, x1), needs)
            sums = [None if s is None else s + p for s, p in zip(sums, parts, strict=True)]
    assert max(errors(sums, list(exact))) < 5e-7


def test_a_band_of_a_slice_of_rows() -> None:
    a = make(CASES[0], "dense")
    width = a.grad.shape[3]
    rows = (11, 16)
    first, last = (rows[0] - 4) // 2 + 1, (rows[1] - 1) // 2 + 1
    shifted = (rows[0] - 2 * first, rows[1] - 2 * first)
    source, grad = a.x[:, :, first:last], a.grad[:, :, rows[0] : rows[1]]
    band = cpu.deconv_rows_fwd(a.x, a.weight, a.stride, rows, (0, width))
    assert torch.equal(cpu.deconv_rows_fwd(source, a.weight, a.stride, shifted, (0, width)), band)
    whole, _ = cpu.deconv_rows_bwd(grad, a.x, a.weight, a.stride, rows, (0, width), (True, False))
    part, _ = cpu.deconv_rows_bwd(grad, source, a.weight, a.stride, shifted, (0, width), (True, False))
    assert torch.equal(part, whole[:, :, first:last])
    assert not whole[:, :, :first].any()
    assert not whole[:, :, last:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_only_needed_gradients(kind: str) -> None:
    a = make(CASES[0], kind)
    everything = cpu.upsample_add_bwd(a.grad, *a[:4], a.stride, OFFSET, SCALE, a.needs)
    for i, possible in enumerate(a.needs):
        needs = tuple(j == i and possible for j in range(5))
        grads = cpu.upsample_add_bwd(a.grad, *a[:4], a.stride, OFFSET, SCALE, needs)
        assert [g is not None for g in grads] == list(needs)
        if possible:
            assert torch.equal(grads[i], everything[i])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", [CASES[2], CASES[4]], ids=str)
def test_infinity_reaches_the_pixels_that_read_it(case: Case, kind: str) -> None:
    a = make(case, kind)
    a.x[0, 0, 1, 1] = float("inf")
    out, expected = ours(a)[0], autograd(a)[0]
    assert out is not None
    assert expected is not None
    assert torch.equal(out.isfinite(), expected.isfinite())


@pytest.mark.parametrize("kind", KINDS)
def test_every_instruction_set_and_no_read_of_unset_memory(kind: str) -> None:
    before = extension.build_info()["isa"]
    extension.poison_scratch(True)
    try:
        for isa in extension.build_info()["isas"]:
            extension.use_isa(isa)
            for case in CASES[:7]:
                a = make(case, kind)
                assert max(errors(ours(a), autograd(a.to(torch.float64)))) < 6e-7, (isa, case)
    finally:
        extension.use_isa(before)
        extension.poison_scratch(False)


@pytest.mark.parametrize("kind", KINDS)
def test_no_images(kind: str) -> None:
    a = make(Case(0, 4, 6, (5, 3), (4, 4), (2, 2), 9), kind)
    results = ours(a)
    assert results[0] is not None
    assert results[0].shape == a.grad.shape
    assert not any(t.any() for t in results[1:] if t is not None)
