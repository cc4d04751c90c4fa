"""What is special to the C++ kernels of upsample_cross_entropy: bits, scratch memory, cells and instruction sets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fcnkern import Resample, Sampling, upsample_cross_entropy
from fcnkern.backends import _bands
from fcnkern.backends.cpu._extension import kernels
from tests.ops._truth import assert_as_exact_as_torch, relative_error, upsampled

WORD = 0xFFFFFFFF


@pytest.fixture(autouse=True)
def _threads_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=kernels.build_info()["isas"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction-set level that runs here, put in force."""
    before = kernels.build_info()["isa"]
    kernels.use_isa(request.param)
    yield str(request.param)
    kernels.use_isa(before)


def problem(
    size_in: tuple[int, int],
    size_out: tuple[int, int],
    classes: int = 6,
    images: int = 2,
    spread: float = 3.0,
) -> tuple[Tensor, Tensor]:
    """fp32 scores, and labels in patches of which some pixels are 255."""
    scores = torch.randn(images, classes, *size_in) * spread
    coarse = torch.randint(0, classes, (images, 1, size_out[0] // 5 + 1, size_out[1] // 5 + 1))
    target = F.interpolate(coarse.float(), size=size_out, mode="nearest")[:, 0].long()
    target[torch.rand(target.shape) < 0.05] = 255
    return scores, target


def run(scores: Tensor, target: Tensor, resample: Resample, **options: Any) -> tuple[Tensor, Tensor]:
    """Loss and gradient of the C++ kernels."""
    leaf = scores.detach().requires_grad_()
    loss = upsample_cross_entropy(leaf, target, resample, backend="cpu", **options)
    (grad,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.detach(), grad


def truth(scores: Tensor, target: Tensor, resample: Resample) -> tuple[Tensor, Tensor]:
    """The same by plain PyTorch at the scores' precision."""
    leaf = scores.detach().requires_grad_()
    loss = F.cross_entropy(upsampled(leaf, resample, target.shape[1:]), target, ignore_index=255)
    (grad,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), grad


def test_philox_gives_the_published_vectors() -> None:
    """Salmon et al., Random123's kat_vectors."""
    assert kernels.philox4x32(0, (0, 0, 0, 0)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert kernels.philox4x32(2**64 - 1, (WORD,) * 4) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert kernels.philox4x32(0x299F31D0A4093822, pi) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


BITWISE: dict[str, tuple[tuple[int, int], tuple[int, int], Resample, dict[str, Any]]] = {
    "deconv": ((20, 20), (120, 128), Resample.deconv(8, 11), {}),
    "two cells to a band": ((9, 9), (128, 130), Resample.deconv(16, 5), {}),
    "clamped": ((17, 15), (120, 128), Resample.half_pixel(), {"label_smoothing": 0.1}),
    "downsampling": ((300, 280), (120, 128), Resample.half_pixel(), {}),
    "identity": ((120, 128), (120, 128), Resample.identity(), {"class_weight": torch.rand(24) + 0.5}),
    "sampled": ((20, 20), (120, 128), Resample.deconv(8, 11), {"sampling": Sampling(0.3, cell=16, seed=5)}),
    "hard": ((20, 20), (120, 128), Resample.deconv(8, 11), {"sampling": Sampling.hard(0.2, 5000)}),
    "none": ((20, 20), (120, 128), Resample.deconv(8, 11), {"reduction": "none"}),
}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", BITWISE)
def test_same_bits_for_any_number_of_threads(name: str, channels_last: bool) -> None:
    size_in, size_out, resample, options = BITWISE[name]
    scores, target = problem(size_in, size_out, classes=24, images=3)
    if channels_last:
        scores = scores.contiguous(memory_format=torch.channels_last)
    torch.set_num_threads(1)
    loss, grad = run(scores, target, resample, **options)
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        again, grad_again = run(scores, target, resample, **options)
        assert torch.equal(loss, again)
        assert torch.equal(grad, grad_again)
        assert grad_again.is_contiguous(memory_format=torch.channels_last) == channels_last


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", BITWISE)
def test_scratch_memory_is_written_before_it_is_read(name: str, dtype: torch.dtype) -> None:
    size_in, size_out, resample, options = BITWISE[name]
    scores, target = problem(size_in, size_out, classes=24)
    target[1, :40] = 255
    clean = run(scores.to(dtype), target, resample, **options)
    kernels.poison_scratch(True)
    try:
        poisoned = run(scores.to(dtype), target, resample, **options)
    finally:
        kernels.poison_scratch(False)
    assert torch.equal(clean[0], poisoned[0])
    assert torch.equal(clean[1], poisoned[1])


def geometries() -> Iterator[tuple[tuple[int, int], tuple[int, int], Resample]]:
    """Every factor and phase that the cells know: cut short, whole, in several parts; wide and narrow."""
    for factor in (1, 2, 3, 5, 7, 8, 9, 12, 16, 17, 20):
        kernel = 2 * factor - factor % 2
        for offset in sorted({0, 1, factor // 2, kernel - 1}):
            full = 4 * factor + kernel - offset
            yield (5, 5), (full, max(1, full - 3)), Resample.deconv(factor, offset)
    for size in ((1, 1), (3, 50), (11, 23), (5, 5), (40, 7), (64, 100)):
        yield (5, 21), size, Resample.half_pixel()
        yield (5, 21), size, Resample.align_corners()
    yield (1, 40), (9, 333), Resample.half_pixel()
    yield (40, 1), (333, 9), Resample.half_pixel()
    for factor in (16, 20, 32):  # several cells to a point, in several vectors
        yield (2, 37), (20, 37 * factor), Resample.half_pixel()
        yield (2, 37), (20, 37 * factor - 9), Resample.half_pixel()
        yield (3, 37), (20, 35 * factor), Resample.deconv(factor, factor + 3)
    yield (4, 5), (10, 13), Resample.half_pixel(scale_factor=(2.6, 2.7))


def test_geometries(isa: str) -> None:
    for size_in, size_out, resample in geometries():
        scores, target = problem(size_in, size_out, classes=3, images=1)
        target[0, 0, 0] = 1
        loss, grad = run(scores, target, resample)
        exact, exact_grad = truth(scores.double(), target, resample)
        what = f"{isa} {size_in} -> {size_out} {resample.spec}"
        assert relative_error(loss, exact) <= 5e-7, what
        error = relative_error(grad, exact_grad)
        assert error <= 5e-7 or error <= 2 * relative_error(truth(scores, target, resample)[1], exact_grad), (
            what
        )


@pytest.mark.parametrize("density", [0.0005, 0.005, 0.05])
def test_scattered_pixels(isa: str, density: float) -> None:
    """Few count: their cells share vectors, wherever they lie."""
    for factor, size_in in ((8, (4, 90)), (16, (3, 50)), (32, (2, 40))):
        scores, target = problem(size_in, (20, 39 * 16), classes=3, images=1)
        target[torch.rand(target.shape) >= density] = 255
        target[0, 5, ::200] = torch.randint(0, 3, target[0, 5, ::200].shape)
        loss, grad = run(scores, target, Resample.deconv(factor, 5))
        exact, exact_grad = truth(scores.double(), target, Resample.deconv(factor, 5))
        assert relative_error(loss, exact) <= 5e-7, f"{isa} {factor}"
        assert relative_error(grad, exact_grad) <= 5e-7, f"{isa} {factor}"


@pytest.mark.parametrize("classes", [3, 21, 90])
def test_labels_with_holes_count_as_they_do_one_by_one(isa: str, classes: int) -> None:
    """Sampled pixel by pixel, labels are counted class by class, up to a number of classes to a block."""
    sampling = Sampling(0.6, seed=7)
    for factor in (2, 3, 5, 8, 16):
        scores, target = problem((6, 40), (5 * factor, 38 * factor), classes)
        target[1] = torch.randint(0, classes, target[1].shape)
        resample = Resample.deconv(factor, factor // 2)
        losses = upsample_cross_entropy(
            scores, target, resample, sampling=sampling, reduction="none", backend="cpu"
        )
        sampled = run(scores, target, resample, sampling=sampling)
        masked = run(scores, target.where(losses > 0, 255), resample)
        assert torch.equal(sampled[0], masked[0]), f"{isa} {factor}"
        assert torch.equal(sampled[1], masked[1]), f"{isa} {factor}"


@pytest.mark.parametrize("spread", [8.0, 15.0, 30.0, 60.0])
@pytest.mark.parametrize("classes", [2, 21])
def test_steep_scores(isa: str, spread: float, classes: int) -> None:
    """On both sides of the limit between the geometric and the per-pixel path."""
    for resample, size in ((Resample.deconv(8), (136, 136)), (Resample.half_pixel(), (128, 120))):
        scores, target = problem((16, 16), size, classes, images=1, spread=spread)
        loss, grad = run(scores, target, resample)
        for index, value in enumerate((loss, grad)):
            assert_as_exact_as_torch(
                value,
                lambda kind, index=index, where=(scores, target, resample): truth(
                    where[0].to(kind), *where[1:]
                )[index],
                torch.float32,
                f"spread {spread}",
            )


@pytest.mark.parametrize("spread", [2.0, 4.0, 8.0, 16.0])
def test_steep_scores_that_lie_hardly_further_apart_than_pixels(isa: str, spread: float) -> None:
    """Then the geometric sequences are steep too, and of some cells only a first row or column counts."""
    sizes = (
        ((16, 16), (18, 18)),
        ((40, 8), (10, 64)),
        ((64, 16), (32, 64)),
        ((8, 2), (16, 2)),
        ((12, 12), (18, 29)),
    )
    for (size_in, size_out), seed in itertools.product(sizes, range(2)):
        torch.manual_seed(seed)
        scores, target = problem(size_in, size_out, classes=21, images=1, spread=spread)
        loss, grad = run(scores, target, Resample.half_pixel())
        exact, exact_grad = truth(scores.double(), target, Resample.half_pixel())
        what = f"{isa} {size_in} -> {size_out}, seed {seed}"
        assert relative_error(loss, exact) <= 1e-6, what
        assert relative_error(grad, exact_grad) <= 1e-6, what


@pytest.mark.parametrize("axis", [2, 3])
def test_infinity_stays_where_plain_torch_has_it(axis: int) -> None:
    """At every place, also where a tap has weight 0."""
    for resample, size in (
        (Resample.deconv(3, 2), (14, 15)),
        (Resample.half_pixel(), (20, 24)),
        (Resample.align_corners(), (17, 16)),
        (Resample.identity(), (5, 6)),
    ):
        for place in range((5, 6)[axis - 2]):
            scores, target = problem((5, 6), size, images=1)
            scores.select(1, 2).select(axis - 1, place).fill_(-torch.inf)
            leaf = scores.detach().requires_grad_()
            ours = upsample_cross_entropy(leaf, target, resample, reduction="none", backend="cpu")
            reference = upsample_cross_entropy(leaf, target, resample, reduction="none", backend="reference")
            assert torch.allclose(ours, reference, rtol=1e-4, atol=1e-4, equal_nan=True), (
                resample.spec,
                place,
            )
            grads = [torch.autograd.grad(loss.sum(), leaf)[0] for loss in (ours, reference)]
            assert torch.equal(grads[0].isnan(), grads[1].isnan()), (resample.spec, place)


def test_more_classes_than_bytes_hold() -> None:
    scores, target = problem((5, 6), (30, 37), classes=1030, images=1)
    target[0, :8, :8] = 1029
    target[0, 8:12] = 65535
    loss, grad = run(scores, target, Resample.deconv(8, 4), ignore_index=65535)
    with pytest.raises(ValueError, match="label 1030 at image 0, row 29, column 36"):
        run(
            scores,
            target.index_put((torch.tensor(0), torch.tensor(29), torch.tensor(36)), torch.tensor(1030)),
            Resample.deconv(8, 4),
            ignore_index=65535,
        )
    exact = F.cross_entropy(
        upsampled(scores.double(), Resample.deconv(8, 4), (30, 37)), target, ignore_index=65535
    )
    assert float(loss) == pytest.approx(float(exact), rel=5e-7)
    assert grad.isfinite().all()


@pytest.mark.parametrize("factor", [0.1, 0.3])
def test_very_many_weighted_pixels_between_two_rows_of_scores(isa: str, factor: float) -> None:
    """All pixels are alike, so that their mean is the same for any number of them."""
    scores = torch.tensor([1.0, 0.3, -2.0]).view(1, 3, 1, 1)
    weight = torch.tensor([factor, 1.0, 1.0])
    few, many = (
        run(scores, torch.zeros(1, *size, dtype=torch.uint8), Resample.half_pixel(), class_weight=weight)[0]
        for size in ((64, 64), (1024, 2048))
    )
    assert float(many) == pytest.approx(float(few), rel=1.2e-7)


@pytest.mark.parametrize("ignore_index", [-1, 255])
def test_negative_labels_are_no_class_beyond_their_type(ignore_index: int) -> None:
    """As 16 bits without a sign -30000 is 35536."""
    scores, target = torch.zeros(1, 40000, 1, 1), torch.full((1, 1, 2), 32767, dtype=torch.int16)
    loss, _ = run(scores, target, Resample.half_pixel(), ignore_index=ignore_index)
    assert float(loss) == pytest.approx(math.log(40000))
    target[0, 0, 1] = -30000
    with pytest.raises(ValueError, match="label -30000 at image 0, row 0, column 1"):
        run(scores, target, Resample.half_pixel(), ignore_index=ignore_index)


@pytest.mark.parametrize("ignore_index", [255, -1, -100])
def test_labels_that_look_ignored_or_like_a_class_in_their_last_bits(isa: str, ignore_index: int) -> None:
    """int64 labels are cut to bytes; what that loses must still be an error."""
    scores, target = problem((5, 6), (30, 37), images=1)
    target[target == 255] = ignore_index
    for label in (255, -1, 6, 254, 256, 511, 2**32 - 1, 2**32, 2**32 + 255, 2**62 + 3, -(2**63)):
        if label == ignore_index:
            continue
        wrong = target.clone()
        wrong[0, 17, 36] = label
        with pytest.raises(ValueError, match=f"label {label} at image 0, row 17, column 36"):
            run(scores, wrong, Resample.deconv(8, 4), ignore_index=ignore_index)


def test_counts_break_ties_to_the_lowest_class() -> None:
    scores = torch.zeros(1, 4, 5, 5)
    scores[:, 3] = -1
    for label, right in ((0, 30 * 30), (1, 0), (3, 0)):
        target = torch.full((1, 30, 30), label)
        _, stats = upsample_cross_entropy(
            scores, target, Resample.half_pixel(), return_stats=True, backend="cpu"
        )
        assert stats.tolist() == [900, right]


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize(
    ("kernel", "factor", "offset"), [((16, 16), 8, 11), ((5, 7), (3, 2), (1, 4)), ((2, 3), 5, 0)]
)
def test_learned_weight_in_many_bands(
    monkeypatch: pytest.MonkeyPatch, kernel: tuple[int, int], factor: int, offset: int, depthwise: bool
) -> None:
    """Bands of a few rows, kernels that overlap and kernels that leave gaps, and a sampling across the bands."""
    monkeypatch.setattr(_bands, "BAND_BYTES", 3000)
    resample = Resample.deconv(factor, offset)
    height, width = resample.out_size((6, 7), kernel)
    scores, target = problem((6, 7), (height - 2, width - 1), classes=5)
    weight = torch.randn(5, 1 if depthwise else 5, *kernel) * 0.3
    options = {"label_smoothing": 0.1, "sampling": Sampling(0.6, cell=4, seed=11), "return_stats": True}
    results = []
    for backend in ("cpu", "reference"):
        leaves = [tensor.clone().requires_grad_() for tensor in (scores, weight)]
        loss, stats = upsample_cross_entropy(
            leaves[0], target, resample, weight=leaves[1], backend=backend, **options
        )
        results.append([loss.detach(), *torch.autograd.grad(loss, leaves), stats])
    for ours, expected in zip(*results, strict=True):
        assert relative_error(ours, expected) <= 2e-6
    wrong = target.clone()
    wrong[1, height - 4, 3] = 77
    with pytest.raises(ValueError, match=f"label 77 at image 1, row {height - 4}, column 3"):
        upsample_cross_entropy(scores, wrong, resample, weight=weight, backend="cpu")
