"""What is read from a file is what it stores: every bit depth, every orientation, every size."""

from __future__ import annotations

import json
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile

from fcnkern import cli
from fcnkern.data import DataError, preset, read_image, read_input, read_label
from fcnkern.data.files import is_turned

COLOUR, GREY, TURNED = 2, 0, 0x0112


def write_png(path: Path, rows: list[bytes], width: int, depth: int, kind: int) -> None:
    """A PNG of rows that are packed already; PIL writes no such depths itself."""

    def chunk(name: bytes, content: bytes) -> bytes:
        whole = name + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("depth", "row", "expected"), [(2, b"\x1b", [0, 1, 2, 3]), (4, b"\x01\x2f", [0, 1, 2, 15])]
)
def test_labels_of_few_bits_are_read_as_stored(
    depth: int, row: bytes, expected: list[int], tmp_path: Path
) -> None:
    write_png(tmp_path / "a.png", [row, row], 4, depth, GREY)
    label = read_label(tmp_path / "a.png")
    assert label.dtype == np.uint8
    assert label.tolist() == [expected, expected]


@pytest.mark.parametrize(("depth", "row", "expected"), [(2, 0xD8, [0, 1, 2, 3]), (4, 0xF480, [0, 1, 2, 15])])
def test_labels_of_few_bits_may_begin_at_the_lowest(
    depth: int, row: int, expected: list[int], tmp_path: Path
) -> None:
    path, entry = tmp_path / "a.tif", struct.pack("<HHI", 258, 3, 1)  # the bits of a pixel
    stored = row.to_bytes(4, "little")
    Image.frombytes("L", (4, 1), stored).save(path, tiffinfo={266: 2})
    path.write_bytes(path.read_bytes().replace(entry + b"\x08", entry + bytes([depth])))
    assert read_label(path).tolist() == [expected]


@pytest.mark.parametrize("highest", [1, 20, 255, 300, 65535])
@pytest.mark.parametrize("kind", ["P2", "P5"])
def test_labels_of_any_highest_number_are_read_as_stored(kind: str, highest: int, tmp_path: Path) -> None:
    stored = np.arange(min(highest, 255) + 1)
    words = " ".join(map(str, stored)).encode()
    packed = words if kind == "P2" else stored.astype(">u1" if highest < 256 else ">u2").tobytes()
    (tmp_path / "a.ppm").write_bytes(f"{kind} {len(stored)} 1 {highest}\n".encode() + packed)
    assert read_label(tmp_path / "a.ppm").tolist() == [stored.tolist()]


def test_images_of_sixteen_bits_are_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", [bytes(range(12))], 2, 16, COLOUR)
    (tmp_path / "a.ppm").write_bytes(b"P6 2 1 65535\n" + bytes(range(12)))
    for name in ("a.png", "a.ppm"):
        with pytest.raises(DataError, match=rf"{name} has mode RGB;16B, wanted 8 bits a channel"):
            read_image(tmp_path / name)


def test_large_images_are_read_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (30, 20), (1, 2, 3)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "a.png").shape == (20, 30, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.fixture
def turned(tmp_path: Path) -> Path:
    """A data set of one image 3 high and 2 wide, which viewers show 2 high and 3 wide."""
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    exif = Image.Exif()
    exif[TURNED] = 6  # a quarter to the right
    pixels = np.arange(18, dtype=np.uint8).reshape(3, 2, 3)
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png", exif=exif)
    Image.fromarray(np.eye(3, 2, dtype=np.uint8)).save(tmp_path / "labels" / "a.png")
    (tmp_path / "train.txt").write_text("a\n")
    return tmp_path


def test_photographs_to_predict_are_upright(turned: Path) -> None:
    path = turned / "images" / "a.png"
    stored = read_image(path)
    assert stored.shape == (3, 2, 3)
    assert np.array_equal(read_input(path, preset("caffe")), np.rot90(stored, -1))


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_a_photograph_with_damaged_exif_is_read_as_stored(suffix: str, tmp_path: Path) -> None:
    exif, path = Image.Exif(), tmp_path / f"a.{suffix}"
    exif[TURNED] = 6
    Image.new("RGB", (5, 3)).save(path, exif=exif)
    path.write_bytes(path.read_bytes().replace(b"MM\0*", b"M!\0*"))
    assert not is_turned(path)
    assert read_image(path, upright=True).shape == (3, 5, 3)


def test_turned_images_of_a_data_set_are_named(turned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "check", f"folder:{turned}", "--quiet"]
    assert cli.main(words) == 0
    path = turned / "images" / "a.png"
    assert (
        f"an EXIF orientation, which is not applied, have 1 images: {path}; check" in capsys.readouterr().out
    )
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"][0]["turned"] == [str(path)]


@pytest.mark.parametrize("suffix", ["bmp", "tif"])
def test_a_damaged_size_names_the_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"huge.{suffix}"
    Image.new("RGB", (4, 4)).save(path)
    content = path.read_bytes()
    if suffix == "bmp":
        content = content[:18] + struct.pack("<i", -(2**31)) + content[22:]
    else:
        for tag in (256, 257):  # width and height, one number of four bytes each
            entry = struct.pack("<HHI", tag, 4, 1)
            content = content.replace(entry + struct.pack("<I", 4), entry + struct.pack("<I", 30_000))
    path.write_bytes(content)
    for read in (read_image, read_label):
        with pytest.raises(DataError, match=f"huge.{suffix} is truncated or not an image"):
            read(path)


def test_a_header_that_says_more_than_the_file_can_hold_takes_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "huge.bmp"
    Image.new("RGB", (4, 4)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:18] + struct.pack("<ii", 20_000, 10_000) + content[26:])
    monkeypatch.setattr(BmpImageFile, "load", lambda self: pytest.fail("memory of its size was taken"))
    for read in (read_image, read_label):
        with pytest.raises(
            DataError, match=r"huge.bmp is truncated .* says 20000x10000 pixels, .* 102 bytes"
        ):
            read(path)
