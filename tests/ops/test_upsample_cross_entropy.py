"""upsample_cross_entropy on every backend, against plain PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fcnkern import Resample
from tests.ops._loss import DECONV, SMALL, check, plain, problem
from tests.ops._truth import upsampled
from tests.placement import ON_GPU, refusal, upsample_cross_entropy


@pytest.mark.parametrize("reduction", ["valid", "batch", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_reductions_weights_and_smoothing(
    backend: str, reduction: str, smoothing: float, weighted: bool
) -> None:
    class_weight = torch.rand(5) + 0.2 if weighted else None
    options = {"class_weight": class_weight, "label_smoothing": smoothing, "reduction": reduction}
    check(backend, *problem(*SMALL), DECONV, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["nchw", "channels_last", "strided"])
def test_dtypes_and_layouts(backend: str, dtype: torch.dtype, layout: str) -> None:
    scores, target = problem(*SMALL)
    scores = scores.to(dtype)
    if layout == "channels_last":
        scores = scores.contiguous(memory_format=torch.channels_last)
    elif layout == "strided":
        scores = scores.repeat_interleave(2, dim=3)[:, :, :, ::2]
        target = target.transpose(1, 2).contiguous().transpose(1, 2)
    leaf = scores.detach().requires_grad_()
    loss = upsample_cross_entropy(leaf, target, DECONV, backend=backend)
    loss.backward()
    assert leaf.grad is not None
    assert leaf.grad.dtype == dtype
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    wide = scores.double().contiguous().requires_grad_()
    truth = plain(wide, target, DECONV)
    truth.backward()
    tolerance = {torch.float32: 5e-7, torch.float64: 1e-12, torch.bfloat16: 4e-3, torch.float16: 1e-3}[dtype]
    assert float(loss.detach()) == pytest.approx(float(truth.detach()), rel=5e-7)
    assert float((leaf.grad.double() - wide.grad).norm()) <= tolerance * float(wide.grad.norm())


@pytest.mark.parametrize(
    ("label_type", "ignore_index"),
    [
        (torch.uint8, 255),
        (torch.uint8, 0),
        (torch.uint8, -1),
        (torch.uint8, -100),
        (torch.int16, 3),
        (torch.int16, -1),
        (torch.int16, 2**16 + 2),
        (torch.int32, 255),
        (torch.int64, -1),
        (torch.int64, 2**40),
    ],
)
def test_label_types_and_ignored_labels(backend: str, label_type: torch.dtype, ignore_index: int) -> None:
    scores, target = problem(*SMALL)
    limits = torch.iinfo(label_type)
    target[target == 255] = ignore_index if limits.min <= ignore_index <= limits.max else 1
    check(backend, scores, target.to(label_type), DECONV, ignore_index=ignore_index)


@pytest.mark.skipif(refusal("cuda") is not None, reason=str(refusal("cuda")))
@pytest.mark.parametrize(
    "resample", [DECONV, Resample.deconv(4, 5, (7, 10))], ids=["target's size", "own size"]
)
def test_cuda_kernels_take_labels_whose_type_cannot_hold_the_ignored_one(
    resample: Resample, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, target = problem(*SMALL)
    inputs = scores.float(), target.clamp(max=4).to(torch.uint8), resample
    upsample_cross_entropy(*inputs, ignore_index=-100, backend="cuda")  # makes tables of the geometry
    monkeypatch.setattr(Tensor, "to", lambda tensor, *place: pytest.fail(f"copies {tensor.dtype} labels"))
    upsample_cross_entropy(*inputs, ignore_index=-100, backend="cuda")


@pytest.mark.parametrize("factor", [4, 8])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("classes", [5, 256])
def test_bytes_that_lie_at_any_address(backend: str, factor: int, first: int, classes: int) -> None:
    images, height = (2, 3) if classes == 5 else (1, 1)  # an interpreter goes over all classes for each row
    labels = torch.randint(0, classes, (images, height, 6), dtype=torch.uint8)
    wide = labels.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    target = wide[:, :, first : first + 4 * factor]
    scores = torch.randn(images, classes, height, 4, dtype=torch.float64)
    check(backend, scores, target, Resample.half_pixel(), ignore_index=3)


def test_more_classes_than_a_byte_holds(backend: str) -> None:
    target = torch.randint(0, 257, (1, 4, 16))
    check(backend, torch.randn(1, 257, 1, 4, dtype=torch.float64), target, Resample.half_pixel())


@pytest.mark.parametrize("reduction", ["valid", "batch", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_scores_at_full_size(
    backend: str, reduction: str, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "cuda":
        from fcnkern.backends.cuda import _loss_full

        monkeypatch.setattr(_loss_full, "MOST_BLOCKS", 4)  # each takes several tiles
    scores, target = problem((19, 31), (19, 31))
    class_weight = torch.rand(5) + 0.5 if weighted else None
    check(backend, scores, target, Resample.identity(), class_weight=class_weight, reduction=reduction)


@pytest.mark.skipif(refusal("cuda") is not None, reason=str(refusal("cuda")))
def test_cuda_kernels_take_more_images_than_the_other_axes_of_a_grid_hold() -> None:
    scores, target = torch.randn(65537, 2, 1, 1), torch.randint(0, 2, (65537, 1, 1))
    loss = upsample_cross_entropy(scores, target, Resample.identity(), backend="cuda")
    assert torch.allclose(loss, plain(scores, target, Resample.identity()))


@pytest.mark.parametrize("reduction", ["valid", "batch", "sum"])
def test_gradient_of_full_size_scores_is_written_once(
    backend: str, reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend not in ON_GPU:
        pytest.skip("it keeps a band of the gradient in the cache")
    scores, target = problem((7, 10), (7, 10))
    scaled = []
    multiply = Tensor.mul_

    def watched(tensor: Tensor, by: Any) -> Tensor:
        scaled.append(tensor.shape)
        return multiply(tensor, by)

    monkeypatch.setattr(Tensor, "mul_", watched)
    inputs = scores.float().requires_grad_(), target, Resample.identity()
    upsample_cross_entropy(*inputs, reduction=reduction, backend=backend)
    assert scaled == []


@pytest.mark.parametrize("kind", ["dense", "depthwise", "more outputs"])
@pytest.mark.parametrize("reduction", ["valid", "none"])
def test_learned_weight(backend: str, kind: str, reduction: str) -> None:
    scores, target = problem(*SMALL)
    shape = {"dense": (5, 5, 8, 8), "depthwise": (5, 1, 8, 8), "more outputs": (5, 6, 7, 9)}[kind]
    weight = torch.randn(shape, dtype=torch.float64) * 0.2
    check(backend, scores, target, DECONV, weight64=weight, reduction=reduction, label_smoothing=0.1)


@pytest.mark.parametrize("reduction", ["valid", "batch", "sum", "none"])
def test_all_ignored_gives_zero_loss_and_gradient(backend: str, reduction: str) -> None:
    scores = torch.randn(2, 5, 3, 4, requires_grad=True)
    target = torch.full((2, 7, 10), 255)
    loss = upsample_cross_entropy(scores, target, DECONV, reduction=reduction, backend=backend)
    loss.sum().backward()
    assert torch.count_nonzero(loss) == 0
    assert torch.count_nonzero(scores.grad) == 0


def test_counts(backend: str) -> None:
    scores, target = problem(*SMALL)
    _, stats = upsample_cross_entropy(scores.float(), target, DECONV, return_stats=True, backend=backend)
    right = upsampled(scores, DECONV, target.shape[1:]).argmax(1) == target
    assert stats.tolist() == [int((target != 255).sum()), int(right.sum())]
    assert stats.dtype == torch.int64


def test_no_gradient_where_none_is_asked(backend: str) -> None:
    scores, target = problem(*SMALL)
    leaf = scores.float().requires_grad_()
    with torch.no_grad():
        assert not upsample_cross_entropy(leaf, target, DECONV, backend=backend).requires_grad
    assert not upsample_cross_entropy(leaf.detach(), target, DECONV, backend=backend).requires_grad


def test_retained_graph_survives_changes_of_its_gradients(backend: str) -> None:
    scores, target = problem(*SMALL)
    leaf = scores.float().requires_grad_()
    loss = upsample_cross_entropy(leaf, target, DECONV, backend=backend)
    (first,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    expected = first.clone()
    first.zero_()
    (second,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    assert torch.equal(second, expected)
    (doubled,) = torch.autograd.grad(loss * 2, leaf)
    assert torch.equal(doubled, expected * 2)


def test_backward_twice_and_second_derivative(backend: str) -> None:
    scores, target = problem(*SMALL)
    leaf = scores.float().requires_grad_()
    loss = upsample_cross_entropy(leaf, target, DECONV, backend=backend)
    (first,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    (again,) = torch.autograd.grad(loss, leaf, retain_graph=True, create_graph=True)
    assert torch.equal(first, again)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        again.sum().backward()


def test_bad_arguments_are_named() -> None:
    scores, target = problem(*SMALL)
    for value in (None, 2.0, "a"):
        with pytest.raises(TypeError, match="ignore_index must be a whole number, got "):
            upsample_cross_entropy(scores, target, DECONV, ignore_index=value)
    with pytest.raises(
        ValueError, match=r"ignore_index must lie in -2\*\*63\.\.2\*\*63-1, got 9223372036854775808"
    ):
        upsample_cross_entropy(scores, target, DECONV, ignore_index=2**63)
    weight = torch.ones(scores.shape[1], requires_grad=True)
    with pytest.raises(
        ValueError, match="class_weight gets no gradient, got one that requires it: detach it"
    ):
        upsample_cross_entropy(scores, target, DECONV, class_weight=weight)
    with pytest.raises(ValueError, match=r"scores gives 48×64 outputs, 7×10 were asked for"):
        upsample_cross_entropy(scores, target, Resample.half_pixel(scale_factor=16))
