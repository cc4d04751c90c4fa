"""What a case must move and compute, by hand for one of each; how times and shares are taken."""

from __future__ import annotations

import pytest
import torch

from benchmarks import bounds
from benchmarks.bounds import Work, work
from benchmarks.cases import ARGMAX, CASES, LOSS, Case, Shape
from benchmarks.kernel_time import kernel_share
from benchmarks.timing import FLUSHED_BYTES
from fcnkern import Resample, upsample_argmax

LARGEST_CACHE = 126 << 20  # bytes of the second level, of any GPU that is sold
VOC_SCORES, VOC_PIXELS = 21 * 70 * 70, 500 * 500
ADDED = 21 * 70 * 70  # outputs of the skip step
FC7_PIXELS = 22 * 22
CELLS = 64  # along 500 pixels, the first at (31 - 3.5) / 8, the last at (530 - 3.5) / 8: cells 3 to 65, half of 66
VOC_PRODUCTS = 21 * (18 * CELLS * CELLS + 3 * 500 * CELLS + 3 * VOC_PIXELS) + 2.5 * VOC_PIXELS

BY_HAND = {
    # scores read and their gradient written, labels of 8 bytes or 1
    "loss 21×500×500 deconv(8, 31)": (4 * 2 * VOC_SCORES + 8 * VOC_PIXELS, 2 * VOC_PRODUCTS),
    "loss 21×500×500 deconv(8, 31), uint8": (4 * 2 * VOC_SCORES + VOC_PIXELS, 2 * VOC_PRODUCTS),
    "confusion of label maps 21×500×500": ((8 + 8) * VOC_PIXELS, 0),
    "skip step 512→21×70×70": (4 * (21 * 34 * 34 + ADDED + 512 * 70 * 70), 2 * ADDED * (512 + 4 * 21)),
    "skip step 512→21×70×70, gradients": (
        2 * 4 * (21 * 34 * 34 + ADDED + 512 * 70 * 70),
        3 * 2 * ADDED * (512 + 4 * 21),
    ),
    "1×1, ReLU, dropout 4096→21×22×22": (
        4 * (FC7_PIXELS * (4096 + 21) + 21 * 4096),
        2 * FC7_PIXELS * 21 * 4096,
    ),
    "1×1, ReLU, dropout 1024→1024×22×22, gradients": (
        2 * 4 * (FC7_PIXELS * 2048 + 1024 * 1024),
        3 * 2 * FC7_PIXELS * 1024 * 1024,
    ),
    "ReLU, max pool 2×2 of 16×698×698": (4 * 16 * (698 * 698 + 349 * 349), 0),
    "ReLU, max pool 2×2 of 16×698×698, gradients": (
        2 * 4 * 16 * (698 * 698 + 349 * 349) + 2 * 16 * 349 * 349,
        0,
    ),
}


def worked(name: str) -> Work:
    return work(next(case for case in CASES if case.name == name))


@pytest.mark.parametrize("name", BY_HAND)
def test_bytes_and_flops_are_those_counted_by_hand(name: str) -> None:
    assert worked(name)[:2] == BY_HAND[name]


def test_exponentials_are_those_counted_by_hand() -> None:
    """Four for each class and cell that a pixel falls into, its logarithm, a reciprocal for four pixels."""
    assert worked("loss 21×500×500 deconv(8, 31)").exponentials == 85 * CELLS * CELLS + VOC_PIXELS / 4


def test_a_sampled_loss_draws_and_takes_the_rows_with_a_kept_pixel() -> None:
    """Scores of 2×2 at factor 8 half_pixel: cells of 4, 8 and 4 pixels a side."""
    case = Case("", LOSS, Shape(5, (2, 2), (16, 16)), {}, keep=0.25, cell=8)
    draws = torch.tensor([1.0, 2.0, 1.0])
    cells = (1 - 0.75 ** torch.outer(draws, draws)).sum().item()
    rows = 16 * (1 - 0.75**draws).sum().item()
    assert work(case).flops == pytest.approx(2 * (5 * (18 * cells + 3 * rows + 3 * 64) + 2.5 * 64 + 40 * 4))


def test_classes_that_cannot_win_in_a_cell_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.tensor([[[0.0, 0.0, 9.0]], [[2.0, 2.0, 2.0]], [[1.0, 3.0, 1.0]]])[None]
    monkeypatch.setattr(bounds, "draw_scores", lambda case: scores)
    case = Case("", ARGMAX, Shape(3, (1, 3), (8, 24)), {})
    # Cells of 4, 8, 8 and 4 columns: class 1 alone, classes 1 and 2, all three, class 0 alone.
    pixels = 8 * (4 * 1 + 8 * 2 + 8 * 3 + 4 * 1)
    assert work(case) == Work(4 * 9 + 8 * 24, 2 * (pixels + 6 * 3 * 2 * 4))


def test_the_coarse_network_is_counted_layer_by_layer() -> None:
    """VGG16 at an eighth of the width: sides are 96 + 200 - 2, halved upwards by each pool."""
    channels = [(3, 8), (8, 8), (8, 16), (16, 16), (16, 32), *2 * [(32, 32)], (32, 64), *5 * [(64, 64)]]
    sides = [294, 294, 147, 147, *3 * [74], *3 * [37], *3 * [19]]
    layers = [(3, *each, side) for each, side in zip(channels, sides, strict=True)]
    layers += [(7, 64, 512, 4), (1, 512, 512, 4), (1, 512, 21, 4)]
    flops = sum(2 * k**2 * inputs * outputs * side**2 for k, inputs, outputs, side in layers)
    parameters = sum(k**2 * inputs * outputs + outputs for k, inputs, outputs, _ in layers)
    found = worked("VGG16 at an eighth of the width, 96×96, scores 16 pixels apart")
    assert found == Work(4 * parameters, flops)


def test_a_kernels_share_is_a_part_of_the_call() -> None:
    scores = torch.randn(1, 21, 70, 70)

    def call() -> torch.Tensor:
        return upsample_argmax(scores, Resample.deconv(8, 31, (500, 500)), backend="cpu")

    share = kernel_share(call)
    assert 0 < share <= 1
    assert kernel_share(lambda: [call(), *(scores.exp() for _ in range(500))]) < share
    assert kernel_share(lambda: scores.exp()) == 0


def test_a_gpu_finds_nothing_in_its_cache() -> None:
    assert FLUSHED_BYTES >= 2 * LARGEST_CACHE
