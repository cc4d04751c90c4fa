"""upsample_cross_entropy: the loss of upsampled scores, without the upsampled scores."""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor

from fcnkern._tensors import accumulation_type
from fcnkern.backends.select import implementation
from fcnkern.ops import _checks as checks
from fcnkern.ops._library import Compute, Operator, is_batched, once_differentiable
from fcnkern.ops._loss_call import REDUCTIONS, SETTINGS_SCHEMA, LossCall
from fcnkern.ops._resampled import check_resampled
from fcnkern.ops.upsample_add import outputs_of
from fcnkern.resample import Resample, check_share
from fcnkern.sampling import Sampling

Results = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]
"""Loss, gradients for scores and weight, counts: None where a call does not need them."""
Reduction = Literal["valid", "batch", "sum", "none"]


@overload
def upsample_cross_entropy(
    scores: Tensor,
    target: Tensor,
    resample: Resample,
    *,
    weight: Tensor | None = ...,
    class_weight: Tensor | None = ...,
    ignore_index: int = ...,
    label_smoothing: float = ...,
    reduction: Reduction = ...,
    sampling: Sampling | None = ...,
    return_stats: Literal[False] = ...,
    backend: str | None = ...,
) -> Tensor: ...
@overload
def upsample_cross_entropy(
    scores: Tensor,
    target: Tensor,
    resample: Resample,
    *,
    weight: Tensor | None = ...,
    class_weight: Tensor | None = ...,
    ignore_index: int = ...,
    label_smoothing: float = ...,
    reduction: Reduction = ...,
    sampling: Sampling | None = ...,
    return_stats: Literal[True],
    backend: str | None = ...,
) -> tuple[Tensor, Tensor]: ...
@overload
def upsample_cross_entropy(
    scores: Tensor,
    target: Tensor,
    resample: Resample,
    *,
    weight: Tensor | None = ...,
    class_weight: Tensor | None = ...,
    ignore_index: int = ...,
    label_smoothing: float = ...,
    reduction: Reduction = ...,
    sampling: Sampling | None = ...,
    return_stats: bool,
    backend: str | None = ...,
) -> Tensor | tuple[Tensor, Tensor]: ...
def upsample_cross_entropy(
    scores: Tensor,
    target: Tensor,
    resample: Resample,
    *,
    weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    ignore_index: int = 255,
    label_smoothing: float = 0.0,
    reduction: Reduction = "valid",
    sampling: Sampling | None = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Softmax cross-entropy of upsampled scores against full-resolution labels.

    What ``F.cross_entropy(upsample(scores), target)`` computes, with no full-resolution tensor of floats at any
    time. For scalar reductions the gradient with respect to the scores is formed in the forward pass, where it
    is needed, and only scaled in the backward.

    Args:
        scores: N×C×h×w low-resolution scores (logits), fp32, fp64, bf16 or fp16, any strides.
        target: N×H×W labels, uint8, int16, int32 or int64, any strides.
        resample: how scores become H×W; its size, if it has one, must be that of the target.
        weight: a learned transposed-convolution weight in place of the bilinear one: dense C'×C×kh×kw or
            depthwise C×1×kh×kw, of the scores' type; ``resample`` is then a `Resample.deconv` that gives stride
            and crop. Its gradient is formed too.
        class_weight: C weights; they get no gradient.
        ignore_index: label of pixels that do not count.
        label_smoothing: in 0..1, as in F.cross_entropy.
        reduction: "valid" (sum over kept valid pixels ÷ their number, or ÷ the sum of their class weights; 0
            with zero gradient where there are none), "batch" (sum ÷ N, Caffe's normalize: false), "sum", or
            "none" (N×H×W losses, 0 where ignored or dropped).
        sampling: which pixels are kept (Long et al. 2015, sections 3.4 and 4.3).
        return_stats: whether to count as well: int64 (valid kept pixels, those of them whose label is the argmax).
        backend: name that forces a backend.

    Returns:
        The loss, fp32 (fp64 for fp64 scores), or with ``return_stats`` (loss, counts). Autocast changes nothing:
        scores of 16 bits are read as they are and all sums are fp32.

    Raises:
        TypeError, ValueError: an argument has another type, rank, shape or device than stated above; on the CPU
            also a label outside 0..C-1 that is not ``ignore_index``.
    """
    checks.check_images("target", target, 3, checks.LABELS)
    check_resampled(scores, weight, resample, (target.shape[1], target.shape[2]))
    _check_target(scores, target, resample)
    classes = outputs_of(scores, weight)
    if class_weight is not None:
        checks.check_tensor("class_weight", class_weight, 1, checks.FLOATS)
        checks.check_shape("class_weight", class_weight, (classes,), "one per class")
        checks.check_device("class_weight", class_weight, "scores", scores)
        checks.check_undifferentiated("class_weight", class_weight)
    checks.check_ignore_index(ignore_index)
    check_share("label_smoothing", label_smoothing)
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    keep, seed = _draw(sampling, classes, scores)
    formed = torch.is_grad_enabled() and reduction != "none"
    call = LossCall(
        resample,
        ignore_index,
        label_smoothing,
        reduction,
        keep,
        1 if sampling is None else sampling.cell,
        None if sampling is None or sampling.threshold is None else (sampling.threshold, sampling.min_kept),
        need_grad=formed and scores.requires_grad,
        need_weight_grad=formed and weight is not None and weight.requires_grad,
        need_stats=return_stats,
    )
    loss, _, _, stats = _OP(scores, target, weight, class_weight, seed, None, call, backend)
    return (loss, stats) if return_stats else loss


def _check_target(scores: Tensor, target: Tensor, resample: Resample) -> None:
    checks.check_device("target", target, "scores", scores)
    height, width = resample.size or (target.shape[1], target.shape[2])
    checks.check_shape(
        "target", target, (scores.shape[0], height, width), "images of scores × size of resample"
    )


def _draw(sampling: Sampling | None, classes: int, scores: Tensor) -> tuple[tuple[float, ...], Tensor | None]:
    if sampling is not None and not isinstance(sampling, Sampling):
        raise TypeError(f"sampling must be a Sampling, such as Sampling(p, cell), got {sampling!r}")
    if sampling is None or not sampling.is_random:
        return (), None
    if len(sampling.keep) not in (1, classes):
        raise ValueError(f"sampling: class_p must hold {classes} probabilities, got {len(sampling.keep)}")
    return sampling.keep, checks.seed_tensor(sampling.seed, scores.device)


def _compute(
    scores: Tensor,
    target: Tensor,
    weight: Tensor | None,
    class_weight: Tensor | None,
    seed: Tensor | None,
    pixel_weight: Tensor | None,
    call: LossCall,
    backend: str | None,
) -> Results:
    run = implementation("upsample_cross_entropy", scores, backend)
    loss, grad, grad_weight, stats = run.upsample_cross_entropy_fwd(
        scores, target, weight, class_weight, seed, pixel_weight, call
    )
    return loss, None if grad is None else checks.densely(grad, scores), grad_weight, stats


def _fill(results: Results) -> tuple[Tensor, ...]:
    """Tensors for the results that the call does not need."""
    loss, grad, grad_weight, stats = results
    return (
        loss,
        loss.new_empty(0) if grad is None else grad,
        loss.new_empty(0) if grad_weight is None else grad_weight,
        loss.new_zeros(2, dtype=torch.int64) if stats is None else stats,
    )


def _fake(
    scores: Tensor,
    target: Tensor,
    weight: Tensor | None,
    class_weight: Tensor | None,
    seed: Tensor | None,
    pixel_weight: Tensor | None,
    call: LossCall,
    backend: str | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = accumulation_type(scores.dtype)
    loss = scores.new_empty(target.shape if call.reduction == "none" else (), dtype=dtype)
    grad, grad_weight = (scores.new_empty(0, dtype=dtype) for _ in range(2))
    if call.need_grad:
        grad = torch.empty_like(scores, dtype=dtype, memory_format=checks.dense_format(scores))
    if call.need_weight_grad and weight is not None:
        grad_weight = scores.new_empty(weight.shape, dtype=dtype)
    return loss, grad, grad_weight, scores.new_empty(2, dtype=torch.int64)


class _UpsampleCrossEntropy(torch.autograd.Function):
    """Scalar losses: the first backward scales in place and gives away the gradient that the forward formed.

    Later ones through a retained graph form it again: what was given away may have been changed since.
    """

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, weight: Tensor | None, run: Compute, args: tuple[Any, ...], rest: list[Any]
    ) -> Tensor:
        """``args`` are the call's, with these scores and this weight; ``rest`` takes its results after the loss."""
        results = run(scores, args[1], weight, *args[3:])
        loss: Tensor = results[0]
        rest += results[1:]
        ctx.save_for_backward(scores, args[1], weight, *args[3:5])
        *_, ctx.call, ctx.backend = args
        ctx.dtype = scores.dtype
        # Under vmap the caller saw no need of gradients.
        formed = (ctx.call.need_grad, ctx.call.need_weight_grad)
        ctx.formed = rest[:2] if formed == ctx.needs_input_grad[:2] else None
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.call.reduction == "none":
            formed = _form(ctx, ctx.call._replace(reduction="sum"), grad_loss.contiguous())
        else:
            formed = ctx.formed or _form(ctx, ctx.call, None)
            ctx.formed = None
            if not _is_one(grad_loss):
                formed = [_scaled(grad, grad_loss) for grad in formed]
        needed = ctx.needs_input_grad[:2]
        grads = (_cast(grad, ctx.dtype) if need else None for grad, need in zip(formed, needed, strict=True))
        return (*grads, None, None, None)


def _record(run: Compute, *args: Any) -> tuple[Any, ...]:
    """Runs a call of which only the loss, scores and weight concern autograd: each tensor more takes it time."""
    rest: list[Any] = []
    return (_UpsampleCrossEntropy.apply(args[0], args[2], run, args, rest), *rest)


def _form(ctx: Any, call: LossCall, pixel_weight: Tensor | None) -> list[Tensor | None]:
    """The gradients that are needed, for the scores and for the weight, from the saved inputs."""
    need_grad, need_weight_grad = ctx.needs_input_grad[:2]
    call = call._replace(need_grad=need_grad, need_weight_grad=need_weight_grad, need_stats=False)
    _, grad, grad_weight, _ = _OP(*ctx.saved_tensors, pixel_weight, call, ctx.backend)
    return [grad, grad_weight]


def _scaled(grad: Tensor | None, by: Tensor) -> Tensor | None:
    """In place, but while tracing or by several numbers."""
    if grad is None:
        return None
    return grad.mul_(by) if type(grad) is Tensor and not is_batched(by) else grad * by


def _cast(grad: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """`Tensor.to` takes microseconds to find nothing to do."""
    return grad if grad is None or grad.dtype == dtype else grad.to(dtype)


def _is_one(scalar: Tensor) -> bool:
    """Whether a number in main memory is 1, as it is where ``loss.backward()`` starts; False while tracing."""
    return type(scalar) is Tensor and scalar.is_cpu and not is_batched(scalar) and scalar.item() == 1.0


def _pack(args: tuple[Any, ...]) -> tuple[Any, ...]:
    *tensors, call, backend = args
    return (*tensors, *call.settings(), backend)


def _unpack(packed: tuple[Any, ...]) -> tuple[Any, ...]:
    *settings, backend = packed[6:]
    return (*packed[:6], LossCall.of(*settings), backend)


_OP = Operator(
    "upsample_cross_entropy",
    "(Tensor scores, Tensor target, Tensor? weight, Tensor? class_weight, Tensor? seed, Tensor? pixel_weight, "
    f"{SETTINGS_SCHEMA}, str? backend) -> (Tensor, Tensor, Tensor, Tensor)",
    _compute,
    _fake,
    (_pack, _unpack),
    _fill,
)
_OP.set_autograd(_record)
