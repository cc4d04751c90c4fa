"""SIFT Flow, PASCAL-Context, Cityscapes and ADE20K on miniature copies; MATLAB files; how data sets are named."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fcnkern.data import IGNORE, DataError, dataset_splits, open_dataset, preset, voc_palette
from fcnkern.data.cityscapes import CLASSES
from fcnkern.data.matfile import read_mat
from tests.data.miniature import (
    SIZE,
    make_context,
    make_nyud,
    make_siftflow,
    picture,
    save,
    save_mat,
    values,
    write_list,
)

# -------------------------------------------------------------------- SIFT Flow


def test_siftflow_semantic(tmp_path: Path) -> None:
    make_siftflow(tmp_path / "SiftFlowDataset", trainval=["coast_a", "forest_b"], test=["street_c"])
    spec = f"siftflow:{tmp_path}"
    assert dataset_splits(spec) == ["test", "trainval"]
    dataset = open_dataset(spec)  # train is trainval here
    assert [s.name for s in dataset] == ["coast_a", "forest_b"]
    assert len(dataset.classes) == len(dataset.palette) == 33
    assert dataset.classes[0] == "awning"
    assert dataset.classes[32] == "window"
    stored = values(1, range(34))
    assert np.array_equal(dataset[1].label, np.where(stored == 0, IGNORE, stored - 1))
    assert preset("siftflow").mean == (114.578, 115.294, 108.353)


def test_siftflow_geometric(tmp_path: Path) -> None:
    make_siftflow(tmp_path, trainval=["a"], test=["b", "c"])
    dataset = open_dataset(f"siftflow:{tmp_path},task=geometric", "test")
    assert dataset.classes == ["sky", "horizontal", "vertical"]
    stored = values(1, [-1, 1, 2, 3])
    assert np.array_equal(dataset[1].label, np.where(stored == -1, IGNORE, stored - 1))
    with pytest.raises(ValueError, match="task is 'depth', wanted one of semantic, geometric"):
        open_dataset(f"siftflow:{tmp_path},task=depth")


def test_siftflow_classes_out_of_range(tmp_path: Path) -> None:
    make_siftflow(tmp_path, test=["a"])
    dataset = open_dataset(f"siftflow:{tmp_path}", "test")
    file = dataset.pairs[0].label
    save_mat(file, S=np.full(SIZE, 34, np.uint8))
    with pytest.raises(
        DataError, match=rf"{file} has 48 pixels with values 34, wanted 1..33 or 0 \(ignore\)"
    ):
        dataset[0]


# -------------------------------------------------------------------- PASCAL-Context

NAMED = {2: "aeroplane", 397: "diningtable", 284: "person", 19: "bedcloth", 80: "clothes", 458: "wood"}
OTHERS = [1, 431, 459]


def test_context(tmp_path: Path) -> None:
    stored = values(0, [*NAMED, *OTHERS]).astype(np.uint16)
    make_context(tmp_path, stored, train=["2008_000002"], val=["2008_000003"])
    spec = f"context:{tmp_path}"
    assert dataset_splits(spec) == ["train", "val"]
    dataset = open_dataset(spec, "val")
    assert len(dataset.classes) == len(dataset.palette) == 60
    assert dataset.classes[:2] == ["background", "aeroplane"]
    assert [dataset.classes.index(name) for name in ("tvmonitor", "bag", "curtain", "wood")] == [
        20,
        21,
        42,
        59,
    ]
    label = dataset[0].label
    for number, name in NAMED.items():
        assert np.all(label[stored == number] == dataset.classes.index(name))
    assert np.all(label[np.isin(stored, OTHERS)] == 0)
    assert np.array_equal(dataset.palette, voc_palette(60))


def test_context_without_background(tmp_path: Path) -> None:
    stored = values(0, [*NAMED, *OTHERS]).astype(np.uint16)
    root = make_context(tmp_path / "context", stored, train=["a"])
    (root / "VOC2010").rename(tmp_path / "VOC2010")
    spec = f"context:{root},voc={tmp_path},classes=59"
    with_all = open_dataset(f"context:{root},voc={tmp_path}")
    dataset = open_dataset(spec)
    assert dataset.classes == with_all.classes[1:]
    assert np.array_equal(dataset.palette, with_all.palette[1:])
    expected = with_all[0].label.astype(int) - 1
    assert np.array_equal(dataset[0].label, np.where(expected == -1, IGNORE, expected))
    with pytest.raises(ValueError, match="classes is '33', wanted 60"):
        open_dataset(f"context:{root},voc={tmp_path},classes=33")
    with pytest.raises(FileNotFoundError, match="has no ImageSets/Main"):
        open_dataset(f"context:{root}")


# -------------------------------------------------------------------- Cityscapes and ADE20K


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_cityscapes(tmp_path: Path, kind: str) -> None:
    stored = values(3, range(34) if kind == "labelIds" else [*range(19), 255]).astype(np.uint8)
    for split, city in (("train", "aachen"), ("train", "bochum"), ("val", "ulm")):
        stem = f"{city}_000000_000019"
        save(picture(1), tmp_path / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
        save(stored, tmp_path / "gtFine" / split / city / f"{stem}_gtFine_{kind}.png")
        save(picture(2), tmp_path / "gtFine" / split / city / f"{stem}_gtFine_color.png")
    spec = f"cityscapes:{tmp_path}"
    assert dataset_splits(spec) == ["train", "val"]
    dataset = open_dataset(spec)
    assert [s.name for s in dataset] == ["aachen/aachen_000000_000019", "bochum/bochum_000000_000019"]
    assert np.array_equal(dataset[0].image, picture(1))
    ids = [number for number, *_ in CLASSES.values()]
    expected = stored
    if kind == "labelIds":
        expected = np.array([[ids.index(v) if v in ids else IGNORE for v in row] for row in stored.tolist()])
    assert np.array_equal(dataset[0].label, expected)
    assert dataset.palette[dataset.classes.index("car")].tolist() == [0, 0, 142]
    assert len(dataset.classes) == 19
    with pytest.raises(FileNotFoundError, match=r"leftImg8bit/test has no CITY/.*; there is train/, val/"):
        open_dataset(spec, "test")


HEADING = "Idx\tRatio\tTrain\tVal\tName\n"


def test_ade20k(tmp_path: Path) -> None:
    root = tmp_path / "ADEChallengeData2016"
    for k, folder in enumerate(("training", "validation")):
        save(picture(k), root / "images" / folder / f"ADE_{k}.jpg")
        save(values(k, range(4)).astype(np.uint8), root / "annotations" / folder / f"ADE_{k}.png")
    names = root / "objectInfo150.txt"
    names.write_text(HEADING + "".join(f"{k}\t0.1\t9\t9\tthing{k}, object\n" for k in (1, 2, 3)))
    spec = f"ade20k:{tmp_path}"
    assert dataset_splits(spec) == ["train", "val"]
    dataset = open_dataset(spec, "val")
    assert dataset.classes == ["thing1", "thing2", "thing3"]
    stored = values(1, range(4))
    assert np.array_equal(dataset[0].label, np.where(stored == 0, IGNORE, stored - 1))
    with pytest.raises(FileNotFoundError, match=r"images/test has no .*images holds training/, validation/"):
        open_dataset(spec, "test")
    names.write_text(HEADING + "2\t0.1\t9\t9\tthing\n")
    with pytest.raises(DataError, match=r"objectInfo150.txt is not a table of Idx"):
        open_dataset(spec)


def test_real_ade20k(tmp_path: Path, shared: Path) -> None:
    samples = shared / "data" / "samples" / "ade20k"
    for part in ("images", "annotations"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "validation").symlink_to(samples / part)
    (tmp_path / "objectInfo150.txt").symlink_to(samples / "objectInfo150.txt")
    dataset = open_dataset(f"ade20k:{tmp_path}", "val")
    assert len(dataset) == 3
    assert len(dataset.classes) == 150
    assert dataset.classes[:3] == ["wall", "building", "sky"]
    assert dataset.classes[149] == "flag"
    for sample in dataset:
        assert sample.image.shape[:2] == sample.label.shape
        assert len(np.unique(sample.label)) > 3


# -------------------------------------------------------------------- MATLAB files and names


def test_malformed_mat_files(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    save_mat(path, S=np.ones((2, 2)), half=np.full((2, 2), 0.5), cube=np.ones((2, 2, 2)))
    assert read_mat(path, "S").tolist() == [[1, 1], [1, 1]]
    with pytest.raises(DataError, match=r"a.mat has no segmentation, it holds"):
        read_mat(path, "segmentation")
    for key in ("half", "cube"):
        with pytest.raises(DataError, match=rf"a.mat: {key} is float64 .* wanted a matrix of integers"):
            read_mat(path, key)
    save_mat(path, wide=np.full((2, 2), 2**32 + 1, np.uint64), endless=np.full((2, 2), np.inf))
    for key in ("wide", "endless"):
        with pytest.raises(DataError, match=rf"a.mat: {key} is .* wanted a matrix of integers of 32 bits"):
            read_mat(path, key)
    with pytest.raises(DataError, match=r"a.mat has no Segmentation, it holds"):
        read_mat(path, "wide", "Segmentation")
    with pytest.raises(FileNotFoundError, match=r"b.mat is missing"):
        read_mat(tmp_path / "b.mat", "S")


@pytest.mark.parametrize("keep", [0, 40, 130, 0.9])
def test_truncated_mat_files(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "a.mat"
    save_mat(path, S=np.arange(400).reshape(20, 20))
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    with pytest.raises(DataError, match=r"a.mat (is truncated or not a MATLAB file|has no S)"):
        read_mat(path, "S")


def test_mat_files_of_hdf5_are_refused_in_words(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    path = tmp_path / "a.mat"
    path.write_bytes(
        b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n".ljust(512, b"\0")
    )
    with pytest.raises(DataError, match=r"a.mat is HDF5 \(MATLAB 7.3\), wanted MATLAB 5 to 7.2"):
        read_mat(path, "S")


@pytest.mark.parametrize("kind", ["nyud", "siftflow", "context", "sbd"])
def test_without_scipy(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(RuntimeError, match=r"need scipy: pip install 'fcnkern\[mat\]'"):
        open_dataset(f"{kind}:{tmp_path}")


def test_options_behind_a_path(tmp_path: Path) -> None:
    root = make_nyud(tmp_path / "a,b", train=["5001"], test=["5002"])
    assert len(open_dataset(f"nyud:{root},input=hha,val=test", "val")) == 1
    with pytest.raises(ValueError, match="'nyud' has the options input, got size"):
        open_dataset(f"nyud:{root},size=3")
    with pytest.raises(ValueError, match="lacks its folder, wanted nyud:PATH"):
        open_dataset("nyud:,input=hha")
    with pytest.raises(ValueError, match="'imagenet:x' is unknown, wanted camvid:PATH"):
        dataset_splits("imagenet:x")
    assert dataset_splits("scenes:count=2") == ["train", "val", "test"]


def test_a_list_that_is_missing(tmp_path: Path) -> None:
    make_nyud(tmp_path, train=["5001"])
    with pytest.raises(
        FileNotFoundError, match=r"list .*val.txt is missing; .* holds data/, segmentation/, train.txt"
    ):
        open_dataset(f"nyud:{tmp_path}", "val")
    write_list(tmp_path / "val.txt", [])
    with pytest.raises(DataError, match=r"val.txt is empty"):
        open_dataset(f"nyud:{tmp_path}", "trainval")
