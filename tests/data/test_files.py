"""The folder layouts, on miniature copies and on the real data where it is present."""

from __future__ import annotations

import pickle
import re
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcnkern.data import (
    CAMVID_CLASSES,
    IGNORE,
    DataError,
    camvid,
    dataset_splits,
    folder,
    open_dataset,
    read_image,
    read_label,
)

SIZE = (6, 8)


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


def labels(seed: int, top: int = 11, void: int = IGNORE) -> np.ndarray:
    label = np.random.default_rng(seed).integers(0, top, SIZE, np.uint8)
    label[0, 0], label[0, 1] = void, top - 1
    return label


def save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def by_stem(tmp_path: Path) -> Path:
    for i, stem in enumerate(("a", "sub/b", "c")):
        save(picture(i), tmp_path / "images" / f"{stem}.png")
        save(labels(i), tmp_path / "labels" / f"{stem}.png")
    (tmp_path / "train.txt").write_text("a\nsub/b\n")
    (tmp_path / "val.txt").write_text("c\n")
    return tmp_path


@pytest.fixture
def segnet(tmp_path: Path) -> Path:
    root = tmp_path / "CamVid"
    for i, split in enumerate(("train", "val")):
        save(picture(i), root / split / "x.png")
        save(labels(i, void=11), root / f"{split}annot" / "x.png")
        (root / f"{split}.txt").write_text(
            f"/SegNet/CamVid/{split}/x.png /SegNet/CamVid/{split}annot/x.png\n"
        )
    return root


def test_camvid_by_stem(by_stem: Path) -> None:
    dataset = open_dataset(f"camvid:{by_stem}")
    assert len(dataset) == 2
    assert dataset.classes == CAMVID_CLASSES
    assert dataset.palette.shape == (11, 3)
    assert [s.name for s in dataset] == ["a", "sub/b"]
    assert np.array_equal(dataset[1].image, picture(1))
    assert np.array_equal(dataset[1].label, labels(1))
    assert np.array_equal(pickle.loads(pickle.dumps(dataset))[0].label, labels(0))


@pytest.mark.parametrize("up", [False, True])
def test_camvid_in_segnets_packaging(segnet: Path, up: bool) -> None:
    dataset = open_dataset(f"camvid:{segnet.parent if up else segnet}", "val")
    assert len(dataset) == 1
    assert dataset[0].name == "x"
    assert np.array_equal(dataset[0].image, picture(1))
    assert np.array_equal(dataset[0].label, labels(1))
    assert dataset[0].label[0, 0] == IGNORE


COLOURS = {"Animal": (64, 128, 64), "Road": (128, 64, 128), "Void": (0, 0, 0), "Sky": (128, 128, 128)}


@pytest.fixture
def original(tmp_path: Path) -> Path:
    (tmp_path / "label_colors.txt").write_text(
        "".join(f"{r} {g} {b}\t\t{name}\n" for name, (r, g, b) in COLOURS.items())
    )
    table = np.array(list(COLOURS.values()), np.uint8)
    for i, stem in enumerate(("0001TP_006690", "Seq05VD_f00000")):
        save(picture(i), tmp_path / "701_StillsRaw_full" / f"{stem}.png")
        save(table[labels(i, 4, void=2)], tmp_path / "LabeledApproved_full" / f"{stem}_L.png")
    (tmp_path / "test.txt").write_text("Seq05VD_f00000\n")
    return tmp_path


def test_camvid_in_its_original_packaging(original: Path) -> None:
    assert dataset_splits(f"camvid:{original}") == ["test", "all"]
    dataset = open_dataset(f"camvid:{original}", "all")
    assert dataset.classes == ["Animal", "Road", "Sky"]
    assert dataset.palette.tolist() == [list(COLOURS[name]) for name in dataset.classes]
    assert [s.name for s in dataset] == ["0001TP_006690", "Seq05VD_f00000"]
    assert np.array_equal(dataset[1].image, picture(1))
    assert np.array_equal(dataset[1].label, np.array([0, 1, IGNORE, 2])[labels(1, 4, void=2)])
    assert np.array_equal(pickle.loads(pickle.dumps(dataset))[1].label, dataset[1].label)
    assert [p.name for p in camvid(original, "test").pairs] == ["Seq05VD_f00000"]


def test_colours_without_a_class(original: Path) -> None:
    path = original / "LabeledApproved_full" / "Seq05VD_f00000_L.png"
    colours = np.array(Image.open(path))
    colours[2, 2:4] = (128, 128, 129), (255, 255, 255)
    save(colours, path)
    with expect(DataError, f"label {path} has 2 pixels of colours", "(128, 128, 129), (255, 255, 255)"):
        camvid(original, "test")[0]
    with expect(FileNotFoundError, "no list train.txt", "there is test.txt"):
        camvid(original)
    names = original / "label_colors.txt"
    for line in ("1 2 Car", "1 2 300 Car", "64 128 64 Car", "1 2 3 Sky"):
        with names.open("a") as file:
            file.write(f"{line}\n")
        with expect(DataError, "label_colors.txt has the line", line):
            camvid(original)
        names.write_text(names.read_text().replace(f"{line}\n", ""))
    names.write_text("1 2 3 Car\n")
    with expect(DataError, "names no colour Void, it has Car"):
        camvid(original)


def test_folder_with_all_its_options(by_stem: Path) -> None:
    (by_stem / "classes.txt").write_text("".join(f"thing {k}\n" for k in range(11)))
    (by_stem / "palette.txt").write_text("".join(f"{k} {2 * k} {3 * k}\n" for k in range(11)))
    dataset = open_dataset(f"folder:{by_stem}", "val")
    assert dataset.classes[3] == "thing 3"
    assert dataset.palette[4].tolist() == [4, 8, 12]
    assert dataset[0].name == "c"


def test_folder_without_options(by_stem: Path) -> None:
    (by_stem / "train.txt").rename(by_stem / "list.txt")
    dataset = folder(by_stem)
    assert [s.name for s in dataset] == ["a", "sub/b"]
    assert dataset.classes == [f"class_{k}" for k in range(11)]
    assert dataset.palette[1].tolist() == [128, 0, 0]
    assert len(folder(by_stem, "list")) == 2
    with pytest.raises(FileNotFoundError, match=r"no list test.txt .* there is list.txt, val.txt"):
        folder(by_stem, "test")


def test_folder_whose_labels_tell_no_classes(by_stem: Path) -> None:
    for path in (by_stem / "labels").rglob("*.png"):
        mask = np.array(Image.open(path)) > 3
        Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    with expect(DataError, "holds no label but 0 and 255", "is stored as 1"):
        folder(by_stem)
    (by_stem / "classes.txt").write_text("ground\n")
    assert folder(by_stem).classes == ["ground"]
    (by_stem / "classes.txt").unlink()
    for path in (by_stem / "labels").rglob("*.png"):
        path.rename(path.with_suffix(".gif"))
    with expect(DataError, "holds no label map", ".png"):
        folder(by_stem)


def test_folder_with_more_classes_than_labels(by_stem: Path) -> None:
    (by_stem / "classes.txt").write_text("".join(f"thing {k}\n" for k in range(256)))
    with expect(DataError, "classes.txt names 256 classes, wanted at most 255: 255 is ignored"):
        folder(by_stem)


def test_lists_with_suffixes_comments_and_blank_lines(by_stem: Path) -> None:
    (by_stem / "train.txt").write_bytes("\ufeff# mine\r\na.png\r\n\r\nc  # last\r\n".encode())
    assert [s.name for s in folder(by_stem)] == ["a", "c"]


def test_palette_and_16_bit_labels_are_indices(tmp_path: Path) -> None:
    label = labels(0)
    with_colours = Image.fromarray(label).convert("P")
    with_colours.putpalette([(7 * v) % 256 for v in range(768)])
    with_colours.save(tmp_path / "p.png")
    save(label.astype(np.uint16), tmp_path / "deep.png")
    Image.fromarray(label > 5).save(tmp_path / "bits.png")
    assert np.array_equal(read_label(tmp_path / "p.png"), label)
    assert np.array_equal(read_label(tmp_path / "deep.png"), label)
    assert np.array_equal(read_label(tmp_path / "bits.png"), label > 5)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_images_of_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    Image.fromarray(picture(0)).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (*SIZE, 3)
    assert image.dtype == np.uint8


def expect(error: type[Exception], *parts: str) -> AbstractContextManager[object]:
    return pytest.raises(error, match=".*".join(re.escape(p) for p in parts))


def test_missing_folders_and_lists(by_stem: Path, tmp_path: Path) -> None:
    with expect(FileNotFoundError, "nowhere does not exist", "images/"):
        camvid(by_stem / "nowhere")
    with expect(FileNotFoundError, "neither images/", "SegNet", "b.png"):
        camvid(by_stem / "images" / "sub")
    with expect(FileNotFoundError, "no folder images/", "b.png"):
        folder(by_stem / "images" / "sub")
    with expect(FileNotFoundError, "no list test.txt", "there is train.txt, val.txt"):
        camvid(by_stem, "test")
    (by_stem / "train.txt").write_text("\n# none\n")
    with expect(DataError, "train.txt is empty"):
        camvid(by_stem)


def test_missing_files(by_stem: Path, segnet: Path) -> None:
    (by_stem / "labels" / "a.png").rename(by_stem / "labels" / "aa.png")
    dataset = folder(by_stem)
    assert dataset.missing() == [f"label {by_stem / 'labels' / 'a.*'}"]
    with expect(FileNotFoundError, "label", "labels/a.* is missing"):
        dataset[[pair.name for pair in dataset.pairs].index("a")]
    dataset = camvid(segnet)
    (segnet / "trainannot" / "x.png").unlink()
    with expect(FileNotFoundError, "label", "trainannot/x.png is missing"):
        dataset[0]


def test_folders_that_are_links(by_stem: Path) -> None:
    (by_stem / "elsewhere").mkdir()
    for part in ("images", "labels"):
        target = (by_stem / part / "sub").rename(by_stem / "elsewhere" / part)
        (by_stem / part / "sub").symlink_to(target, target_is_directory=True)
        (target / "up").symlink_to(by_stem / part, target_is_directory=True)
    dataset = folder(by_stem)
    assert not dataset.missing()
    assert np.array_equal(dataset[1].label, labels(1))


def test_two_files_for_one_stem(by_stem: Path) -> None:
    save(picture(0), by_stem / "images" / "a.bmp")
    with expect(DataError, "a.png and", "a.bmp", "'a'"):
        folder(by_stem)


def test_segnet_list_without_pairs(segnet: Path) -> None:
    (segnet / "train.txt").write_text("x\n")
    with expect(DataError, "train.txt", "'x'", "an image and a label"):
        camvid(segnet)


@pytest.mark.parametrize("part", ["images", "labels"])
@pytest.mark.parametrize("keep", [0, 20, 60, 0.7])
def test_truncated_files(by_stem: Path, part: str, keep: float) -> None:
    path = by_stem / part / "a.png"
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    with expect(DataError, f"{part[:-1]} {path} is truncated or not an image"):
        camvid(by_stem)[0]


def test_truncated_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.effect_noise((200, 200), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with expect(DataError, f"image {path} is truncated"):
        read_image(path)


def test_label_of_another_size(by_stem: Path) -> None:
    save(labels(0)[:4], by_stem / "labels" / "a.png")
    with expect(DataError, "labels/a.png is 8x4", "images/a.png is 8x6"):
        camvid(by_stem)[0]


def test_label_values_out_of_range(by_stem: Path) -> None:
    label = labels(0)
    label[1, 1:4] = 12, 12, 200
    save(label, by_stem / "labels" / "a.png")
    with expect(DataError, "labels/a.png has 3 pixels with values 12, 200, wanted 0..10 or 11, 255 (ignore)"):
        camvid(by_stem)[0]
    save(label.astype(np.uint16) * 300, by_stem / "labels" / "a.png")
    with expect(DataError, "labels/a.png has values 300,", "...", "wanted 0..255"):
        camvid(by_stem)[0]


def test_modes_that_are_no_labels_or_images(by_stem: Path) -> None:
    save(picture(0), by_stem / "labels" / "a.png")
    with expect(DataError, "labels/a.png has mode RGB, wanted a single channel"):
        camvid(by_stem)[0]
    save(labels(0).astype(np.uint16), by_stem / "images" / "a.png")
    with expect(DataError, "images/a.png has mode I", "wanted 8 bits a channel"):
        camvid(by_stem)[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n", "has 1 colours, wanted 11"),
        ("1 2\n" * 11, "three numbers"),
        ("r g b\n" * 11, "three numbers"),
        ("1 2 300\n" * 11, "0..255"),
    ],
)
def test_malformed_palette(by_stem: Path, text: str, message: str) -> None:
    (by_stem / "palette.txt").write_text(text)
    with expect(DataError, "palette.txt", message):
        folder(by_stem)


def test_malformed_classes(by_stem: Path) -> None:
    (by_stem / "classes.txt").write_bytes(b"\xff\xfe\x00")
    with expect(DataError, "classes.txt is not UTF-8 text"):
        folder(by_stem)


def test_folders_have_no_options(by_stem: Path) -> None:
    with expect(ValueError, "'camvid' has no options, got size"):
        open_dataset(f"camvid:{by_stem}", size=3)


def test_real_camvid_is_as_its_readme_says(shared: Path) -> None:
    root = shared / "data" / "camvid"
    sizes = {split: len(camvid(root, split)) for split in ("train", "val", "test")}
    assert sizes == {"train": 367, "val": 101, "test": 233}
    dataset = camvid(root)
    counts = np.zeros(256)
    for index in range(0, len(dataset), 6):
        sample = dataset[index]
        assert sample.image.shape == (360, 480, 3)
        counts += np.bincount(sample.label.ravel(), minlength=256)
    share = 100 * counts / counts.sum()
    want = np.array([16.9, 23.3, 1.0, 31.7, 4.5, 9.7, 1.2, 1.1, 5.9, 0.6, 0.3])
    assert np.abs(share[:11] - want).max() < 1.2
    assert abs(share[IGNORE] - 4.0) < 0.6


def test_real_camvid_is_a_folder_too(shared: Path) -> None:
    root = shared / "data" / "camvid"
    as_folder, as_camvid = folder(root, "val"), camvid(root, "val")
    assert as_folder.classes == as_camvid.classes
    assert np.array_equal(as_folder[7].label, as_camvid[7].label)


def test_real_samples_as_folders(tmp_path: Path, shared: Path) -> None:
    samples = shared / "data" / "samples"
    for name, images, truths, classes in (
        ("nyudv2", "rgb", "labels13", 13),
        ("ade20k", "images", "annotations", 151),
    ):
        root = tmp_path / name
        root.mkdir()
        (root / "images").symlink_to(samples / name / images)
        (root / "labels").symlink_to(samples / name / truths)
        stems = sorted(p.stem for p in (samples / name / truths).iterdir())
        (root / "list.txt").write_text("\n".join(stems))
        (root / "classes.txt").write_text("\n".join(str(k) for k in range(classes)))
        for sample in folder(root):
            assert sample.image.shape[:2] == sample.label.shape
            assert len(np.unique(sample.label)) > 3
