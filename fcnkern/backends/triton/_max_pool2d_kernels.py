"""Kernels of `max_pool2d`: outputs from windows, and the gradients of elements from the windows that they are in.

A dense batch is planes of lines of pixels of ``depth`` numbers: N·C planes of depth 1, or in channels_last N planes
of depth C. A program takes COLUMNS neighbouring numbers of BLOCK ÷ COLUMNS lines.
"""

from __future__ import annotations

import triton
import triton.language as tl

NO_WINNER = tl.constexpr(255)
_SIZES = ["lines", "height", "width", "out_height", "out_width"]


@triton.jit
def _place(lines, height, width, depth, BLOCK: tl.constexpr, COLUMNS: tl.constexpr):
    """Of each number of a program: whether it is there, plane, line in it, column, place in the pixel."""
    lane = tl.arange(0, BLOCK)
    line = tl.program_id(0) * (BLOCK // COLUMNS) + lane // COLUMNS
    number = tl.program_id(1) * COLUMNS + lane % COLUMNS
    there = (line < lines) & (number < width * depth)
    return there, line // height, line % height, number // depth, number % depth


@triton.jit(do_not_specialize=_SIZES)
def _max_pool2d_fwd_kernel(
    x_ptr, out_ptr, winners_ptr, lines, height, width, out_height, out_width, depth,
    KERNEL_Y: tl.constexpr, KERNEL_X: tl.constexpr, STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr,
    PAD_Y: tl.constexpr, PAD_X: tl.constexpr, RELU: tl.constexpr, WINNERS: tl.constexpr,
    INDEX: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The largest element of each window, and with WINNERS its place.

    Reads each element once for each window that it is in, from the caches but for the first time; writes each output,
    and a byte for each winner. No exponentials; bound by memory: of 2x2 windows in fp32, 16 bytes in and 5 out.
    """
    there, plane, y, x, inner = _place(lines, out_height, out_width, depth, BLOCK, COLUMNS)
    top, left = y * STRIDE_Y - PAD_Y, x * STRIDE_X - PAD_X
    source = ((plane.to(INDEX) * height + top) * width + left) * depth + inner
    best = tl.full((BLOCK,), float("-inf"), tl.float32)
    winner = tl.maximum(-top, 0) * KERNEL_X + tl.maximum(-left, 0)
    for place in range(KERNEL_Y * KERNEL_X):
        row, column = place // KERNEL_X, place % KERNEL_X
        inside = there & (top + row < height) & (left + column < width)
        if PAD_Y + PAD_X > 0:
            inside &= (top + row >= 0) & (left + column >= 0)
        value = tl.load(x_ptr + source + (row * width + column) * depth, mask=inside, other=float("-inf"))
        value = value.to(tl.float32)
        wins = (value > best) | (value != value)
        best, winner = tl.where(wins, value, best), tl.where(wins, place, winner)
    if RELU:
        is_open = (best > 0) | (best != best)
        best, winner = tl.where(is_open, best, 0.0), tl.where(is_open, winner, NO_WINNER)
    target = ((plane.to(INDEX) * out_height + y) * out_width + x) * depth + inner
    tl.store(out_ptr + target, best.to(out_ptr.dtype.element_ty), mask=there)
    if WINNERS:
        tl.store(winners_ptr + target, winner.to(tl.uint8), mask=there)


@triton.jit(do_not_specialize=_SIZES)
def _max_pool2d_bwd_kernel(
    grad_ptr, winners_ptr, grad_x_ptr, lines, height, width, out_height, out_width, depth,
    KERNEL_Y: tl.constexpr, KERNEL_X: tl.constexpr, STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr,
    PAD_Y: tl.constexpr, PAD_X: tl.constexpr, INDEX: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
    PLACES: tl.constexpr,
):  # fmt: skip
    """The gradients of the windows that an element won, summed in fp32 in the windows' order.

    ``lines`` are of cells: the first STRIDE_Y x STRIDE_X elements of each window, at most PLACES, which are in the
    same windows, and what lies behind the last ones. Reads gradients and winners once for each cell that a window
    reaches into, from the caches but for the first time; writes every element. No exponentials, no atomics; bound
    by memory, of 2x2 windows in fp32 5 bytes in and 16 out, and of 3x3 windows by instructions.
    """
    cells_y, cells_x = tl.cdiv(height + PAD_Y, STRIDE_Y), tl.cdiv(width + PAD_X, STRIDE_X)
    there, plane, y, x, inner = _place(lines, cells_y, cells_x, depth, BLOCK, COLUMNS)
    element = tl.arange(0, PLACES)[None, :]
    down, right = element // STRIDE_X, element % STRIDE_X
    total = tl.zeros((BLOCK, PLACES), tl.float32)
    ROWS: tl.constexpr = (KERNEL_Y + STRIDE_Y - 1) // STRIDE_Y
    WIDE: tl.constexpr = (KERNEL_X + STRIDE_X - 1) // STRIDE_X
    for window in range(ROWS * WIDE):
        up, left = ROWS - 1 - window // WIDE, WIDE - 1 - window % WIDE
        row, column = y - up, x - left
        holds = there & (row >= 0) & (row < out_height) & (column >= 0) & (column < out_width)
        source = ((plane.to(INDEX) * out_height + row) * out_width + column) * depth + inner
        winner = tl.load(winners_ptr + source, mask=holds, other=NO_WINNER).to(tl.int32)[:, None]
        grad = tl.load(grad_ptr + source, mask=holds, other=0.0).to(tl.float32)[:, None]
        row_of, column_of = down + up * STRIDE_Y, right + left * STRIDE_X
        won = (winner == row_of * KERNEL_X + column_of) & (row_of < KERNEL_Y) & (column_of < KERNEL_X)
        total += tl.where(won, grad, 0.0)
    row, column = y[:, None] * STRIDE_Y - PAD_Y + down, x[:, None] * STRIDE_X - PAD_X + right
    inside = there[:, None] & (element < STRIDE_Y * STRIDE_X) & (row < height) & (column < width)
    if PAD_Y + PAD_X > 0:
        inside &= (row >= 0) & (column >= 0)
    target = ((plane.to(INDEX)[:, None] * height + row) * width + column) * depth + inner[:, None]
    tl.store(grad_x_ptr + target, total.to(grad_x_ptr.dtype.element_ty), mask=inside)
