"""The published layouts, on miniature copies; the encodings are those of the publishers' files."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcnkern.data import (
    IGNORE,
    VOC_CLASSES,
    DataError,
    FileDataset,
    collate,
    dataset_splits,
    nyud,
    open_dataset,
    preset,
    sbd,
    voc,
)
from fcnkern.data.augment import rescale, window
from tests.data.miniature import (
    SIZE,
    make_nyud,
    make_sbd,
    make_voc,
    picture,
    save,
    save_mat,
    values,
    write_list,
)


def one_less(stored: np.ndarray) -> np.ndarray:
    """The authors' shift: classes from 1 on become classes from 0 on, and 0 wraps around to 255."""
    return (stored.astype(np.int64) - 1).astype(np.uint8)


def same_as_jpeg(image: np.ndarray, path: Path) -> bool:
    return np.array_equal(image, np.array(Image.open(path).convert("RGB")))


# -------------------------------------------------------------------- VOC and SBD


@pytest.mark.parametrize(
    ("given", "inside"),
    [("", "."), ("VOCdevkit", "VOCdevkit/VOC2012"), ("", "TrainVal/VOCdevkit/VOC2011"), ("", "VOC2012")],
)
def test_voc_in_the_folders_of_its_archives(tmp_path: Path, given: str, inside: str) -> None:
    root = make_voc(tmp_path / inside, train=["2007_000032"], val=["2007_000033", "2007_000042"])
    spec = f"voc:{tmp_path / given}"
    assert dataset_splits(spec) == ["train", "val"]
    dataset = open_dataset(spec, "val")
    assert dataset.classes == VOC_CLASSES
    assert dataset.palette[15].tolist() == [192, 128, 128]
    assert [s.name for s in dataset] == ["2007_000033", "2007_000042"]
    assert np.array_equal(dataset[1].label, values(1, [*range(21), 255]))
    assert same_as_jpeg(dataset[1].image, root / "JPEGImages" / "2007_000042.jpg")
    assert np.array_equal(pickle.loads(pickle.dumps(dataset))[1].label, dataset[1].label)


def test_voc_of_two_years_wants_one_named(tmp_path: Path) -> None:
    for year in ("VOC2011", "VOC2012"):
        make_voc(tmp_path / "VOCdevkit" / year, train=["a"])
    with pytest.raises(DataError, match=r"several copies, .*VOC2011, .*VOC2012: name one"):
        voc(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no split 'test', there is train"):
        voc(tmp_path / "VOCdevkit" / "VOC2011", "test")
    with pytest.raises(FileNotFoundError, match=r"has no ImageSets/Segmentation; it holds a.jpg"):
        voc(tmp_path / "VOCdevkit" / "VOC2011" / "JPEGImages")


def test_sbd(tmp_path: Path) -> None:
    make_sbd(tmp_path / "benchmark_RELEASE" / "dataset", ["a", "b", "c"], ["d"])
    make_voc(tmp_path / "VOC2012", train=["a"], val=["b"])
    spec = f"sbd:{tmp_path},voc={tmp_path / 'VOC2012'}"
    assert dataset_splits(spec) == ["train", "train_noval", "trainval", "val"]
    names = {split: [p.name for p in open_dataset(spec, split).pairs] for split in dataset_splits(spec)}
    assert names == {"train": [*"abc"], "train_noval": [*"ac"], "trainval": [*"abcd"], "val": ["d"]}
    dataset = sbd(tmp_path, "val")
    assert np.array_equal(dataset[0].label, values(103, range(21)))
    assert dataset[0].label.dtype == np.uint8
    assert np.array_equal(pickle.loads(pickle.dumps(dataset))[0].label, dataset[0].label)
    with pytest.raises(ValueError, match="voc=PATH"):
        sbd(tmp_path, "train_noval")


def test_trainaug_is_all_of_both_but_vocs_val(tmp_path: Path) -> None:
    year = make_voc(tmp_path / "VOC2012", train=["a", "b"], val=["c", "d"])
    other = make_sbd(tmp_path / "dataset", ["b", "c", "e"], ["d", "f"])
    dataset = voc(year, "trainaug", sbd=other)
    assert [p.name for p in dataset.pairs] == ["a", "b", "e", "f"]
    assert np.array_equal(dataset[1].label, values(1, [*range(21), 255]))  # in both: VOC's label
    assert np.array_equal(dataset[2].label, values(102, range(21)))
    assert [p.name for p in voc(year, "sbdtrain", sbd=other).pairs] == ["b", "c", "e"]
    spec = f"voc:{year},sbd={other},train=trainaug"
    assert len(open_dataset(spec)) == 4
    assert len(open_dataset(spec, "val")) == 2
    assert dataset_splits(spec) == ["sbdtrain", "train", "trainaug", "val"]
    with pytest.raises(ValueError, match="say where SBD is by sbd=PATH"):
        voc(year, "trainaug")


def test_trainaug_as_others_pack_it(tmp_path: Path) -> None:
    year = make_voc(tmp_path / "VOC2012", trainaug=["a"])
    label = values(7, range(21)).astype(np.uint8)
    save(label, year / "SegmentationClassAug" / "a.png")
    assert np.array_equal(voc(year, "trainaug")[0].label, label)


def test_seg11valid_is_vocs_val_without_sbds_train(tmp_path: Path) -> None:
    year, other = tmp_path / "VOC2011", tmp_path / "dataset"
    val = [f"2007_{k:06d}" for k in range(1111)]
    (other / "cls").mkdir(parents=True)
    write_list(year / "ImageSets" / "Segmentation" / "val.txt", val)
    write_list(other / "train.txt", [f"2011_{k:06d}" for k in range(20)] + val[::3] + val[1:10:3] + [val[2]])
    dataset = voc(year, "seg11valid", sbd=other)
    assert len(dataset) == dataset.published == 736
    assert {p.name for p in dataset.pairs} == set(val) - set(val[::3]) - {val[1], val[4], val[7], val[2]}
    assert "seg11valid" in dataset_splits(f"voc:{year},sbd={other}")
    write_list(other / "train.txt", val[::3])
    with pytest.raises(DataError, match=r"leaves 740 images, the releases leave 736"):
        voc(year, "seg11valid", sbd=other)
    write_list(year / "ImageSets" / "Segmentation" / "seg11valid.txt", val[:2])
    assert len(voc(year, "seg11valid")) == 2
    with pytest.raises(DataError, match="computed from the lists of VOC2011, these are of VOC2012"):
        voc(
            year.rename(tmp_path / "VOC2012") and make_voc(tmp_path / "x" / "VOC2012", val=["a"]),
            "seg11valid",
            other,
        )


# -------------------------------------------------------------------- NYUDv2


def test_nyud(tmp_path: Path) -> None:
    make_nyud(tmp_path, train=["5003"], val=["5004"], test=["5001", "5002"])
    dataset = open_dataset(f"nyud:{tmp_path}", "test")
    assert dataset_splits(f"nyud:{tmp_path}") == ["test", "train", "trainval", "val"]
    assert len(dataset.classes) == len(dataset.palette) == 40
    assert dataset.classes[0] == "wall"
    assert dataset.classes[39] == "otherprop"
    assert np.array_equal(dataset[1].label, one_less(values(5002, range(41))))
    assert set(np.unique(dataset[1].label)) == {*range(40), IGNORE}
    assert np.array_equal(dataset[1].image, picture(5002))
    assert [p.name for p in nyud(tmp_path, "trainval").pairs] == ["5003", "5004"]


def test_nyud_depth_and_hha(tmp_path: Path) -> None:
    make_nyud(tmp_path, train=["5003"])
    hha = open_dataset(f"nyud:{tmp_path},input=hha")[0].image
    assert np.array_equal(hha, picture(5004))
    as_stored = preset("nyud-hha")(hha).permute(1, 2, 0).numpy()
    assert np.allclose(as_stored, picture(5004) - np.float32([132.431, 94.076, 118.477]))
    stored = values(5003, [0, *range(700, 747)])
    x = preset("nyud-depth")(nyud(tmp_path, input="depth")[0].image)[0].numpy()
    assert np.allclose(x[stored > 0], np.log(stored[stored > 0]) - 7.844, atol=1e-5)
    assert np.all(x[stored == 0] == 0)
    rgbd = open_dataset(f"nyud:{tmp_path},input=rgbd")
    batch = collate([rgbd[0]], preset("nyud-rgbd")).images[0]
    assert batch.shape == (4, *SIZE)
    assert np.array_equal(batch[3], x)
    assert np.array_equal(batch[:3], preset("nyud")(picture(5003)))
    with pytest.raises(ValueError, match="input is 'thermal', wanted one of color, hha, depth, rgbd"):
        open_dataset(f"nyud:{tmp_path},input=thermal")


@pytest.mark.parametrize("input", ["depth", "rgbd"])
def test_depth_is_augmented_as_colours_are(tmp_path: Path, input: str) -> None:
    make_nyud(tmp_path, train=["5003"])
    sample = nyud(tmp_path, input=input)[0]
    moved = window(sample, 2, -3, *SIZE)
    assert np.array_equal(moved.image[:4, 3:], sample.image[2:, :5])
    outside = preset(f"nyud-{input}")(moved.image)[-1, 4:]
    assert outside.abs().max() < 1e-6
    larger = rescale(sample, 2.0)
    assert larger.image.shape == (12, 16, sample.image.shape[2])
    assert larger.image.dtype == np.float32
    assert abs(larger.image[:, :, -1].mean() - sample.image[:, :, -1].mean()) < 0.05


@pytest.mark.parametrize(("input", "beside"), [("rgbd", "depth"), ("color-hha", "hha")])
def test_what_lies_beside_nyuds_images_is_checked_as_these_are(
    input: str, beside: str, tmp_path: Path
) -> None:
    make_nyud(tmp_path, train=["5003"])
    file = tmp_path / "data" / beside / "img_5003.png"
    Image.open(file).resize((9, 5)).save(file)
    dataset = open_dataset(f"nyud:{tmp_path},input={input}")
    with pytest.raises(DataError, match=f"{beside}/img_5003.png is 9x5, .*images/img_5003.png beside it is"):
        dataset[0]
    file.unlink()
    assert isinstance(dataset, FileDataset)
    assert dataset.missing() == [f"image {file}"]


def test_real_nyud_frames_in_the_authors_layout(tmp_path: Path, shared: Path) -> None:
    samples = shared / "data" / "samples" / "nyudv2"
    ids = (samples / "labelled.txt").read_text().split()
    for i in ids:
        for folder, source in (("images", "rgb"), ("depth", "depth"), ("hha", "hha")):
            target = tmp_path / "data" / folder / f"img_{5000 + int(i)}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.open(next((samples / source).glob(f"{i}.*"))).save(target)
        thirteen = np.array(Image.open(samples / "labels13" / f"{i}.png")).astype(np.int64)
        save_mat(
            tmp_path / "segmentation" / f"img_{5000 + int(i)}.mat",
            segmentation=np.uint8((thirteen + 1) % 256),
        )
    write_list(tmp_path / "test.txt", [str(5000 + int(i)) for i in ids])
    for sample in nyud(tmp_path, "test", input="rgbd"):
        assert sample.image.shape == (480, 640, 4)
        truth = np.array(Image.open(samples / "labels13" / f"{int(sample.name) - 5000:04d}.png"))
        assert np.array_equal(sample.label, truth)
        assert preset("nyud-depth")(sample.image[:, :, 3:]).abs().mean() < 1  # a factor of e about the mean
