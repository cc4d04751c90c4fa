"""Offsets, sizes and receptive fields: the published numbers of the paper's networks."""

from __future__ import annotations

import pytest

from fcnkern.models import geometry as g

UP2 = g.bilinear_deconv(2)


def streams(pad: int) -> dict[str, int]:
    fc7 = g.vgg16_layers("fc7", pad=pad)
    up2 = fc7 + [UP2]
    up4 = up2 + [UP2]
    return {
        "32s": g.crop_offset(fc7 + [g.bilinear_deconv(32)], []),
        "pool4": g.crop_offset(g.vgg16_layers("pool4", pad=pad), up2),
        "16s": g.crop_offset(up2 + [g.bilinear_deconv(16)], []),
        "pool3": g.crop_offset(g.vgg16_layers("pool3", pad=pad), up4),
        "8s": g.crop_offset(up4 + [g.bilinear_deconv(8)], []),
    }


@pytest.mark.parametrize("pad", [81, 97, 100, 128])
def test_crop_offsets_of_vgg16_for_any_pad(pad: int) -> None:
    assert streams(pad) == {"32s": pad - 81, "pool4": 5, "16s": pad - 73, "pool3": 9, "8s": pad - 69}


def test_crop_offsets_of_the_paper() -> None:
    assert streams(100) == {"32s": 19, "pool4": 5, "16s": 27, "pool3": 9, "8s": 31}


def caffenet() -> list[g.Layer]:
    pool, conv = g.Layer(3, 2, ceil=True), g.Layer(3, 1, 1)
    return [g.Layer(11, 4, 100), pool, g.Layer(5, 1, 2), pool, conv, conv, conv, pool, g.Layer(6)]


def test_odd_pools_need_an_odd_upsampling_kernel() -> None:
    assert g.crop_offset(caffenet() + [g.Layer(63, 32, up=True)], []) == 18
    with pytest.raises(ValueError, match=r"whole number >= 0, it is 37/2"):
        g.crop_offset(caffenet() + [g.Layer(64, 32, up=True)], [])


def test_a_crop_between_different_strides_or_before_the_start_is_refused() -> None:
    with pytest.raises(ValueError, match="different strides"):
        g.crop_offset(g.vgg16_layers("pool4"), g.vgg16_layers("pool3"))
    with pytest.raises(ValueError, match="it is -1"):
        g.crop_offset(g.vgg16_layers("fc7", pad=80) + [g.bilinear_deconv(32)], [])


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (g.vgg16_layers("fc7"), (404, 32)),
        (g.vgg16_layers("pool5"), (212, 32)),
        (g.vgg16_layers("pool4"), (100, 16)),
        (g.vgg16_layers("pool3"), (44, 8)),
        (caffenet(), (355, 32)),
    ],
)
def test_receptive_fields(layers: list[g.Layer], expected: tuple[int, int]) -> None:
    assert g.receptive_field(layers) == expected


def test_receptive_field_of_upsampling_is_refused() -> None:
    with pytest.raises(ValueError, match="upsampling"):
        g.receptive_field([UP2])


SIZES = {  # pool3, pool4, pool5, fc7, up32, upscore2, up16, upscore_pool4, up8
    500: (88, 44, 22, 16, 544, 34, 560, 70, 568),
    375: (72, 36, 18, 12, 416, 26, 432, 54, 440),
    224: (53, 27, 14, 8, 288, 18, 304, 38, 312),
    1: (25, 13, 7, 1, 64, 4, 80, 10, 88),
}


@pytest.mark.parametrize("n", SIZES)
def test_sizes(n: int) -> None:
    body = [g.output_size(g.vgg16_layers(name), n) for name in ("pool3", "pool4", "pool5", "fc7")]
    fc7 = g.vgg16_layers("fc7")
    heads = [[32], [2], [2, 16], [2, 2], [2, 2, 8]]
    ups = [g.output_size(fc7 + [g.bilinear_deconv(f) for f in factors], n) for factors in heads]
    assert (*body, *ups) == SIZES[n]


def croppable(n: int) -> bool:
    size = {name: g.output_size(g.vgg16_layers(name), n) for name in ("pool3", "pool4", "fc7")}
    f = size["fc7"]
    finals = (32 * f + 32 - 19 >= n, 32 * f + 48 - 27 >= n, 32 * f + 56 - 31 >= n)
    return f >= 1 and size["pool4"] - 5 >= 2 * f + 2 and size["pool3"] - 9 >= 4 * f + 6 and all(finals)


def test_every_size_can_be_cropped() -> None:
    assert all(croppable(n) for n in range(1, 1000))


def test_unknown_layer_is_named() -> None:
    with pytest.raises(ValueError, match="'pool6'"):
        g.vgg16_layers("pool6")
