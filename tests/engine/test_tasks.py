"""One network for several tasks: SIFT Flow's semantic and geometric classes, from data to label images."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import SupportsIndex

import numpy as np
import pytest
import torch
from PIL import Image

from fcnkern import cli
from fcnkern.data import IGNORE, Sample, Scenes, Tasks, open_dataset, preset
from fcnkern.engine import Trainer, TrainSettings, load_checkpoint, load_trained, predict_image
from fcnkern.engine.class_weights import class_weights
from fcnkern.engine.evaluate import confusions_over
from fcnkern.engine.log import read_log
from fcnkern.engine.network import new_network
from fcnkern.engine.objective import Objective
from fcnkern.functional import upsample_cross_entropy
from fcnkern.metrics import blocks, from_confusion, trimap
from fcnkern.models import FCN, MultiTask, create
from fcnkern.sampling import Sampling
from tests.data.miniature import SCENES, make_siftflow
from tests.engine._runs import TINY, losses, tiny
from tests.models import _caffe

TASKS = {"semantic": 33, "geometric": 3}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_siftflow(tmp_path / "sift", trainval=["a", "b", "c"], test=["d", "e"])


@pytest.fixture
def data(root: Path) -> str:
    return f"siftflow:{root},task=both,val=test"


def test_train_resume_eval_predict_and_look(
    root: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    (root / "GeoLabels" / SCENES / "e.mat").write_bytes(b"damaged")
    words = ["train", f"--data={data}", "--arch=fcn8s", "--width=0.02", "--quiet", "--lr=0.1", "--warmup=0"]
    words += ["--schedule=constant", "--batch-size=2", "--class-weights=sqrt", "--sampling=0.5", "--cell=2"]
    words += ["--augment", "--shift=2", "--scale=0.8,1.2", "--skip-broken", "--aux=0.5"]
    assert cli.main([*words, "--iterations=4", f"--out={tmp_path / 'whole'}"]) == 0
    assert cli.main([*words, "--iterations=2", f"--out={out}"]) == 0
    assert cli.main(["train", f"--resume={out}", "--iterations=4", "--quiet"]) == 0
    assert losses(out) == losses(tmp_path / "whole")
    make_siftflow(root, test=["d", "e"])
    last = out / "last.pt"
    trained = load_trained(last)
    assert trained.tasks == TASKS
    assert trained.model.score_fr.weight[:33].any()
    assert trained.model.score_fr.weight[33:].any()
    scores, picture = tmp_path / "scores.json", tmp_path / "sheet.png"
    capsys.readouterr()
    words = [f"--checkpoint={last}", "--quiet", "--trimap=1"]
    assert cli.main(["eval", *words, f"--json={scores}"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if line in TASKS] == list(TASKS)
    record = json.loads(scores.read_text())["tasks"]
    assert {task: len(each["per_class_iu"]) for task, each in record.items()} == TASKS
    assert all(0 < each["trimap"]["1"]["pixel_accuracy"] < 1 for each in record.values())
    image = root / "Images" / SCENES / "d.jpg"
    sample = open_dataset(data, "val")[0]
    for options in ({}, {"flip": True}, {"tile": (400, 400)}):
        more = [f"--{name}" if value is True else f"--{name}=400x400" for name, value in options.items()]
        assert cli.main(["predict", str(image), f"--checkpoint={last}", f"--out={tmp_path}", *more]) == 0
        expected = predict_image(trained, sample.image, **options)
        for task, labels in zip(TASKS, expected, strict=True):
            assert np.array_equal(Image.open(tmp_path / f"d_{task}.png"), labels)
            assert (tmp_path / f"d_{task}_overlay.png").exists()
            assert labels.max() < TASKS[task]
    assert "of 1 image to" in capsys.readouterr().out
    assert cli.main(["sheet", f"--data={data}", f"--checkpoints={last}", f"--out={picture}", "--quiet"]) == 0
    assert Image.open(picture).width > 5 * 320


def randomized(classes: int = 36) -> FCN:
    torch.manual_seed(0)
    model = create("fcn16s", classes, width=1 / 32).eval()
    _caffe.randomize(model)
    return model


def labels() -> torch.Tensor:
    """Of both tasks, 2,2,40,50, a quarter without a class."""
    generator = torch.Generator().manual_seed(1)
    maps = [torch.randint(0, count, (2, 40, 50), generator=generator) for count in TASKS.values()]
    drawn = torch.stack(maps, 1)
    return torch.where(torch.rand(drawn.shape, generator=generator) < 0.25, 255, drawn).to(torch.uint8)


@pytest.mark.parametrize("reduction", ["valid", "batch"])
@pytest.mark.parametrize("sampling", [None, Sampling(0.5, cell=8, seed=7)])
def test_the_loss_is_the_sum_over_the_tasks(reduction: str, sampling: Sampling | None) -> None:
    model, images, target = randomized(), torch.randn(2, 3, 40, 50), labels()
    weight = torch.rand(36) + 0.5
    objective = Objective(
        model, class_weight=weight, ignore_index=255, reduction=reduction, auxiliary=0.5, tasks=TASKS
    )
    total, loss, counts = objective(images, target, sampling)
    net, named = MultiTask(model, TASKS), dict(zip(TASKS, target.unbind(1), strict=True))
    weights = dict(zip(TASKS, weight.split([33, 3]), strict=True))
    parts = net.losses(
        images, named, class_weight=weights, reduction=reduction, sampling=sampling, return_stats=True
    )
    torch.testing.assert_close(loss, sum(each for each, _ in parts.values()), rtol=1e-5, atol=1e-5)
    assert torch.equal(counts, sum(stats for _, stats in parts.values()))
    alone = model.streams(images, model.stream_alignments())[1:]
    of_streams = [
        upsample_cross_entropy(
            each, named[task], resample, class_weight=weights[task], reduction=reduction, sampling=sampling
        )
        for scores, resample in alone
        for task, each in zip(TASKS, scores.split([33, 3], 1), strict=True)
    ]
    assert len(of_streams) == 4
    torch.testing.assert_close(total, loss + 0.5 * sum(of_streams), rtol=1e-5, atol=1e-5)
    total.backward()
    assert all(model.score_pool4.weight.grad[part].any() for part in (slice(33), slice(33, 36)))


def test_the_matrix_has_a_block_for_each_task(data: str) -> None:
    model, dataset = randomized(), open_dataset(data, "val")
    prepared = preset(model.preprocess)
    whole, near = confusions_over(model, dataset, prepared, (1,))
    assert whole.shape == (36, 36)
    assert not whole[:33, 33:].any()
    assert not whole[33:, :33].any()
    expected = {task: torch.zeros(count, count, dtype=torch.int64) for task, count in TASKS.items()}
    bands = {task: torch.zeros_like(each) for task, each in expected.items()}
    for sample in dataset:
        found = MultiTask(model, TASKS).predict(prepared(sample.image)[None])
        for task, truth in zip(TASKS, torch.from_numpy(sample.label), strict=True):
            for matrix, target in ((expected[task], truth), (bands[task], trimap(truth[None], 1)[0])):
                seen = target != 255
                matrix.index_put_(
                    (target[seen].long(), found[task][0][seen].long()), torch.tensor(1), accumulate=True
                )
    for matrix, wanted in ((whole, expected), (near, bands)):
        assert all(torch.equal(each, wanted[task]) for task, each in blocks(matrix, TASKS).items())


def test_the_log_and_the_best_checkpoint(data: str, tmp_path: Path) -> None:
    trainer = tiny(tmp_path, data=data, arch="fcn8s", val_split="val", iterations=2, reduction="batch")
    result = trainer.run()
    rows = {row["split"]: row for row in read_log(tmp_path / "log.csv")}
    first = read_log(tmp_path / "log.csv")[0]
    tasks = {
        task: from_confusion(part)
        for task, part in blocks(load_checkpoint(trainer.last)["confusion"], TASKS).items()
    }
    for task, metrics in tasks.items():
        assert float(rows[f"val {task}"]["mean_iu"]) == metrics.mean_iu == result.scores[task].metrics.mean_iu
    joint = [iu for each in tasks.values() for iu in each.per_class_iu if not math.isnan(iu)]
    assert float(rows["val"]["mean_iu"]) == result.best_mean_iu == pytest.approx(np.mean(joint))
    pixels = 48 * np.array([33 / 34, 3 / 4])
    assert float(first["loss"]) == pytest.approx(pixels @ np.log([33, 3]), rel=0.05)
    assert float(first["pixel_loss"]) == pytest.approx(pixels @ np.log([33, 3]) / pixels.sum(), rel=0.02)
    mean = tiny(tmp_path / "mean", data=data, arch="fcn8s", iterations=1)
    mean.run()
    first = read_log(tmp_path / "mean" / "log.csv")[0]
    assert float(first["loss"]) == pytest.approx(math.log(33) + math.log(3), rel=1e-5)
    assert float(first["pixel_loss"]) == pytest.approx((math.log(33) + math.log(3)) / 2, rel=1e-5)


class Ground:
    """Scenes with two classes, the road with what is beside it and all the rest."""

    name, ignore_index, classes = "ground", IGNORE, ["rest", "ground"]
    palette = np.eye(2, 3, dtype=np.uint8)

    def __init__(self, scenes: Scenes) -> None:
        self._scenes = scenes
        self._ground = [scenes.classes.index(name) for name in ("road", "pavement")]

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: SupportsIndex) -> Sample:
        sample = self._scenes[index]
        ground = np.isin(sample.label, self._ground).astype(np.uint8)
        return Sample(sample.image, np.where(sample.label == IGNORE, sample.label, ground), sample.name)


def test_both_tasks_of_one_scene_are_learned(tmp_path: Path) -> None:
    scenes = Scenes("train", count=1, size=(32, 40))
    both = Tasks("scenes", {"all": scenes, "ground": Ground(scenes)})
    settings = TrainSettings(
        **{**TINY, "iterations": 30, "lr": 0.05, "clip": 1.0, "dropout": 0.0, "width": 0.05}
    )
    torch.manual_seed(0)
    model = new_network(settings, len(both.classes))
    result = Trainer(settings, model, both, both, tmp_path, quiet=True).run()
    first, *_, last = [float(r["loss"]) for r in read_log(tmp_path / "log.csv") if r["split"] == "train"]
    assert first == pytest.approx(math.log(11) + math.log(2), rel=1e-6)
    assert last < 1.5
    assert result.scores["all"].metrics.pixel_accuracy > 0.6
    assert result.scores["ground"].metrics.pixel_accuracy > 0.8


def test_stages(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", f"--data={data}", "--width=0.01", "--iterations=1", "--quiet", f"--out={tmp_path}"]
    words += ["--stages=16,8"]
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert cli.main(["train", f"--resume={tmp_path}", "--quiet"]) == 0
    assert capsys.readouterr().out == told
    assert "geometric" in told
    assert load_trained(tmp_path / "8s" / "last.pt").tasks == TASKS


def test_class_weights_are_those_of_each_task(root: Path, data: str) -> None:
    alone = [class_weights("median", open_dataset(f"siftflow:{root},task={task}")) for task in TASKS]
    assert torch.equal(class_weights("median", open_dataset(data)), torch.cat(alone))


def test_what_is_for_one_task_is_refused(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for settings, message in (
        ({"sampling": 0.5, "sampling_mode": "hard"}, "sampling_mode must be uniform for several tasks"),
        ({"sampling": 0.5, "sampling_mode": "balanced"}, "sampling_mode must be uniform for several tasks"),
        ({"upsampling": "learned"}, "must be fixed bilinear: it is learned"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny(tmp_path, data=data, arch="fcn8s", **settings)


def test_each_task_is_an_output_of_what_is_exported(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install onnxruntime")
    tiny(tmp_path, data=data, arch="fcn32s_alexnet", iterations=1, lr=1.0).run()
    trained = load_trained(tmp_path / "last.pt")
    file = tmp_path / "net.onnx"
    assert cli.main(["export", f"--checkpoint={tmp_path / 'last.pt'}", f"--out={file}"]) == 0
    assert "net.onnx: labels_semantic, labels_geometric of images N,3,H,W" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["tasks"] == "semantic 33\ngeometric 3"
    for size in ((37, 1), (50, 70)):
        images = torch.randn(2, 3, *size)
        found = session.run([f"labels_{task}" for task in TASKS], {"images": images.numpy()})
        wanted = MultiTask(trained.model, trained.tasks).predict(images)
        for ours, theirs in zip(found, wanted.values(), strict=True):
            assert ours.dtype == np.uint8
            assert (ours == theirs.numpy()).mean() > 0.98
