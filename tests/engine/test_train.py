"""Training learns, resumes bit for bit, survives kills and says what went wrong."""

from __future__ import annotations

import errno
import io
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fcnkern.cli import main
from fcnkern.engine import (
    TrainSettings,
    load_checkpoint,
    load_trained,
    resume_run,
    save_checkpoint,
    start_run,
)
from fcnkern.engine.interrupt import stop_requested
from fcnkern.engine.lock import only_run_in
from fcnkern.engine.log import read_log
from fcnkern.engine.network import starting_network
from fcnkern.engine.trainer import Trainer
from tests.engine._runs import TINY, Images, losses, stopping_after, tiny

# Everything random at once: crops, mirroring, scaling, dropout, loss sampling, order of the data.
RANDOM = {"augment": True, "crop": (20, 28), "dropout": 0.5, "sampling": 0.5, "cell": 4, "batch_size": 2}


def same_state(a: Path, b: Path) -> bool:
    first, second = load_checkpoint(a), load_checkpoint(b)
    momenta = [
        [entry["momentum_buffer"] for entry in r["optimizer"]["state"].values()] for r in (first, second)
    ]
    return (
        all(
            torch.equal(first["state_dict"][name], second["state_dict"][name]) for name in first["state_dict"]
        )
        and all(torch.equal(x, y) for x, y in zip(*momenta, strict=True))
        and torch.equal(first["rng"], second["rng"])
        and first["iteration"] == second["iteration"]
    )


def test_a_warm_up_longer_than_the_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for warmup, told in ((4, False), (5, True)):
        start_run(TrainSettings(**{**TINY, "warmup": warmup}), tmp_path / str(warmup))
        assert (f"warmup {warmup} is longer than the run" in capsys.readouterr().err) is told


def test_training_learns_one_scene(tmp_path: Path) -> None:
    settings = {"data": "scenes:count=1,size=32x40", "width": 0.05, "iterations": 30, "lr": 0.05, "clip": 1.0}
    tiny(tmp_path, dropout=0.0, **settings).run()
    first, *_, last = [float(row["pixel_loss"]) for row in read_log(tmp_path / "log.csv")]
    assert first == pytest.approx(np.log(11), rel=1e-6)
    assert last < 1.0


@pytest.mark.parametrize("limit", [None, 2])
def test_validation_keeps_the_best_checkpoint(tmp_path: Path, limit: int | None) -> None:
    trainer = tiny(tmp_path, val_split="val", val_every=2, val_limit=limit)
    result = trainer.run()
    rows = [row for row in read_log(trainer.out / "log.csv") if row["split"] == "val"]
    assert [row["iteration"] for row in rows] == ["2", "4"]
    compared = rows if limit is None else rows[:1]  # the last one is over all images
    best = max(compared, key=lambda row: float(row["mean_iu"]))
    assert float(best["mean_iu"]) == result.best_mean_iu == load_checkpoint(trainer.best)["best_mean_iu"]
    assert load_trained(trainer.best).iteration == int(best["iteration"])
    assert result.metrics is not None
    assert float(rows[-1]["fw_iu"]) == result.metrics.fw_iu


def scoring(monkeypatch: pytest.MonkeyPatch, *correct: int) -> None:
    """Validations find so many of 10 pixels correct, one after the other."""
    matrices = (torch.tensor([[each, 10 - each], [0, 0]]) for each in correct)
    monkeypatch.setattr("fcnkern.engine.trainer.confusion_over", lambda *_, **__: next(matrices))
    monkeypatch.setattr("fcnkern.engine.trainer.Trainer._scores", lambda _: {})


@pytest.mark.parametrize(("every", "limit", "best"), [(1, 2, 2), (1, None, 3), (1, 99, 3), (0, 2, 3)])
def test_only_validations_over_the_same_images_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, limit: int | None, best: int
) -> None:
    trainer = tiny(tmp_path, iterations=3, val_split="val", val_every=every, val_limit=limit)
    scoring(monkeypatch, 5, 6, 7)
    trainer.run()
    assert load_checkpoint(trainer.best)["iteration"] == best


def test_with_another_limit_the_choice_of_the_best_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"iterations": 2, "val_split": "val", "val_every": 1}
    scoring(monkeypatch, 8, 7, 5, 6, 9)
    tiny(tmp_path, val_limit=2, **settings).run()
    assert load_checkpoint(tmp_path / "best.pt")["iteration"] == 1
    trainer = resume_run(tmp_path / "last.pt", quiet=True, iterations=5, val_limit=1)
    trainer.run()
    assert load_checkpoint(trainer.best)["iteration"] == 4


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path: Path, precision: str) -> None:
    settings = {**RANDOM, "schedule": "constant", "precision": precision}
    tiny(tmp_path / "whole", iterations=6, **settings).run()
    tiny(tmp_path / "parts", iterations=3, **settings).run()
    torch.manual_seed(99)  # what happens between the two must not matter
    resume_run(tmp_path / "parts" / "last.pt", iterations=6, quiet=True).run()
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert same_state(tmp_path / "parts" / "last.pt", tmp_path / "whole" / "last.pt")


def test_a_signal_stops_validations_too_and_they_are_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"iterations": 5, "val_split": "val", "val_every": 2, "val_limit": 2, "dropout": 0.5}
    tiny(tmp_path / "whole", **settings).run()
    parts, stops = tmp_path / "parts", 0
    # A check after each iteration and each scored image: every one is met once, later ones after an earlier stop.
    for checks in (1, 2, 4, 1, 3, 2, 1, 99):
        monkeypatch.setattr("fcnkern.engine.trainer.stop_requested", stopping_after(checks))
        trainer = tiny(parts, **settings) if stops == 0 else resume_run(parts / "last.pt", quiet=True)
        result = trainer.run()
        stops += 1
        if not result.interrupted:
            break
    assert stops > 4
    assert result.iteration == 5
    logs = [
        [{key: value for key, value in row.items() if key != "elapsed"} for row in read_log(out / "log.csv")]
        for out in (tmp_path / "whole", parts)
    ]
    assert logs[0] == logs[1]
    for name in ("last.pt", "best.pt"):
        assert same_state(parts / name, tmp_path / "whole" / name)


def test_a_checkpoint_of_an_older_version_is_resumed(tmp_path: Path) -> None:
    settings = {**RANDOM, "schedule": "constant"}
    tiny(tmp_path / "whole", iterations=6, **settings).run()
    tiny(tmp_path / "parts", iterations=3, **settings).run()
    last = tmp_path / "parts" / "last.pt"
    record = load_checkpoint(last)
    new = ("scaler", "complete", "confusion", "class_p", "data", "format", "format_version")
    added = (
        "device",
        "compile",
        "tensorboard",
        "accumulate",
        "shift",
        "skip_broken",
        "stages",
        "stage_lr",
        "ema",
    )
    added = (*added, "sampling_mode", "aux")
    record["settings"] = {name: value for name, value in record["settings"].items() if name not in added}
    save_checkpoint(last, {name: value for name, value in record.items() if name not in new})
    assert resume_run(last, iterations=6, quiet=True).run().iteration == 6
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def command(out: Path, *more: str) -> list[str]:
    options = {**TINY, "iterations": 14, "save-every": 2, "threads": 1, "class-weights": "sqrt"}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return ["train", *words, "--augment", "--sampling=0.5", f"--out={out}", "--quiet", *more]


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(
    number: signal.Signals, expected: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        while len(losses(tmp_path)) < 2 if (tmp_path / "log.csv").exists() else True:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    helper = threading.Thread(target=interrupt)
    helper.start()
    code = main(command(tmp_path, "--iterations=100000", "--save-every=100000"))
    helper.join()
    done = len(losses(tmp_path))
    assert code == expected
    assert load_checkpoint(tmp_path / "last.pt")["iteration"] == done
    assert f"fcnkern train --resume {tmp_path / 'last.pt'}" in capsys.readouterr().err
    assert signal.getsignal(number) is before


def test_a_lost_terminal_leaves_the_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[object] = []

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fcnkern.engine.trainer.stop_requested", stopping_after(1))
    monkeypatch.setattr("fcnkern.engine.progress.drop", dropped.append)
    monkeypatch.setattr("sys.stderr", Gone())
    assert main(command(tmp_path)) == 128 + signal.SIGTERM
    assert dropped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_signals_that_are_ignored_stay_so(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stop_requested() as asked:
            signal.raise_signal(number)
            assert asked() == 0
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_divergence_names_the_iteration_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"at iteration [1-9].*lower lr \(it was 1e\+30\).*last\.pt"):
        tiny(tmp_path, lr=1e30, clip=None, schedule="constant", iterations=20, save_every=1).run()
    record = load_checkpoint(tmp_path / "last.pt")
    assert all(torch.isfinite(value).all() for value in record["state_dict"].values())


def test_an_uninitialised_body_is_reported_before_training(tmp_path: Path) -> None:
    ready = tiny(tmp_path)
    torch.nn.init.zeros_(ready.model.get_parameter("conv1_1.weight"))
    with pytest.raises(RuntimeError, match=r"all zero.*conv1_1\.weight"):
        Trainer(ready.settings, ready.model, ready.train_set, None, tmp_path)
    assert not (tmp_path / "last.pt").exists()


def test_a_batch_without_labels_changes_nothing_but_decay(tmp_path: Path) -> None:
    ready = tiny(tmp_path / "a", data="scenes:count=1,size=24x32", weight_decay=0.0, iterations=2)
    blank = Images([np.full((24, 32), 255, np.uint8)], classes=11)
    before = {name: value.clone() for name, value in ready.model.state_dict().items()}
    Trainer(ready.settings, ready.model, blank, None, tmp_path / "b", quiet=True).run()
    assert [float(row["loss"]) for row in read_log(tmp_path / "b" / "log.csv")] == [0.0, 0.0]
    assert all(torch.equal(value, before[name]) for name, value in ready.model.state_dict().items())


def test_mixed_sizes_and_the_papers_recipe(tmp_path: Path) -> None:
    ready = tiny(tmp_path / "a", reduction="batch", lr=1e-5, momentum=0.99, batch_size=2, schedule="constant")
    labels = [
        np.random.default_rng(i).integers(0, 11, (20 + 7 * i, 31 - 5 * i)).astype(np.uint8) for i in range(3)
    ]
    Trainer(ready.settings, ready.model, Images(labels, classes=11), None, tmp_path / "b", quiet=True).run()
    first = read_log(tmp_path / "b" / "log.csv")[0]
    sizes = {labels[i].size + labels[j].size for i in range(3) for j in range(3)}
    assert round(2 * float(first["loss"]) / float(first["pixel_loss"])) in sizes
    assert float(first["pixel_loss"]) == pytest.approx(np.log(11), rel=1e-6)


def test_from_coarse_to_fine(tmp_path: Path) -> None:
    kept = {}
    for arch, before in (
        ("fcn32s", None),
        ("fcn16s", "fcn32s"),
        ("fcn8s", "fcn16s"),
        ("fcn8s-atonce", "fcn16s"),
    ):
        start = None if before is None else str(tmp_path / before / "last.pt")
        trainer = tiny(tmp_path / arch, arch=arch, init_from=start, iterations=1, preprocess=None)
        kept[arch] = trainer.model.get_parameter("score_fr.weight").detach().clone()
        trainer.run()
        if before is not None:
            trained = load_trained(tmp_path / before / "last.pt").model
            assert torch.equal(kept[arch], trained.get_parameter("score_fr.weight"))
    with pytest.raises(ValueError, match=r"is a FCN32s, a FCN8s starts from the next coarser network"):
        tiny(tmp_path / "no", init_from=str(tmp_path / "fcn32s" / "last.pt"))
    with pytest.raises(ValueError, match=r"last\.pt does not fit the network"):
        tiny(tmp_path / "no", arch="fcn16s", width=0.05, init_from=str(tmp_path / "fcn32s" / "last.pt"))


def test_a_start_that_contradicts_the_run_is_refused(tmp_path: Path) -> None:
    tiny(tmp_path / "a", arch="fcn32s", iterations=1, preprocess="caffe").run()
    begun = {"arch": "fcn32s", "init_from": str(tmp_path / "a" / "last.pt")}
    assert tiny(tmp_path / "b", preprocess="caffe", **begun).model.preprocess == "caffe"
    with pytest.raises(
        ValueError, match=r"preprocess must be that of init_from .*'caffe', or left out, got 'torch"
    ):
        tiny(tmp_path / "c", preprocess="torchvision", **begun)
    settings = TrainSettings(**{**TINY, **begun})
    with pytest.raises(ValueError, match="it has 11 classes, the data set 7: --weights takes its body alone"):
        starting_network(settings, 7)


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    tiny(tmp_path, iterations=1).run()
    with pytest.raises(FileExistsError, match="holds a run already"):
        tiny(tmp_path)


def test_an_older_checkpoint_does_not_overwrite_a_later_one(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    tiny(run, iterations=2, val_split="val").run()
    early = run / "early.pt"
    (run / "last.pt").rename(early)
    resume_run(early, iterations=4, quiet=True).run()
    before = {file.name: file.read_bytes() for file in run.iterdir()}
    with pytest.raises(
        FileExistsError, match=r"early.pt is at iteration 2, .*last.pt at 4 would be overwritten"
    ):
        resume_run(early, iterations=3)
    assert {file.name: file.read_bytes() for file in run.iterdir()} == before
    assert resume_run(early, other, iterations=3, quiet=True).run().iteration == 3
    with pytest.raises(FileExistsError, match="holds a run already"):
        resume_run(run / "last.pt", other)
    (run / "last.pt").write_bytes(b"damaged")
    assert resume_run(early, iterations=3, quiet=True).run().iteration == 3


def test_a_run_that_goes_on_elsewhere_keeps_its_best_there(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    tiny(run, iterations=2, val_split="val").run()
    save_checkpoint(run / "last.pt", {**load_checkpoint(run / "last.pt"), "best_mean_iu": 2.0})
    trainer = resume_run(run / "last.pt", other, iterations=3, quiet=True)
    result = trainer.run()
    assert result.metrics is not None
    assert load_checkpoint(trainer.best)["best_mean_iu"] == result.best_mean_iu == result.metrics.mean_iu


def test_what_another_process_has_trained_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    new, late = tiny(tmp_path, iterations=2), tiny(tmp_path, iterations=2)
    new.run()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match=r"last.pt has come to iteration 2, this run is at 0"):
        late.run()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    ahead, behind = (resume_run(tmp_path / "last.pt", iterations=3, quiet=True) for _ in range(2))
    ahead.run()
    with pytest.raises(FileExistsError, match=r"last.pt has come to iteration 3, this run is at 2"):
        behind.run()


def test_a_folder_has_one_run_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with (
        only_run_in(tmp_path),
        pytest.raises(FileExistsError, match=f"{tmp_path} has another run in progress"),
    ):
        tiny(tmp_path).run()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".lock").touch()  # of a killed process
    assert tiny(tmp_path, iterations=1).run().iteration == 1
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"lr": 1.0}, "lr cannot change"), ({"data": "scenes:count=0"}, "count is 0")],
)
def test_bad_changes_on_resuming_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    tiny(tmp_path, iterations=1).run()
    with pytest.raises(ValueError, match=message):
        resume_run(tmp_path / "last.pt", **changes)


def test_a_time_limit_ends_the_run_and_the_schedule(tmp_path: Path) -> None:
    settings = TrainSettings(**{**TINY, "iterations": None, "time_limit": 1.0, "schedule": "poly"})
    result = start_run(settings, tmp_path, quiet=True).run()
    rates = [float(row["lr"]) for row in read_log(tmp_path / "log.csv")]
    assert 1.0 <= result.elapsed < 10.0
    assert rates[0] == settings.lr
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.7 * settings.lr
