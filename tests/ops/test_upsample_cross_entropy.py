"""upsample_cross_entropy on every backend, against plain PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fcnkern import Resample, upsample_cross_entropy
from tests.ops._truth import GEOMETRIES, assert_as_exact_as_torch, upsampled

DECONV = Resample.deconv(8, 11)


def problem(
    size_in: tuple[int, int], size_out: tuple[int, int], classes: int = 5, images: int = 2
) -> tuple[Tensor, Tensor]:
    """fp64 scores, and int64 labels of which some are 255."""
    scores = torch.randn(images, classes, *size_in, dtype=torch.float64) * 3
    target = torch.randint(0, classes, (images, *size_out))
    target[torch.rand(target.shape) < 0.1] = 255
    return scores, target


def plain(
    scores: Tensor,
    target: Tensor,
    resample: Resample,
    weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    ignore_index: int = 255,
    label_smoothing: float = 0.0,
    reduction: str = "valid",
) -> Tensor:
    """The same loss by upsampling and F.cross_entropy."""
    logits = upsampled(scores, resample, target.shape[1:], weight)
    loss = F.cross_entropy(
        logits,
        target.long(),
        None if class_weight is None else class_weight.to(scores.dtype),
        ignore_index=ignore_index,
        reduction={"valid": "mean", "batch": "sum"}.get(reduction, reduction),
        label_smoothing=label_smoothing,
    )
    return loss / scores.shape[0] if reduction == "batch" else loss


def with_gradient(loss: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Loss and gradients; a map of losses is weighted first so that its gradient varies."""
    weighted = (
        loss if loss.dim() == 0 else loss * torch.linspace(-1, 2, loss.numel()).view(loss.shape).to(loss)
    )
    return [loss.detach(), *torch.autograd.grad(weighted.sum() * 1.5, inputs)]


def check(
    backend: str,
    scores64: Tensor,
    target: Tensor,
    resample: Resample,
    dtype: torch.dtype = torch.float32,
    weight64: Tensor | None = None,
    **options: Any,
) -> None:
    """Loss and gradients against the truth by the rule of _truth."""
    inputs = [tensor.to(dtype) for tensor in (scores64, weight64) if tensor is not None]

    def run(function: Any, kind: torch.dtype, **more: Any) -> list[Tensor]:
        leaves = [tensor.to(kind).requires_grad_() for tensor in inputs]
        learned = leaves[1] if len(leaves) > 1 else None
        return with_gradient(function(leaves[0], target, resample, weight=learned, **options, **more), leaves)

    ours = run(upsample_cross_entropy, dtype, backend=backend)
    for index, (value, name) in enumerate(zip(ours, ("loss", "gradient", "weight gradient"), strict=False)):
        assert_as_exact_as_torch(value, lambda kind, index=index: run(plain, kind)[index], dtype, name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_geometry(backend: str, name: str, dtype: torch.dtype) -> None:
    size_in, size_out, resample = GEOMETRIES[name]
    check(backend, *problem(size_in, size_out), resample, dtype)


@pytest.mark.parametrize("classes", [1, 2, 21, 150, 300])
def test_numbers_of_classes(backend: str, classes: int) -> None:
    check(backend, *problem((4, 5), (20, 24), classes), DECONV)


@pytest.mark.parametrize("reduction", ["valid", "batch", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_reductions_weights_and_smoothing(
    backend: str, reduction: str, smoothing: float, weighted: bool
) -> None:
    class_weight = torch.rand(5) + 0.2 if weighted else None
    options = {"class_weight": class_weight, "label_smoothing": smoothing, "reduction": reduction}
    check(backend, *problem((6, 7), (35, 40)), DECONV, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["nchw", "channels_last", "strided"])
def test_dtypes_and_layouts(backend: str, dtype: torch.dtype, layout: str) -> None:
    scores, target = problem((6, 7), (35, 40))
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


@pytest.mark.parametrize("label_type", [torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("ignore_index", [255, 3, 0, -1])
def test_label_types_and_ignored_labels(backend: str, label_type: torch.dtype, ignore_index: int) -> None:
    if label_type == torch.uint8 and ignore_index == -1:
        ignore_index = 254
    scores, target = problem((6, 7), (35, 40))
    target[target == 255] = ignore_index
    check(backend, scores, target.to(label_type), DECONV, ignore_index=ignore_index)


@pytest.mark.parametrize("kind", ["dense", "depthwise", "more outputs"])
@pytest.mark.parametrize("reduction", ["valid", "none"])
def test_learned_weight(backend: str, kind: str, reduction: str) -> None:
    scores, target = problem((6, 7), (35, 40))
    shape = {"dense": (5, 5, 16, 16), "depthwise": (5, 1, 16, 16), "more outputs": (5, 6, 13, 15)}[kind]
    weight = torch.randn(shape, dtype=torch.float64) * 0.2
    check(backend, scores, target, DECONV, weight64=weight, reduction=reduction, label_smoothing=0.1)


@pytest.mark.parametrize("factor", [8.0, 20.0, 60.0])
def test_steep_scores(backend: str, factor: float) -> None:
    scores, target = problem((6, 7), (35, 40))
    check(backend, scores * factor, target, DECONV)


@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_common_offset_of_all_scores(backend: str, offset: float) -> None:
    scores, target = problem((6, 7), (35, 40))
    check(backend, (scores.float() + offset).double(), target, Resample.half_pixel())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e30, -1e30])
def test_non_finite_scores_give_what_torch_gives(backend: str, value: float) -> None:
    scores, target = problem((6, 7), (35, 40))
    scores = scores.float()
    scores[0, 2, 3, 4] = value
    ours, truth = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    loss = upsample_cross_entropy(ours, target, DECONV, reduction="sum", backend=backend)
    expected = plain(truth, target, DECONV, reduction="sum")
    loss.backward()
    expected.backward()
    assert torch.allclose(loss, expected, rtol=1e-5, equal_nan=True)
    assert torch.equal(ours.grad.isnan(), truth.grad.isnan())
    assert torch.allclose(ours.grad[1], truth.grad[1], rtol=1e-4, atol=5e-5)


def test_class_masked_by_minus_infinity(backend: str) -> None:
    scores, target = problem((6, 7), (35, 40))
    scores = scores.float()
    scores[:, 2] = float("-inf")
    target[target == 2] = 255
    loss = upsample_cross_entropy(scores, target, DECONV, backend=backend)
    others = scores[:, [0, 1, 3, 4]]
    renamed = torch.where(target == 255, 255, target - (target > 2).long())
    assert torch.allclose(loss, plain(others, renamed, DECONV), rtol=1e-5)


@pytest.mark.parametrize("reduction", ["valid", "batch", "sum", "none"])
def test_all_ignored_gives_zero_loss_and_gradient(backend: str, reduction: str) -> None:
    scores = torch.randn(2, 5, 6, 7, requires_grad=True)
    target = torch.full((2, 35, 40), 255)
    loss = upsample_cross_entropy(scores, target, DECONV, reduction=reduction, backend=backend)
    loss.sum().backward()
    assert torch.count_nonzero(loss) == 0
    assert torch.count_nonzero(scores.grad) == 0


def test_counts(backend: str) -> None:
    scores, target = problem((6, 7), (35, 40))
    _, stats = upsample_cross_entropy(scores.float(), target, DECONV, return_stats=True, backend=backend)
    right = upsampled(scores, DECONV, target.shape[1:]).argmax(1) == target
    assert stats.tolist() == [int((target != 255).sum()), int(right.sum())]
    assert stats.dtype == torch.int64


def test_initial_loss_is_log_of_classes(backend: str) -> None:
    for classes, expected in ((21, 3.04452), (40, 3.68888), (33, 3.49651), (60, 4.09434)):
        target = torch.randint(0, classes, (1, 35, 40))
        loss = upsample_cross_entropy(torch.zeros(1, classes, 6, 7), target, DECONV, backend=backend)
        assert float(loss) == pytest.approx(expected, abs=1e-5)


def test_no_gradient_where_none_is_asked(backend: str) -> None:
    scores, target = problem((6, 7), (35, 40))
    leaf = scores.float().requires_grad_()
    with torch.no_grad():
        assert not upsample_cross_entropy(leaf, target, DECONV, backend=backend).requires_grad
    assert not upsample_cross_entropy(leaf.detach(), target, DECONV, backend=backend).requires_grad


def test_retained_graph_survives_changes_of_its_gradients(backend: str) -> None:
    scores, target = problem((6, 7), (35, 40))
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
    scores, target = problem((6, 7), (35, 40))
    leaf = scores.float().requires_grad_()
    loss = upsample_cross_entropy(leaf, target, DECONV, backend=backend)
    (first,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    (again,) = torch.autograd.grad(loss, leaf, retain_graph=True, create_graph=True)
    assert torch.equal(first, again)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        again.sum().backward()
