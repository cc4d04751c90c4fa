"""The log outlives full disks and damage, and has every validation once."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from fcnkern.engine import resume_run
from fcnkern.engine.log import CsvLog, read_log
from tests.engine._runs import losses, tiny


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on the size of files")
def test_rows_that_cannot_be_written_are_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.csv"
    log, own = CsvLog(path, 0), resource.getrlimit(resource.RLIMIT_FSIZE)
    log.write(iteration=1, split="train", loss=0.5)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, own[1]))
    try:
        log.write(iteration=2, split="train", loss=0.5)
        log.write(iteration=3, split="train", loss=0.5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, own)
    log.write(iteration=4, split="train", loss=0.25)
    log.close()
    assert [(row["iteration"], row["loss"]) for row in read_log(path)] == [("1", "0.5"), ("4", "0.25")]
    assert capsys.readouterr().err.count(f"log {path} cannot be written, rows will be missing") == 1


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,2\n",
        b"iteration,split\n1,train,3\n",
        b"iteration,split,mine\n1,train,3\n",
        b"iteration,split\nx,train\n",
        b"iteration,split\n1\n",
        b"split,iteration\ntrain\n",
        b"iteration,loss\n1,2\n",
        b"\xff\x00\n\x80\n",
    ],
)
def test_a_damaged_log_is_put_aside(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    log = CsvLog(path, 4)
    log.write(iteration=5, split="train", loss=0.5)
    log.close()
    assert [row["iteration"] for row in read_log(path)] == ["5"]
    assert (tmp_path / "log.csv.old").read_bytes() == content
    assert f"log {path} is damaged or no log of fcnkern: it is kept as {path}.old" in capsys.readouterr().err


def test_a_validation_that_comes_again_is_logged_once(tmp_path: Path) -> None:
    tiny(tmp_path, iterations=2, val_split="val").run()
    before = (tmp_path / "log.csv").read_text().splitlines()
    resume_run(tmp_path / "last.pt", quiet=True).run()
    again = (tmp_path / "log.csv").read_text().splitlines()
    assert [row["split"] for row in read_log(tmp_path / "log.csv")] == ["train", "train", "val"]
    assert again[:3] == before[:3]
    resume_run(tmp_path / "last.pt", iterations=3, quiet=True).run()
    assert [row["split"] for row in read_log(tmp_path / "log.csv")] == [
        "train",
        "train",
        "val",
        "train",
        "val",
    ]
    assert len(losses(tmp_path)) == 3
