from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fcnkern.data import (
    CAMVID_CLASSES,
    CAMVID_PALETTE,
    IGNORE,
    colourise,
    indexed,
    overlay,
    sheet,
    voc_palette,
)
from fcnkern.data.palette import VOID_COLOUR

LABEL = np.array([[0, 1, 10], [3, IGNORE, 11]], np.uint8)


def test_voc_palette_rule() -> None:
    palette = voc_palette()
    assert palette.shape == (256, 3)
    for index, colour in {
        0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 8: (64, 0, 0), 15: (192, 128, 128),
        20: (0, 64, 128), 255: (224, 224, 192),
    }.items():  # fmt: skip
        assert tuple(palette[index]) == colour
    assert len(np.unique(palette, axis=0)) == 256
    assert np.array_equal(voc_palette(21), palette[:21])
    with pytest.raises(ValueError, match="count is 257"):
        voc_palette(257)


def test_colourise() -> None:
    colours = colourise(LABEL, CAMVID_PALETTE)
    assert tuple(colours[0, 2]) == (0, 128, 192)
    assert tuple(colours[1, 1]) == tuple(colours[1, 2]) == VOID_COLOUR
    with pytest.raises(ValueError, match="int64"):
        colourise(LABEL.astype(np.int64), CAMVID_PALETTE)
    with pytest.raises(ValueError, match=r"palette has shape \(3,\)"):
        colourise(LABEL, np.zeros(3, np.uint8))


def test_overlay_blends_classes_and_leaves_void() -> None:
    image = np.full((2, 3, 3), 100, np.uint8)
    blended = overlay(image, LABEL, CAMVID_PALETTE, 0.25)
    assert blended[0, 1].tolist() == [107, 75, 75]
    assert blended[1, 1].tolist() == [100, 100, 100]
    assert np.array_equal(overlay(image, LABEL, CAMVID_PALETTE, 0.0), image)
    with pytest.raises(ValueError, match="same size"):
        overlay(image[:1], LABEL, CAMVID_PALETTE)
    with pytest.raises(ValueError, match="alpha is 2"):
        overlay(image, LABEL, CAMVID_PALETTE, 2)


def test_indexed_png_holds_the_label_and_its_colours() -> None:
    file = io.BytesIO()
    indexed(LABEL, CAMVID_PALETTE).save(file, "PNG")
    read = Image.open(file)
    assert read.mode == "P"
    assert np.array_equal(np.array(read), LABEL)
    assert np.array_equal(np.array(read.convert("RGB")), colourise(LABEL, CAMVID_PALETTE))


def test_sheet_shows_every_cell_and_the_legend() -> None:
    image = np.full((30, 40, 3), (9, 99, 199), np.uint8)
    label = np.full((30, 40), 4, np.uint8)
    page = np.array(sheet([(image, label)] * 2, ["image", "truth"], CAMVID_PALETTE, CAMVID_CLASSES, 120))
    cell = 120 * 90
    assert (page == (9, 99, 199)).all(2).sum() == 2 * cell
    assert (page == CAMVID_PALETTE[4]).all(2).sum() > 2 * cell
    for colour in CAMVID_PALETTE:
        assert (page == colour).all(2).any()
    plain = sheet([(image, label)] * 2, ["image", "truth"], CAMVID_PALETTE, cell_width=120)
    assert plain.width == page.shape[1]
    assert plain.height < page.shape[0]


def test_sheet_bad_input() -> None:
    with pytest.raises(ValueError, match="rows is empty"):
        sheet([], [], CAMVID_PALETTE)
    with pytest.raises(ValueError, match="a row has 1 pictures, wanted 2"):
        sheet([(LABEL,)], ["a", "b"], CAMVID_PALETTE)
