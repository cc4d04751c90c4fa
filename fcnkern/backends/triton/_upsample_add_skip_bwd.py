"""Backward of the skip: of scores, and of features scored inside."""

from __future__ import annotations

import triton
import triton.language as tl

from fcnkern.backends.triton._math import dot
from fcnkern.backends.triton._upsample_add_tile import next_points, pixel_offsets


@triton.jit(do_not_specialize=["height", "rows"])
def _upsample_add_scores_bwd_kernel(
    grad, grad_strides, result, result_strides, scale, channels, height, width, y0, x0, rows, cols,
    CO: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """result[n, c, y, x] = scale · grad[n, c, y - y0, x - x0] in the window, 0 outside: all of N×C×height×width.

    Reads the gradient once, writes result once. Bound by those bytes.
    """
    blocks, tiles = tl.cdiv(channels, CO), tl.cdiv(height * width, P)
    program = tl.program_id(0)
    block, program = program % blocks, program // blocks
    tile, n = program % tiles, tl.cast(program // tiles, tl.int64)
    pixel = tile * P + tl.arange(0, P)
    y, x = pixel // width, pixel % width
    inside = (y >= y0) & (y < y0 + rows) & (x >= x0) & (x < x0 + cols)
    channel = block * CO + tl.arange(0, CO)
    known = (channel < channels)[:, None]
    at = (channel.to(tl.int64) * grad_strides[1])[:, None]
    at += pixel_offsets(y - y0, x - x0, grad_strides)[None, :]
    g = tl.load(grad + n * grad_strides[0] + at, mask=known & inside[None, :], other=0.0)
    at = (channel.to(tl.int64) * result_strides[1])[:, None] + pixel_offsets(y, x, result_strides)[None, :]
    value = (g.to(tl.float32) * scale).to(result.dtype.element_ty)
    tl.store(result + n * result_strides[0] + at, value, mask=known & (pixel < height * width)[None, :])


@triton.jit(do_not_specialize=["height", "rows", "splits"])
def _upsample_add_features_bwd_kernel(
    grad, grad_strides, skip, skip_strides, weight, weight_strides, result, result_strides,
    partial_weight, partial_bias, scale,
    images, outputs, features, height, width, y0, x0, rows, cols, splits,
    CO: tl.constexpr, CS: tl.constexpr, P: tl.constexpr, INDEX: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of features, of their weights and of the bias, each where its tensor is given.

    The plane height×width is that of the features, of which the window rows×cols at (y0, x0) was scored; ``result``,
    N×features×height×width, is 0 outside. partial_weight is splits×outputs×features, partial_bias splits×outputs.

    A program owns CS features and CO outputs and walks over a share of the tiles of P pixels: gradients [CO, P] times
    features give the weights' gradient, which stays in registers, and weights times gradients give the
    features'. ``result`` and partial_weight come together only where CO holds all outputs; without partial_weight
    the sum for ``result`` runs over all of them.

    Reads the features once and the gradient ceil(features / CS) times, once from memory and else from the caches;
    writes result once. 4·CO flops a feature. Bound by those bytes.
    """
    blocks = tl.cdiv(features, CS)
    groups = 1 if result is not None else tl.cdiv(outputs, CO)
    program = tl.program_id(0)
    block, program = program % blocks, program // blocks
    group, split = program % groups, program // groups
    feature = block * CS + tl.arange(0, CS)
    channel = group * CO + tl.arange(0, CO)
    tiles = tl.cdiv(height * width, P)
    share = tl.cdiv(images * tiles, splits)
    first_y, first_x = tl.arange(0, P) // width, tl.arange(0, P) % width
    pixel = split * share % tiles * P + tl.arange(0, P)
    y, x = pixel // width, pixel % width
    f, c = tl.arange(0, CS).to(INDEX)[:, None], tl.arange(0, CO).to(INDEX)[:, None]
    image_skip = skip + tl.cast(block * CS, tl.int64) * skip_strides[1]
    image_grad = grad + (
        tl.cast(group * CO, tl.int64) * grad_strides[1] - pixel_offsets(y0, x0, grad_strides)
    )
    if result is not None:
        image_result = result + tl.cast(block * CS, tl.int64) * result_strides[1]
        w = _weights(weight, weight_strides, channel, feature, outputs, features)
    weight_sum = tl.zeros((CO, CS), tl.float32)
    bias_sum = tl.zeros((CO, P), tl.float32)
    for tile in range(split * share, tl.minimum((split + 1) * share, images * tiles)):
        n = tl.cast(tile // tiles, tl.int64)
        inside = ((y >= y0) & (y < y0 + rows) & (x >= x0) & (x < x0 + cols))[None, :]
        pixels = (image_grad + n * grad_strides[0] + pixel_offsets(y, x, grad_strides))[None, :]
        g = tl.load(pixels + c * grad_strides[1], mask=(channel < outputs)[:, None] & inside, other=0.0)
        if partial_bias is not None:
            bias_sum += g.to(tl.float32)
        if partial_weight is not None:
            pixels_skip = (image_skip + n * skip_strides[0] + pixel_offsets(y, x, skip_strides))[None, :]
            wanted = (feature < features)[:, None] & inside
            v = tl.load(pixels_skip + f * skip_strides[1], mask=wanted, other=0.0)
            weight_sum = dot(g, v.T, weight_sum, PRECISION)
        if result is not None:
            value = dot(w, g, tl.zeros((CS, P), tl.float32), PRECISION)
            if partial_weight is None:
                for first in range(CO, outputs, CO):
                    later = first + tl.arange(0, CO)
                    more = _weights(weight, weight_strides, later, feature, outputs, features)
                    channels = pixels + tl.cast(first, tl.int64) * grad_strides[1]
                    wanted = (later < outputs)[:, None] & inside
                    g = tl.load(channels + c * grad_strides[1], mask=wanted, other=0.0)
                    value = dot(more, g, value, PRECISION)
            pixels_result = (image_result + n * result_strides[0] + pixel_offsets(y, x, result_strides))[
                None, :
            ]
            wanted = (feature < features)[:, None] & (y < height)[None, :]
            value = (value * scale).to(result.dtype.element_ty)
            tl.store(pixels_result + f * result_strides[1], value, mask=wanted)
        y, x = next_points(y, x, P, width, (tile + 1) % tiles == 0, first_y, first_x)
    row = tl.cast(split, tl.int64) * outputs + channel
    if partial_weight is not None:
        wanted = (channel < outputs)[:, None] & (feature < features)[None, :]
        tl.store(
            partial_weight + (row * features)[:, None] + feature[None, :], weight_sum * scale, mask=wanted
        )
    if partial_bias is not None:
        tl.store(partial_bias + row, tl.sum(bias_sum, 1), mask=(channel < outputs) & (block == 0))


@triton.jit
def _weights(weight, strides, channel, feature, outputs, features):
    """[features, outputs] of the weights of the skip."""
    at = (feature.to(tl.int64) * strides[1])[:, None] + (channel.to(tl.int64) * strides[0])[None, :]
    wanted = (feature < features)[:, None] & (channel < outputs)[None, :]
    return tl.load(weight + at, mask=wanted, other=0.0)
