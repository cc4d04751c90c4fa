"""Loss sampling: how many images, which pixels, and that what it keeps is what it promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fcnkern.data import open_dataset, preset
from fcnkern.engine import TrainSettings, load_checkpoint
from fcnkern.engine.class_weights import class_shares
from fcnkern.engine.log import read_log
from fcnkern.engine.loss_sampling import LossSampling, balanced_probabilities
from fcnkern.functional import upsample_cross_entropy
from fcnkern.resample import Resample
from tests.engine._runs import TINY, Images, tiny


@pytest.mark.parametrize(("p", "images"), [(None, 20), (1.0, 20), (0.5, 40), (0.25, 80), (0.3, 67)])
def test_a_batch_has_one_over_p_times_the_images(p: float | None, images: int) -> None:
    sampling = LossSampling(TrainSettings(iterations=1, batch_size=20, sampling=p))
    assert sampling.images == images
    assert sampling.images_ratio == images / 20


def test_balanced_probabilities_by_hand() -> None:
    # quotas of 0.1 each: the rare class keeps its 0.04, the others share the rest, 0.13 each
    assert balanced_probabilities([0.7, 0.04, 0.0, 0.26], 0.3) == pytest.approx([0.13 / 0.7, 1, 1, 0.5])
    assert balanced_probabilities([0.5, 0.5], 0.2) == pytest.approx([0.2, 0.2])
    assert balanced_probabilities([0.9, 0.1], 1.0) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("p", [0.05, 0.3, 0.8])
def test_balanced_probabilities_keep_the_share(p: float) -> None:
    shares = np.random.default_rng(0).dirichlet(np.full(11, 0.3))
    kept = shares * balanced_probabilities(shares.tolist(), p)
    assert kept.sum() == pytest.approx(p)
    full = np.isclose(kept, shares)
    assert kept[full].max(initial=0) <= kept[~full].min(initial=1)
    assert np.ptp(kept[~full]) < 1e-12


def counts(sampling: LossSampling, labels: torch.Tensor, scores: torch.Tensor) -> int:
    drawn = sampling(labels)
    _, stats = upsample_cross_entropy(scores, labels, Resample.identity(), sampling=drawn, return_stats=True)
    return int(stats[0])


@pytest.mark.parametrize("mode", ["uniform", "balanced", "hard"])
def test_every_mode_keeps_the_share(mode: str) -> None:
    torch.manual_seed(0)
    p, labels = 0.25, torch.randint(0, 3, (2, 128, 128)).clamp_max(1).to(torch.uint8)
    labels[:, :16] = 255
    settings = TrainSettings(iterations=1, sampling=p, sampling_mode=mode, cell=2)
    sampling = LossSampling(settings, balanced_probabilities([1 / 3, 2 / 3], p))
    scores = torch.randn(2, 2, 128, 128)
    kept = np.array([counts(sampling, labels, scores) for _ in range(8)])
    valid = int((labels != 255).sum())
    if mode == "hard":
        assert set(kept) == {valid // 4}
    else:
        assert len(set(kept)) > 1, "every iteration draws anew"
        assert kept.mean() / valid == pytest.approx(p, rel=0.05)


def test_hard_keeps_the_worst_pixels() -> None:
    torch.manual_seed(0)
    labels, scores = torch.randint(0, 4, (1, 16, 16)).to(torch.uint8), torch.randn(1, 4, 16, 16)
    sampling = LossSampling(TrainSettings(iterations=1, sampling=0.125, sampling_mode="hard"))(labels)
    loss = upsample_cross_entropy(scores, labels, Resample.identity(), sampling=sampling)
    every = torch.nn.functional.cross_entropy(scores, labels.long(), reduction="none")
    torch.testing.assert_close(loss, every.flatten().topk(32).values.mean())


def test_the_summed_loss_of_more_images_counts_as_batch_size_images(tmp_path: Path) -> None:
    """Sum over the kept pixels / batch_size, so that the rate means the same with and without sampling."""
    for name, p in (("all", None), ("most", 1.0), ("half", 0.5)):
        tiny(tmp_path / name, sampling=p, cell=1, reduction="batch", lr=1e-6, iterations=1).run()
    loss = {n: float(read_log(tmp_path / n / "log.csv")[0]["loss"]) for n in ("all", "most", "half")}
    assert loss["most"] == pytest.approx(loss["all"])
    # half the pixels of twice the images; scenes differ a little in how many pixels are labelled
    assert loss["half"] == pytest.approx(loss["all"], rel=0.1)
    rows = read_log(tmp_path / "half" / "log.csv")
    assert float(rows[0]["pixel_loss"]) == pytest.approx(np.log(11), rel=1e-6)


def test_balanced_probabilities_of_a_run_are_those_of_its_data_and_are_kept(tmp_path: Path) -> None:
    tiny(tmp_path, sampling=0.5, sampling_mode="balanced", iterations=1).run()
    stored = load_checkpoint(tmp_path / "last.pt")["class_p"]
    shares = class_shares(open_dataset(TINY["data"], "train"))
    assert shares.sum().item() == pytest.approx(1.0)
    assert stored == balanced_probabilities(shares.tolist(), 0.5)


def test_class_shares_by_hand() -> None:
    labels = [np.array([[0, 0, 0, 1]], np.uint8), np.array([[0, 255, 255, 255]], np.uint8)]
    assert class_shares(Images(labels)).tolist() == [0.8, 0.2, 0.0]


def test_shifts_move_image_and_labels_together(tmp_path: Path) -> None:
    far = 8
    trainer = tiny(tmp_path, shift=far, iterations=1)
    prepare, samples = preset(trainer.model.preprocess), [trainer.train_set[i] for i in range(6)]
    data, shifts = {sample.name: sample for sample in samples}, set()
    for _, batch in zip(range(6), trainer._batches(), strict=False):
        original = data[batch.names[0]]
        wide = np.pad(original.label, far, constant_values=255)
        (dy, dx), *more = [
            (dy, dx)
            for dy in range(2 * far + 1)
            for dx in range(2 * far + 1)
            if np.array_equal(batch.labels[0], wide[dy : dy + 24, dx : dx + 32])
        ]
        assert not more
        shifts.add((dy, dx))
        image = torch.nn.functional.pad(prepare(original.image), (far,) * 4, value=torch.nan)
        expected = image[:, dy : dy + 24, dx : dx + 32]
        inside = ~expected.isnan()
        assert torch.equal(batch.images[0][inside], expected[inside])
    assert len(shifts) > 2
