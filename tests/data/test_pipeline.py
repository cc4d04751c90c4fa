"""Augmentation by another library's pipelines: image and labels together, the same for the same seed."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fcnkern.data import IGNORE, Augment, DataError, Pipeline, Sample, load_pipeline
from fcnkern.data.pipeline import need_albumentations


@pytest.fixture(scope="module")
def library() -> Any:
    try:
        return need_albumentations()
    except RuntimeError as error:
        pytest.skip(str(error))


def sample() -> Sample:
    """The image shows the label: 20 grey levels a class, and white where there is none."""
    label = np.repeat(np.repeat(np.arange(12, dtype=np.uint8).reshape(3, 4), 16, 0), 16, 1)
    label[:, 30:34] = IGNORE
    image = np.where(label == IGNORE, 255, 20 * label).astype(np.uint8)
    return Sample(np.stack([image] * 3, 2), label, "a")


def test_image_and_labels_move_together(library: Any) -> None:
    # Nearest neighbours in the image too: it then shows exactly the labels.
    pipeline = Pipeline(
        library.Compose(
            [library.Affine(rotate=(20, 20), interpolation=0, fill=255), library.HorizontalFlip(p=1)]
        )
    )
    changed = pipeline(sample(), 0)
    shown = np.where(changed.label == IGNORE, 255, 20 * changed.label.astype(int))
    assert np.array_equal(changed.image[:, :, 0], shown)
    assert set(np.unique(changed.label)) <= {*range(12), IGNORE}
    assert len(np.unique(changed.label)) > 8
    assert not np.array_equal(changed.label, sample().label)


def test_what_is_filled_has_no_class(library: Any) -> None:
    pipeline = Pipeline(library.Compose([library.PadIfNeeded(64, 80)]))
    label = pipeline(sample(), 0).label
    assert label.shape == (64, 80)
    assert np.array_equal(label[8:56, 8:72], sample().label)
    assert np.all(label[:8] == IGNORE)
    assert np.all(label[:, 72:] == IGNORE)


def test_a_function_of_seed_epoch_and_index(library: Any) -> None:
    transforms = [
        library.ColorJitter(p=1),
        library.RandomScale((-0.3, 0.3), p=1),
        library.Rotate(p=1),
        library.GaussNoise(p=1),
    ]
    augment = Augment(seed=3, pipeline=Pipeline(library.Compose(transforms)))
    places = [(epoch, index) for epoch in range(2) for index in range(4)]
    first = [augment(sample(), *place) for place in places]
    with ThreadPoolExecutor(4) as pool:  # in any order, side by side
        second = list(pool.map(lambda place: augment(sample(), *place), reversed(places)))
    for a, b in zip(first, reversed(second), strict=True):
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.label, b.label)
    assert len({s.image.tobytes() for s in first}) == len(places)


def test_torchs_generator_is_left_alone(library: Any) -> None:
    import torch

    before = torch.get_rng_state()
    Pipeline(library.Compose([library.ColorJitter(p=1), library.Rotate(p=1)]))(sample(), 1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_files(library: Any, tmp_path: Path, suffix: str) -> None:
    transform = library.Compose([library.RandomBrightnessContrast(p=1), library.HorizontalFlip(p=0.5)])
    path = tmp_path / f"p{suffix}"
    library.save(transform, path, data_format=suffix[1:])
    for seed in range(4):
        a, b = Pipeline(transform)(sample(), seed), load_pipeline(path)(sample(), seed)
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.label, b.label)


def test_bad_files(library: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.json does not exist"):
        load_pipeline(tmp_path / "none.json")
    with pytest.raises(ValueError, match=r"'.py', wanted .json or .yaml"):
        load_pipeline(tmp_path / "a.py")
    for text in ("", "{}", "[1, 2", '{"transform": {"__class_fullname__": "NoSuch"}}'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(DataError, match=r"a.json is no pipeline of albumentations"):
            load_pipeline(tmp_path / "a.json")


def test_results_that_are_no_samples(library: Any) -> None:
    with pytest.raises(
        ValueError, match=r"mine makes image float32 .* wanted uint8 \(48, 64, 3\): leave out norm"
    ):
        Pipeline(library.Compose([library.Normalize()]), "mine")(sample(), 0)
    with pytest.raises(TypeError, match="transform is str, wanted albumentations' Compose"):
        Pipeline("flip")


def test_any_function_of_a_sample_and_a_seed() -> None:
    seeds = []

    def invert(s: Sample, seed: int) -> Sample:
        seeds.append(seed)
        return Sample(255 - s.image, s.label, s.name)

    augment = Augment(mirror=False, pipeline=invert)
    assert np.array_equal(augment(sample(), 0, 0).image, 255 - sample().image)
    augment(sample(), 0, 1)
    augment(sample(), 0, 0)
    assert seeds[0] == seeds[2] != seeds[1]


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "albumentations", None)
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(RuntimeError, match=r"need albumentations: pip install 'fcnkern\[augment\]'"):
        load_pipeline(tmp_path / "a.json")
