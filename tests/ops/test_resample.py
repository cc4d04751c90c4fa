"""Resample and Sampling as descriptions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fcnkern import Resample, Sampling


@pytest.mark.parametrize(
    "resample",
    [
        Resample.deconv(8, 31),
        Resample.deconv((2, 3), (0, 4)),
        Resample.deconv(32, 18, odd=True),
        Resample.half_pixel(),
        Resample.half_pixel(scale_factor=(2.5, 1 / 3)),
        Resample.align_corners(),
        Resample.identity(),
    ],
)
def test_spec_reads_back(resample: Resample) -> None:
    assert Resample.parse(resample.spec) == resample


def test_axes_of_the_paper_final_upsampling() -> None:
    vertical, _ = Resample.deconv(8, 31).axes((70, 70), (500, 500))
    assert (vertical.n_in, vertical.n_out, vertical.step, vertical.zero) == (70, 500, 0.125, True)
    assert vertical.shift == (31 - 7.5) / 8


def test_kernels_are_those_of_caffe() -> None:
    assert [Resample.deconv(f).kernel[0] for f in (1, 2, 3, 8, 16, 32)] == [1, 4, 5, 16, 32, 64]
    assert [Resample.deconv(f, odd=True).kernel[0] for f in (1, 2, 3, 8, 16, 32)] == [1, 3, 5, 15, 31, 63]


def test_an_odd_kernel_puts_source_points_on_pixels() -> None:
    vertical, _ = Resample.deconv(32, 18, odd=True).axes((16, 16), (500, 500))
    assert (vertical.step, vertical.shift) == (1 / 32, (18 - 31) / 32)
    assert Resample.deconv(3, odd=True) == Resample.deconv(3)
    with pytest.raises(ValueError, match="deconv:2,2:0,0:odd of 3×3 scores gives at most 7×7 outputs"):
        Resample.deconv(2, odd=True).check((3, 3), (8, 8))


def test_whole_numbers_of_any_type() -> None:
    for two in (np.int64(2), np.array([2, 2]), torch.tensor([2, 2]), [2, np.uint8(2)]):
        assert Resample.deconv(two) == Resample.deconv(2)
        assert {type(each) for each in Resample.deconv(two).factor} == {int}
    for factor in (2.0, (2, 2.5), "22", None, torch.ones(2)):
        with pytest.raises(TypeError, match="factor must be a whole number or a pair of them, got"):
            Resample.deconv(factor)
    with pytest.raises(ValueError, match=r"factor must be a whole number or a pair of them, got \(2, 2, 2\)"):
        Resample.deconv((2, 2, 2))


def test_bad_descriptions_are_named() -> None:
    with pytest.raises(ValueError, match="factor must be at least 1, got 0"):
        Resample.deconv(0)
    with pytest.raises(ValueError, match="offset must be at least 0, got -1"):
        Resample.deconv(8, -1)
    with pytest.raises(ValueError, match="size must be at least 1"):
        Resample.half_pixel((0, 5))
    for scale in (-2.0, 0, float("nan"), float("inf"), (2.0, float("nan")), 5e-324):
        with pytest.raises(ValueError, match="scale_factor must be positive and finite, got "):
            Resample.half_pixel(scale_factor=scale)
    for scale in ("2", (2, 2, 2), ()):
        with pytest.raises(TypeError, match="scale_factor must be a number or a pair of them, got "):
            Resample.half_pixel(scale_factor=scale)
    with pytest.raises(ValueError, match=r"kind must be one of deconv, .*, identity, got 'cubic'"):
        Resample("cubic")
    with pytest.raises(ValueError, match=r"p must lie in 0\.\.1"):
        Sampling(1.5)
    with pytest.raises(ValueError, match="cell must be at least 1 pixel, got 0"):
        Sampling(0.5, cell=0)
    with pytest.raises(ValueError, match=r"cell must be less than 2\*\*31 pixels, got 9223372036854775807"):
        Sampling(0.5, cell=2**63 - 1)  # kernels would add to it and drop nothing
    with pytest.raises(TypeError, match=r"cell must be a whole number, got 2\.5"):
        Sampling(0.5, cell=2.5)
    with pytest.raises(ValueError, match=r"threshold must lie in 0\.\.1, got 2"):
        Sampling.hard(2)
    with pytest.raises(TypeError, match=r"threshold must be a number in 0\.\.1, got 'half'"):
        Sampling.hard("half")
    with pytest.raises(TypeError, match="seed must be a whole number or an int64 tensor, got '1'"):
        Sampling(0.5, seed="1")
    with pytest.raises(ValueError, match="min_kept must not be negative, got -1"):
        Sampling.hard(0.5, -1)
    with pytest.raises(TypeError, match=r"min_kept must be a whole number, got 1\.5"):
        Sampling.hard(0.5, 1.5)
    with pytest.raises(ValueError, match=r"class_p must lie in 0\.\.1"):
        Sampling.balanced([])
    with pytest.raises(TypeError, match=r"class_p must be several numbers, one per class, got 0\.3"):
        Sampling.balanced(0.3)
