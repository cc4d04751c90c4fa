from __future__ import annotations

import pickle

import numpy as np
import pytest

from fcnkern.data import IGNORE, Scenes, open_dataset


def test_a_scene_is_a_function_of_seed_split_and_index() -> None:
    first, again = Scenes(seed=3)[5], pickle.loads(pickle.dumps(Scenes(seed=3, count=9)))[5]
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.label, again.label)
    assert first.name == again.name == "train_000005"
    for other in (Scenes(seed=4)[5], Scenes(seed=3)[6], Scenes("val", seed=3)[5]):
        assert not np.array_equal(first.label, other.label)


@pytest.mark.parametrize("size", [(96, 128), (64, 200), (130, 70), (16, 16)])
def test_shapes_and_values(size: tuple[int, int]) -> None:
    sample = Scenes(size=size)[0]
    assert sample.image.shape == (*size, 3)
    assert sample.image.dtype == np.uint8
    assert sample.label.shape == size
    assert sample.label.dtype == np.uint8
    assert set(np.unique(sample.label)) <= {*range(11), IGNORE}


def test_another_size_shows_the_same_scene() -> None:
    small, large = Scenes(size=(60, 80))[2].label, Scenes(size=(240, 320))[2].label[2::4, 2::4]
    both = (small != IGNORE) & (large != IGNORE)
    assert (small == large)[both].mean() > 0.95


def test_every_class_is_common_and_nothing_fills_the_picture() -> None:
    dataset = Scenes(count=40)
    seen, share = np.zeros(256), np.zeros(256)
    for sample in dataset:
        counts = np.bincount(sample.label.ravel(), minlength=256)
        seen += counts > 0
        share += counts / sample.label.size / len(dataset)
    assert (seen[: len(dataset.classes)] >= 0.5 * len(dataset)).all()
    assert (share[: len(dataset.classes)] > 0.004).all()
    assert share.max() < 0.5
    assert 0.01 < share[IGNORE] < 0.1


def test_colour_alone_does_not_give_the_class() -> None:
    """A table from colour (4 bits a channel) to class is a poor segmenter of other scenes."""

    def codes(image: np.ndarray) -> np.ndarray:
        r, g, b = (image[:, :, c].astype(np.int64) >> 4 for c in range(3))
        return (r << 8 | g << 4 | b).ravel()

    votes = np.zeros((4096, 11))
    for sample in Scenes(count=60):
        valid = sample.label.ravel() != IGNORE
        np.add.at(votes, (codes(sample.image)[valid], sample.label.ravel()[valid]), 1)
    truth, guess = [], []
    for sample in Scenes("val", count=20):
        truth.append(sample.label.ravel())
        guess.append(votes.argmax(1)[codes(sample.image)])
    t, g = np.concatenate(truth), np.concatenate(guess)
    recall = np.array([(g[t == k] == k).mean() for k in range(11)])
    assert recall.mean() < 0.45


def test_spec_options() -> None:
    assert open_dataset("scenes") == Scenes()
    assert open_dataset("scenes:count=7,size=32x48,seed=9", "test") == Scenes("test", 7, (32, 48), 9)
    assert open_dataset("scenes:count=7", count=8, size=(20, 30)) == Scenes(count=8, size=(20, 30))


@pytest.mark.parametrize(
    ("spec", "split", "message"),
    [
        ("scenes:colour=1", "train", "no option colour, wanted count, size, seed"),
        ("scenes:count", "train", "option 'count', wanted name=value"),
        ("scenes:count=many", "train", "count is 'many', wanted an integer"),
        ("scenes:count=0", "train", "count is 0"),
        ("scenes:size=96", "train", "size is '96', wanted HEIGHTxWIDTH"),
        ("scenes:size=8x8", "train", "size is 8x8, wanted at least 16x16"),
        ("scenes:seed=-1", "train", "seed is -1"),
        ("scenes", "holdout", "no split 'holdout', wanted one of train, val, test"),
        ("coco:/tmp", "train", "'coco:/tmp' is unknown, wanted camvid:PATH"),
        ("camvid", "train", "lacks its folder, wanted camvid:PATH"),
    ],
)
def test_bad_specs(spec: str, split: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_dataset(spec, split)


def test_index_out_of_range() -> None:
    dataset = Scenes(count=3)
    assert dataset[-1].name == "train_000002"
    with pytest.raises(IndexError, match="scenes has 3 samples; there is no sample 3"):
        dataset[3]
