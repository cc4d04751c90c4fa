"""Several label maps an image, and six channels: SIFT Flow's both tasks, NYUDv2's colour with HHA."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fcnkern import cli
from fcnkern.data import (
    IGNORE,
    Augment,
    DataError,
    Pipeline,
    Sample,
    Tasks,
    collate,
    folder,
    numbered,
    nyud,
    open_dataset,
    preset,
    presets,
    siftflow,
    tasks_of,
    with_hha,
)
from fcnkern.data.augment import FILL, mirror, rescale, window
from fcnkern.data.check import check_data
from fcnkern.data.command import bounds_of
from fcnkern.metrics import blocks
from tests.data.miniature import SCENES, make_by_stem, make_nyud, make_siftflow

NAMES = ("semantic", "geometric")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_siftflow(tmp_path / "sift", trainval=["a", "b"], test=["c"])


def test_both_tasks_are_the_tasks_in_order(root: Path) -> None:
    both = pickle.loads(pickle.dumps(open_dataset(f"siftflow:{root},task=both")))
    alone = [siftflow(root, task=task) for task in NAMES]
    assert tasks_of(both) == {"semantic": 33, "geometric": 3}
    assert [tasks_of(each) for each in alone] == [{}, {}]
    assert both.classes == alone[0].classes + alone[1].classes
    assert np.array_equal(both.palette, np.concatenate([each.palette for each in alone]))
    assert (len(both), both.published) == (2, 2486)
    for sample, *parts in zip(both, *alone, strict=True):
        assert np.array_equal(sample.image, parts[0].image)
        assert np.array_equal(sample.label, np.stack([part.label for part in parts]))
        assert sample.name == parts[0].name
    with pytest.raises(ValueError, match="wanted one of semantic, geometric, both"):
        siftflow(root, task="all")


def test_what_is_missing_or_differs_is_named(root: Path, tmp_path: Path) -> None:
    both = siftflow(root, task="both")
    missing = root / "GeoLabels" / SCENES / "b.mat"
    missing.unlink()
    (root / "Images" / SCENES / "a.jpg").unlink()
    assert both.missing() == [f"image {root / 'Images' / SCENES / 'a.jpg'}", f"label {missing}"]
    with pytest.raises(FileNotFoundError, match=r"b\.mat is missing"):
        both[1]
    first = folder(make_by_stem(tmp_path / "one", train=["a", "b"]))
    other = folder(make_by_stem(tmp_path / "two", train=["a", "c"]))
    mixed = Tasks("mixed", {"ground": first, "sky": other})
    assert mixed[0].label.shape == (2, 6, 8)
    with pytest.raises(DataError, match=r"the tasks of mixed have other images at 1: b .*, c "):
        mixed[1]
    with pytest.raises(ValueError, match="as many samples each"):
        Tasks("mixed", {"ground": first, "sky": folder(make_by_stem(tmp_path / "three", train=["a"]))})


def sample(height: int = 12, width: int = 17, channels: int = 3) -> Sample:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 9, (2, height, width), np.uint8)
    return Sample(rng.integers(0, 256, (height, width, channels), np.uint8), label, "s")


def test_augmentation_changes_every_map_alike() -> None:
    def alone(task: int) -> Sample:
        return Sample(sample().image, sample().label[task], "s")

    augment = Augment(scale=(0.6, 1.5), translate=4, crop=(9, 11))
    for change in (
        mirror,
        lambda s: rescale(s, 1.3),
        lambda s: window(s, -2, 3, 14, 9),
        *(lambda s, epoch=epoch: augment(s, epoch, 0) for epoch in range(6)),
    ):
        found = change(sample())
        for task in range(2):
            expected = change(alone(task))
            assert np.array_equal(found.label[task], expected.label)
            assert np.array_equal(found.image, expected.image)


def test_batches_pad_every_map() -> None:
    small, large = sample(), sample(20, 9)
    batch = collate([small, large], presets["caffe"])
    assert batch.labels.shape == (2, 2, 20, 17)
    for labels, (h, w), each in zip(batch.labels, batch.sizes, (small, large), strict=True):
        assert np.array_equal(labels[:, :h, :w], each.label)
        assert (labels[:, h:] == IGNORE).all()
        assert (labels[:, :, w:] == IGNORE).all()
    with pytest.raises(ValueError, match="sample 's' has a label of shape"):
        collate([small, Sample(small.image, small.label[0], "s")], presets["caffe"])


class Flip:
    """As albumentations' transforms are called: masks have their channels last."""

    def set_random_seed(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, image: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
        assert mask.shape == (12, 17, 2)
        return {"image": image[::-1], "mask": mask[::-1]}


def test_pipelines_take_all_maps() -> None:
    found = Pipeline(Flip())(sample(), 3)
    assert np.array_equal(found.label, sample().label[:, ::-1])
    assert np.array_equal(found.image, sample().image[::-1])


def test_classes_are_numbered_through_all_tasks() -> None:
    label = np.array([[[0, 2, 255]], [[0, 1, 255]]], np.uint8)
    maps = numbered(label, {"a": 3, "b": 2})
    assert [each.tolist() for each in maps] == [[[0, 2, 255]], [[3, 4, 255]]]
    assert all(each.dtype == np.uint8 for each in maps)
    one = label[0]
    assert numbered(one, {})[0] is one


def test_check_and_bounds_are_those_of_each_task(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    specs = [f"siftflow:{root},task={task}" for task in NAMES]
    both = f"siftflow:{root},task=both"
    (found,), parts = check_data(both, ["test"]).splits, [check_data(s, ["test"]).splits[0] for s in specs]
    assert np.array_equal(found.pixels, np.concatenate([part.pixels for part in parts]))
    assert np.array_equal(found.in_images, np.concatenate([part.in_images for part in parts]))
    assert found.void == sum(part.void for part in parts)
    assert found.sizes == parts[0].sizes
    dataset = open_dataset(both, "test")
    expected = [bounds_of(open_dataset(spec, "test")) for spec in specs]
    for factor, matrix in bounds_of(dataset).items():
        own = blocks(matrix, tasks_of(dataset))
        assert torch.equal(torch.block_diag(*own.values()), matrix)
        for task, bounds in zip(NAMES, expected, strict=True):
            assert torch.equal(own[task], bounds[factor])
    assert cli.main(["data", "check", both, "--quiet"]) == 0
    assert "everything could be read" in capsys.readouterr().out


def test_colour_with_hha_is_both_images(tmp_path: Path) -> None:
    root = make_nyud(tmp_path / "nyud", train=["5001"])
    found, color, hha = (nyud(root, input=name) for name in ("color-hha", "color", "hha"))
    assert found.preset == Tasks("twice", {"a": found, "b": found}).preset == "nyud+nyud-hha"
    image = found[0].image
    assert image.dtype == np.uint8
    assert np.array_equal(image, np.concatenate([color[0].image, hha[0].image], axis=2))
    (root / "data" / "hha" / "img_5001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"hha/img_5001.png is missing"):
        found[0]


@pytest.mark.parametrize(
    "name", ["nyud+nyud-hha", "caffe+nyud-hha", "torchvision+torchvision", "nyud-hha+caffe"]
)
def test_joined_presets_prepare_each_half(name: str) -> None:
    image = sample(channels=6).image
    first, second = name.split("+")
    expected = torch.cat([preset(first)(image[:, :, :3]), preset(second)(image[:, :, 3:])])
    torch.testing.assert_close(preset(name)(image), expected, rtol=1e-5, atol=1e-5)
    assert pickle.loads(pickle.dumps(preset(name))) == preset(name)


def test_hha_is_prepared_in_the_range_of_the_colours() -> None:
    assert with_hha("caffe") == "caffe+nyud-hha"
    assert with_hha("torchvision") == "torchvision+torchvision"
    for name in ("caffe+", "caffe+nyud-rgbd", "caffe+caffe+caffe"):
        with pytest.raises(ValueError, match="is unknown"):
            preset(name)
    with pytest.raises(TypeError, match="image is float32, wanted uint8"):
        preset("nyud+nyud-hha")(sample(channels=6).image.astype(np.float32))


def test_six_channels_are_augmented_as_three_and_three() -> None:
    whole = sample(channels=6)
    halves = [Sample(whole.image[:, :, part], whole.label, "s") for part in (slice(3), slice(3, 6))]
    for change in (mirror, lambda s: rescale(s, 0.7)):
        expected = np.concatenate([change(half).image for half in halves], axis=2)
        assert np.array_equal(change(whole).image, expected)
    outside = window(whole, 100, 100, 2, 2).image
    assert outside[0, 0, :3].tolist() == list(FILL)
    assert preset("nyud-hha")(outside[:, :, 3:]).abs().max() < 0.6
