"""Preprocessing, collation, augmentation, the order of samples, loading ahead."""

from __future__ import annotations

import itertools
import pickle
import threading
from typing import Any

import numpy as np
import pytest
import torch

from fcnkern.data import (
    IGNORE,
    Augment,
    Sample,
    Scenes,
    ShuffledIndices,
    collate,
    eval_batches,
    prefetch,
    preset,
    presets,
    train_batches,
)
from fcnkern.data.augment import FILL, window


def sample(height: int, width: int, seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    return Sample(
        rng.integers(0, 256, (height, width, 3), np.uint8),
        rng.integers(0, 11, (height, width), np.uint8),
        f"s{seed}",
    )


def test_caffe_preset_is_bgr_minus_the_mean() -> None:
    x = presets["caffe"](np.array([[[10, 20, 30]]], np.uint8))
    assert x.dtype == torch.float32
    assert x.is_contiguous()
    torch.testing.assert_close(
        x.flatten(), torch.tensor([30 - 104.00698793, 20 - 116.66876762, 10 - 122.67891434])
    )


def test_torchvision_preset_is_rgb_standardised() -> None:
    x = presets["torchvision"](np.array([[[10, 20, 30]]], np.uint8))
    want = [(10 / 255 - 0.485) / 0.229, (20 / 255 - 0.456) / 0.224, (30 / 255 - 0.406) / 0.225]
    torch.testing.assert_close(x.flatten(), torch.tensor(want))


@pytest.mark.parametrize("name", sorted(presets))
def test_inverse_returns_the_image(name: str) -> None:
    image = sample(9, 7).image
    assert np.array_equal(preset(name).inverse(preset(name)(image)), image)
    if not name.startswith(("nyud", "siftflow")):  # those have means of their own
        assert preset(name)(np.full((1, 1, 3), FILL, np.uint8)).abs().max() < 0.8
    assert pickle.loads(pickle.dumps(preset(name))) == preset(name)


def test_preprocess_bad_input() -> None:
    caffe = preset("caffe")
    with pytest.raises(ValueError, match=r"'vgg' is unknown, wanted one of bvlc, .*, torchvision-rgbd"):
        preset("vgg")
    with pytest.raises(TypeError, match="float32, wanted uint8"):
        caffe(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(ValueError, match=r"shape \(4, 4\), wanted \(height, width, 3\)"):
        caffe(np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="wanted"):
        caffe.inverse(torch.zeros(1, 3, 4, 4))


def test_collate_pads_to_the_largest() -> None:
    a, b = sample(5, 9, 1), sample(8, 4, 2)
    caffe = preset("caffe")
    batch = collate([a, b], caffe)
    assert batch.images.shape == (2, 3, 8, 9)
    assert batch.labels.dtype == torch.uint8
    assert batch.names == ["s1", "s2"]
    assert batch.sizes == [(5, 9), (8, 4)]
    for i, s in enumerate((a, b)):
        h, w = batch.sizes[i]
        assert torch.equal(batch.images[i, :, :h, :w], caffe(s.image))
        assert np.array_equal(batch.labels[i, :h, :w], s.label)
    outside = torch.ones(2, 8, 9, dtype=torch.bool)
    outside[0, :5, :9] = False
    outside[1, :8, :4] = False
    assert (batch.labels[outside] == IGNORE).all()
    assert (batch.images.movedim(1, -1)[outside] == 0).all()


def test_collate_bad_input() -> None:
    with pytest.raises(ValueError, match="no samples"):
        collate([], preset("caffe"))
    bad = Sample(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8), "odd")
    with pytest.raises(ValueError, match=r"'odd' has a label of shape \(4, 5\)"):
        collate([bad], preset("caffe"))


def test_window_over_the_border() -> None:
    s = sample(6, 6)
    moved = window(s, -2, 3, 6, 6)
    assert np.array_equal(moved.label[2:, :3], s.label[:4, 3:])
    assert np.array_equal(moved.image[2:, :3], s.image[:4, 3:])
    assert (moved.label[:2] == IGNORE).all()
    assert (moved.image[:, 3:] == FILL).all()
    assert (window(s, 100, 0, 2, 2).label == IGNORE).all()


def test_augmentation_is_a_function_of_seed_epoch_and_index() -> None:
    s = sample(40, 50)
    augment = Augment(seed=5, scale=(0.5, 2.0), translate=32, crop=(30, 36))
    one, two = augment(s, 3, 7), augment(s, 3, 7)
    assert np.array_equal(one.image, two.image)
    assert np.array_equal(one.label, two.label)
    assert one.label.shape == (30, 36)
    others = [augment(s, 4, 7), augment(s, 3, 8), Augment(6, True, (0.5, 2.0), 32, (30, 36))(s, 3, 7)]
    assert all(not np.array_equal(one.image, other.image) for other in others)


def test_image_and_label_move_together() -> None:
    """An image that encodes its label still does after mirroring, shifting and cropping."""
    label = sample(40, 50).label
    coded = Sample(np.repeat(label[:, :, None], 3, 2), label, "coded")
    mirrored = 0
    for index in range(20):
        out = Augment(translate=8, crop=(24, 60))(coded, 0, index)
        inside = out.label != IGNORE
        assert np.array_equal(out.image[:, :, 0][inside], out.label[inside])
        assert inside.any()
        only_mirror = Augment()(coded, 0, index)
        mirrored += np.array_equal(only_mirror.label, label[:, ::-1])
        assert np.array_equal(only_mirror.label, label) or np.array_equal(only_mirror.label, label[:, ::-1])
    assert 4 <= mirrored <= 16


@pytest.mark.parametrize(
    "bad", [{"seed": -1}, {"scale": (2.0, 1.0)}, {"scale": (0.0, 1.0)}, {"translate": -1}, {"crop": (0, 5)}]
)
def test_augment_bad_arguments(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Augment(**bad)


def test_every_epoch_is_a_permutation() -> None:
    indices = ShuffledIndices(length=10, batch_size=4, seed=1)
    places = list(itertools.chain.from_iterable(itertools.islice(indices.stream(), 5)))
    assert [epoch for epoch, _ in places] == [0] * 10 + [1] * 10
    epochs = [[i for e, i in places if e == epoch] for epoch in (0, 1)]
    assert all(sorted(order) == list(range(10)) for order in epochs)
    assert epochs[0] != epochs[1]
    assert next(indices.stream(3)) == indices.batch(3) == ShuffledIndices(10, 4, 1).batch(3)
    assert indices.batch(3) != ShuffledIndices(10, 4, 2).batch(3)
    assert [index for _, index in ShuffledIndices(1, 3).batch(0)] == [0, 0, 0]


def test_indices_bad_arguments() -> None:
    for bad in ((0, 1, 0), (1, 0, 0), (1, 1, -1)):
        with pytest.raises(ValueError, match="wanted at least"):
            ShuffledIndices(*bad)
    with pytest.raises(ValueError, match="iteration is -1"):
        ShuffledIndices(1, 1).batch(-1)


def test_a_resumed_stream_gives_the_same_batches() -> None:
    dataset, indices = Scenes(count=5, size=(24, 32)), ShuffledIndices(5, 2, seed=3)
    augment = Augment(translate=4)

    def batches(start: int, count: int) -> list[torch.Tensor]:
        stream = train_batches(dataset, preset("caffe"), indices, start=start, augment=augment)
        return [b.images for b in itertools.islice(stream, count)]

    whole, resumed = batches(0, 6), batches(4, 2)
    assert all(torch.equal(a, b) for a, b in zip(whole[4:], resumed, strict=True))


def test_eval_batches_cover_the_data_set_once() -> None:
    dataset = Scenes("val", count=5, size=(24, 32))
    names = [b.names for b in eval_batches(dataset, preset("torchvision"), 2)]
    assert names == [["val_000000", "val_000001"], ["val_000002", "val_000003"], ["val_000004"]]
    with pytest.raises(ValueError, match="batch_size is 0"):
        eval_batches(dataset, preset("caffe"), 0)


def prefetch_threads() -> int:
    return sum(t.name.startswith("fcnkern-prefetch") for t in threading.enumerate())


@pytest.mark.parametrize("workers", [1, 3])
def test_prefetch_keeps_the_order_and_reads_only_ahead(workers: int) -> None:
    taken: list[int] = []

    def items() -> itertools.count[int]:
        for i in itertools.count():
            taken.append(i)
            yield i

    results = prefetch(lambda i: i * i, items(), depth=3, workers=workers)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert len(taken) <= 5 + 3
    results.close()
    assert prefetch_threads() == 0
    assert list(prefetch(str, range(4), workers=workers)) == ["0", "1", "2", "3"]


def test_an_error_while_loading_reaches_the_caller_in_its_place() -> None:
    def load(i: int) -> int:
        if i == 2:
            raise OSError("disk gone")
        return i

    results = prefetch(load, itertools.count(), depth=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(OSError, match="disk gone"):
        next(results)
    assert prefetch_threads() == 0
