"""Sampling, bad input and PyTorch's own checks for upsample_cross_entropy, on every backend."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fcnkern
from fcnkern import Resample, Sampling
from fcnkern.backends._loss_call import Pixels
from fcnkern.nn import UpsampleCrossEntropyLoss
from fcnkern.ops._loss_call import LossCall
from tests.ops._truth import upsampled
from tests.placement import device_of, placed, raises_label_error, upsample_cross_entropy

DECONV = Resample.deconv(4, 5)
SIZE = (7, 10)
WORD = 0xFFFFFFFF


def philox(key: int, counter: tuple[int, int, int, int]) -> list[int]:
    """Philox4x32-10 with Python's whole numbers, after Salmon et al. (SC 2011)."""
    c, k = list(counter), [key & WORD, key >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & WORD, (a >> 32) ^ c[3] ^ k[1], a & WORD]
        k = [(k[0] + 0x9E3779B9) & WORD, (k[1] + 0xBB67AE85) & WORD]
    return c


def test_philox_of_this_file_gives_the_published_vectors() -> None:
    ones = 2**64 - 1
    assert philox(0, (0, 0, 0, 0)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox(ones, (WORD,) * 4) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert philox(0x299F31D0A4093822, pi) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def problem() -> tuple[Tensor, Tensor]:
    """fp32 scores with a gradient, and labels of which some are 255."""
    scores = (torch.randn(2, 5, 3, 4) * 3).requires_grad_()
    target = torch.randint(0, 5, (2, *SIZE))
    target[torch.rand(target.shape) < 0.1] = 255
    return scores, target


def kept(target: Tensor, seed: int, cell: int, keep: tuple[float, ...]) -> Tensor:
    """Which pixels a sampling keeps, word by word."""
    mask = torch.zeros(target.shape, dtype=torch.bool)
    for n, y, x in torch.cartesian_prod(*(torch.arange(size) for size in target.shape)).tolist():
        label = int(target[n, y, x])
        p = keep[0] if len(keep) == 1 or label == 255 else keep[label]
        mask[n, y, x] = philox(seed, (x // cell, y // cell, n, 0))[0] < p * 2**32
    return mask


@pytest.mark.parametrize(
    ("cell", "p"), [(2**31 - 1, 0.5), (32, 0.5), (8, 0.25), (5, 0.5), (1, 0.3), (8, 0.0), (8, 1.0)]
)
@pytest.mark.parametrize("reduction", ["valid", "none"])
def test_sampling_keeps_the_cells_of_philox(backend: str, cell: int, p: float, reduction: str) -> None:
    scores, target = problem()
    seed = 0x9E3779B97F4A7C15
    sampling = Sampling(p, cell=cell, seed=seed)
    loss = upsample_cross_entropy(
        scores, target, DECONV, sampling=sampling, reduction=reduction, backend=backend
    )
    (ours,) = torch.autograd.grad(loss.sum(), scores)
    masked = target.masked_fill(~kept(target, seed, cell, (p,)), 255)
    expected = upsample_cross_entropy(scores, masked, DECONV, reduction=reduction, backend="reference")
    (truth,) = torch.autograd.grad(expected.sum(), scores)
    assert torch.allclose(loss, expected, rtol=1e-5, atol=5e-6)
    assert torch.allclose(ours, truth, rtol=1e-4, atol=1e-6)


def test_class_balanced_sampling(backend: str) -> None:
    scores, target = problem()
    keep = (0.1, 0.9, 0.5, 1.0, 0.0)
    sampling = Sampling.balanced(keep, cell=8, seed=7)
    loss, stats = upsample_cross_entropy(
        scores, target, DECONV, sampling=sampling, return_stats=True, backend=backend
    )
    masked = target.masked_fill(~kept(target, 7, 8, keep), 255)
    assert int(stats[0]) == int((masked != 255).sum())
    truth = upsample_cross_entropy(scores, masked, DECONV, backend="reference")
    assert torch.allclose(loss, truth, rtol=1e-5)


@pytest.mark.parametrize(
    ("threshold", "min_kept"), [(0.5, 0), (0.1, 0), (0.0, 50), (0.05, 60), (1.0, 0), (0.0, 0)]
)
def test_hard_pixels(backend: str, threshold: float, min_kept: int) -> None:
    scores, target = problem()
    sampling = Sampling.hard(threshold, min_kept)
    loss, stats = upsample_cross_entropy(
        scores, target, DECONV, sampling=sampling, return_stats=True, backend=backend
    )
    (ours,) = torch.autograd.grad(loss, scores)
    wide = scores.detach().double().requires_grad_()
    logits = upsampled(wide, DECONV, SIZE)
    valid = target != 255
    p = logits.softmax(1).gather(1, target.masked_fill(~valid, 0)[:, None])[:, 0]
    hard = p < threshold
    if min_kept:
        hard |= p <= p[valid].sort().values[min_kept - 1]
    masked = target.masked_fill(~(hard & valid), 255)
    assert abs(int(stats[0]) - int((masked != 255).sum())) <= 1
    truth = F.cross_entropy(logits, masked, ignore_index=255, reduction="sum") / max(int(stats[0]), 1)
    (expected,) = torch.autograd.grad(truth, wide)
    assert float(loss.detach()) == pytest.approx(float(truth.detach()), rel=1e-3, abs=1e-6)
    assert float((ours - expected).norm()) <= 1e-2 * float(expected.norm()) + 1e-6


@pytest.mark.parametrize(("threshold", "min_kept"), [(0.7, 0), (0.7, 1), (0.2, 30), (0.0, 5)])
def test_pixels_without_a_number_are_hard(backend: str, threshold: float, min_kept: int) -> None:
    scores, target = problem()
    scores = scores.detach()
    scores[0, 1, 2, 2] = float("nan")
    sampling = Sampling.hard(threshold, min_kept)
    loss, stats = upsample_cross_entropy(
        scores, target, DECONV, sampling=sampling, return_stats=True, backend=backend
    )
    assert bool(loss.isnan())
    logits = upsampled(scores, DECONV, SIZE)
    p = logits.softmax(1).gather(1, target.masked_fill(target == 255, 0)[:, None])[:, 0]
    below = int(((p < threshold) | p.isnan())[target != 255].sum())
    assert abs(int(stats[0]) - max(below, min_kept, int(p[target != 255].isnan().sum()))) <= 1


def test_confident_pixels_rank_before_ignored_ones() -> None:
    """Their losses are 0, or by rounding less; those of ignored pixels are 0."""
    call = LossCall(DECONV, 255, 0.0, "valid", (), 1, (0.0, 2), False, False, False)
    pixels = Pixels.of(torch.tensor([[[0, 0, 255, 255]]]), None, None, None, call)
    losses = torch.tensor([[[-8e-7, -4e-7, 0.0, 0.0]]])
    hard = pixels.only_hard((losses, None, None, torch.tensor([2, 0])))
    assert hard.hard_losses is not None
    assert hard.cuts is not None
    assert (hard.hard_losses >= hard.cuts[1]).all()


def test_seed_comes_from_torch_and_may_be_a_tensor(backend: str) -> None:
    scores, target = problem()
    scores = scores.detach()

    def loss(seed: int | Tensor | None) -> float:
        sampling = Sampling(0.5, cell=8, seed=seed)
        return float(upsample_cross_entropy(scores, target, DECONV, sampling=sampling, backend=backend))

    torch.manual_seed(3)
    first, second = loss(None), loss(None)
    torch.manual_seed(3)
    assert [loss(None), loss(None)] == [first, second]
    assert first != second
    assert loss(5) == loss(torch.tensor(5)) != loss(6)


def test_label_out_of_range_names_value_and_place(backend: str) -> None:
    scores, target = problem()
    for value in (254, 5, -1, 2**40):
        wrong = target.clone()
        wrong[1, 5, 8] = value
        message = rf"target: label {value} at image 1, row 5, column 8; wanted 0\.\.4"
        with raises_label_error(backend, message):
            upsample_cross_entropy(scores, wrong, DECONV, backend=backend)


def test_bad_arguments_are_named() -> None:
    scores, target = problem()
    ce = upsample_cross_entropy
    with pytest.raises(ValueError, match="scores must have 4 dimensions, got float32 5×3×4"):
        ce(scores[0], target, DECONV)
    with pytest.raises(TypeError, match=r"scores must be of type .*got int64"):
        ce(scores.long(), target, DECONV)
    with pytest.raises(ValueError, match="target must have 3 dimensions"):
        ce(scores, target[0], DECONV)
    with pytest.raises(TypeError, match="target must be a tensor, got NoneType"):
        ce(scores, None, DECONV)
    with pytest.raises(TypeError, match=r"sampling must be a Sampling, such as Sampling\(p, cell\), got 0.5"):
        ce(scores, target, DECONV, sampling=0.5)
    with pytest.raises(TypeError, match=r"p must be a number or a tuple of them, got \('half',\)"):
        Sampling("half")
    with pytest.raises(TypeError, match="target must be of type uint8"):
        ce(scores, target.float(), DECONV)
    with pytest.raises(ValueError, match=r"target must be 2×7×10.*got int64 1×7×10"):
        ce(scores, target[:1], DECONV)
    with pytest.raises(ValueError, match="at most 11×15 outputs, 7×60 were asked"):
        ce(scores, torch.zeros(2, 7, 60, dtype=torch.int64), DECONV)
    with pytest.raises(ValueError, match="target must be 2×10×10"):
        ce(scores, target, Resample.half_pixel(size=10))
    with pytest.raises(ValueError, match="identity of 3×4 scores, output 7×10"):
        ce(scores, target, Resample.identity())
    with pytest.raises(ValueError, match="scores must not be empty, got float32 0×5×3×4"):
        ce(scores[:0], target, DECONV)
    with pytest.raises(ValueError, match="target must not be empty"):
        ce(scores, target[:, :0], DECONV)
    with pytest.raises(ValueError, match=r"class_weight must be 5 .*got float32 4"):
        ce(scores, target, DECONV, class_weight=torch.ones(4))
    with pytest.raises(TypeError, match=r"label_smoothing must be a number in 0\.\.1, got 'a'"):
        ce(scores, target, DECONV, label_smoothing="a")
    with pytest.raises(ValueError, match=r"label_smoothing must lie in 0\.\.1, got 1\.5"):
        ce(scores, target, DECONV, label_smoothing=1.5)
    with pytest.raises(ValueError, match="reduction must be one of valid, batch, sum, none, got 'mean'"):
        ce(scores, target, DECONV, reduction="mean")
    with pytest.raises(ValueError, match="class_p must hold 5 probabilities, got 2"):
        ce(scores, target, DECONV, sampling=Sampling.balanced([0.5, 0.5]))
    with pytest.raises(ValueError, match="backend: 'gpu' is unknown; known are cpu, triton, cuda, reference"):
        ce(scores, target, DECONV, backend="gpu")
    with pytest.raises(ValueError, match=r"weight goes with Resample.deconv\(stride, crop\), got half_pixel"):
        ce(scores, target, Resample.half_pixel(), weight=torch.ones(5, 1, 16, 16))
    with pytest.raises(ValueError, match="must be on cpu as scores is, got meta"):
        ce(scores, target.to("meta"), DECONV)


@pytest.mark.fp64
def test_gradcheck(backend: str) -> None:
    scores = torch.randn(1, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 3, (1, 5, 6))
    target[0, 0, :2] = 255

    def run(reduction: str, learned: Tensor | None) -> bool:
        def loss(*leaves: Tensor) -> Tensor:
            return upsample_cross_entropy(
                leaves[0],
                target,
                Resample.deconv(2, 1),
                weight=leaves[1] if len(leaves) > 1 else None,
                label_smoothing=0.1,
                reduction=reduction,
                backend=backend,
            )

        leaves = (scores,) if learned is None else (scores, learned)
        return torch.autograd.gradcheck(loss, leaves)

    assert run("valid", None)
    assert run("none", None)
    assert run("batch", weight)
    assert run("none", weight)


@pytest.mark.parametrize("reduction", ["valid", "none"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_opcheck(backend: str, reduction: str, layout: torch.memory_format) -> None:
    device = device_of(backend)
    leaf = torch.randn(1, 3, 2, 3).to(device, memory_format=layout).requires_grad_()
    target = torch.randint(0, 3, (1, 3, 4)).to(device)
    settings = ("deconv:2,2:1,1", 255, 0.0, reduction, [0.5], 8, [], reduction != "none", False, True)
    args = (leaf, target, None, None, torch.tensor(3, device=device), None, *settings, backend)
    torch.library.opcheck(torch.ops.fcnkern.upsample_cross_entropy.default, args)


@pytest.mark.parametrize("needs", [(True, True), (True, False), (False, True)])
def test_gradients_of_a_learned_weight_are_formed_where_they_are_needed(
    backend: str, needs: tuple[bool, bool]
) -> None:
    device = device_of(backend)
    scores, weight = (torch.randn(shape).to(device) for shape in ((1, 3, 2, 3), (3, 3, 4, 4)))
    target = torch.randint(0, 3, (1, 3, 4)).to(device)
    for leaf, need in zip((scores, weight), needs, strict=True):
        leaf.requires_grad_(need)
    settings = ("deconv:2,2:1,1", 255, 0.0, "valid", [], 1, [], *needs, True)
    args = (scores, target, weight, None, None, None, *settings, backend)
    torch.library.opcheck(torch.ops.fcnkern.upsample_cross_entropy.default, args)
    formed = torch.ops.fcnkern.upsample_cross_entropy(*args)[1:3]
    assert [grad.numel() > 0 for grad in formed] == list(needs)
    loss = upsample_cross_entropy(scores, target, Resample.deconv(2, 1), weight=weight, backend=backend)
    loss.backward()
    for leaf, grad, need in zip((scores, weight), formed, needs, strict=True):
        assert torch.equal(leaf.grad, grad) if need else leaf.grad is None


def test_compile_and_export() -> None:
    torch._dynamo.reset()
    loss = UpsampleCrossEntropyLoss(Resample.half_pixel(), sampling=Sampling(0.5, cell=8, seed=1))

    def step(scores: Tensor, target: Tensor) -> Tensor:
        return loss(scores * 2, target)

    compiled = torch.compile(step, fullgraph=True, dynamic=True)
    for height, width in ((6, 7), (8, 5)):
        scores = torch.randn(2, 5, height, width, requires_grad=True)
        target = torch.randint(0, 5, (2, 8 * height, 8 * width), dtype=torch.uint8)
        (ours,) = torch.autograd.grad(compiled(scores, target), scores)
        (eager,) = torch.autograd.grad(step(scores, target), scores)
        assert torch.equal(ours, eager)
    exported = torch.export.export(loss, (scores.detach(), target))
    assert torch.equal(exported.module()(scores.detach(), target), loss(scores.detach(), target))


@pytest.mark.parametrize("reduction", ["valid", "none"])
def test_gradients_through_vmap(backend: str, reduction: str) -> None:
    """Inside, scores do not say that they want a gradient, so that none is formed on the way."""
    scores, target = problem()
    several = torch.stack((scores, scores * 2)).detach().requires_grad_()

    def loss(some: Tensor) -> Tensor:
        return fcnkern.upsample_cross_entropy(
            some, target.to(some.device), DECONV, reduction=reduction, backend=backend
        )

    batched = placed(torch.vmap(loss), backend)(several)
    one_by_one = torch.stack([placed(loss, backend)(some) for some in several])
    assert torch.equal(batched, one_by_one)
    ours, theirs = (torch.autograd.grad(each.sum(), several)[0] for each in (batched, one_by_one))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("reduction", ["valid", "none"])
def test_several_gradients_at_once(backend: str, reduction: str) -> None:
    """As `torch.autograd.functional.jacobian` asks for with ``vectorize=True``."""
    scores, target = problem()
    loss = upsample_cross_entropy(scores, target, DECONV, reduction=reduction, backend=backend)
    slopes = torch.randn(3, *loss.shape)
    (ours,) = torch.autograd.grad(loss, scores, slopes, retain_graph=True, is_grads_batched=True)
    theirs = [torch.autograd.grad(loss, scores, slope, retain_graph=True)[0] for slope in slopes]
    torch.testing.assert_close(ours, torch.stack(theirs))


@pytest.mark.parametrize(("scores_size", "size"), [((1, 1), (11, 12)), ((3, 4), (1, 1))])
def test_aligned_corners_with_no_step(
    backend: str, scores_size: tuple[int, int], size: tuple[int, int]
) -> None:
    """From a single point or to a single pixel, all outputs of both axes read one place."""
    scores, target = torch.randn(2, 3, *scores_size), torch.randint(0, 3, (2, *size))
    results = []
    for name in (backend, "reference"):
        leaf = scores.clone().requires_grad_()
        loss = upsample_cross_entropy(leaf, target, Resample.align_corners(), backend=name)
        results.append((loss, *torch.autograd.grad(loss, leaf)))
    torch.testing.assert_close(*results)


def test_autocast_reads_low_precision_scores(backend: str) -> None:
    scores, target = problem()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = F.conv2d(scores, torch.eye(5)[:, :, None, None])
    with torch.autocast(device_of(backend), dtype=torch.bfloat16):
        loss = upsample_cross_entropy(low, target, DECONV, backend=backend)
    assert low.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.dtype == torch.float32
