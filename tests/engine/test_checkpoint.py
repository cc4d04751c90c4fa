"""Checkpoints are complete or absent, and no code runs when one is read."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from fcnkern._files import write_atomically
from fcnkern.engine import load_checkpoint, save_checkpoint

CONTENT = {
    "state_dict": {"w": torch.arange(3.0)},
    "classes": ["a"],
    "palette": torch.zeros(1, 3, dtype=torch.uint8),
    "preprocess": "caffe",
    "settings": {},
    "iteration": 7,
}


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "deep" / "a.pt", CONTENT)
    record = load_checkpoint(tmp_path / "deep" / "a.pt")
    assert record["iteration"] == 7
    assert torch.equal(record["state_dict"]["w"], torch.arange(3.0))


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, CONTENT)
    before = path.read_bytes()

    def half(file: BinaryIO) -> None:
        file.write(b"half of it")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, half)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_the_new_content_is_on_the_disk_before_it_takes_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b))[1])
    write_atomically(tmp_path / "a", lambda file: file.write(b"x"))
    assert calls[:2] == ["fsync", "replace"]


def test_links_and_devices_stay_what_they_are(tmp_path: Path) -> None:
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(tmp_path / "deep" / "file")
    for content in (b"one", b"two"):
        write_atomically(link, lambda file, content=content: file.write(content))
        assert link.is_symlink()
        assert (tmp_path / "deep" / "file").read_bytes() == content
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(pipe, lambda file: file.write(b"x"))
    assert os.read(reader, 9) == b"x"
    os.close(reader)
    assert pipe.is_fifo()


def test_a_write_that_fails_names_the_file(tmp_path: Path) -> None:
    def fail(file: BinaryIO) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path / 'a'}'"):
        write_atomically(tmp_path / "a", fail)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"checkpoint .*nowhere\.pt does not exist"):
        load_checkpoint(tmp_path / "nowhere.pt")


def test_of_a_folder_the_newest_checkpoint_is_meant(tmp_path: Path) -> None:
    for stage in ("16s", "8s"):
        (tmp_path / "staged" / stage).mkdir(parents=True)
        (tmp_path / "staged" / stage / "last.pt").touch()
    with pytest.raises(FileNotFoundError, match=r"staged/last\.pt does not exist; there are .*16s, .*8s$"):
        load_checkpoint(tmp_path / "staged")
    with pytest.raises(FileNotFoundError, match=r"checkpoint .*last\.pt does not exist"):
        load_checkpoint(tmp_path)
    save_checkpoint(tmp_path / "last.pt", CONTENT)
    assert load_checkpoint(tmp_path)["iteration"] == 7


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_checkpoint_is_named(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "cut.pt"
    save_checkpoint(path, CONTENT)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep if keep >= 1 else keep * len(whole))])
    with pytest.raises(ValueError, match=r"checkpoint .*cut\.pt cannot be read"):
        load_checkpoint(path)


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("trapped",)


def test_code_in_a_file_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": Trap()}, tmp_path / "trap.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap(), protocol=2))
    for name in ("trap.pt", "plain.pt"):
        with pytest.raises(ValueError, match="cannot be read"):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "trapped").exists()


def test_foreign_newer_and_incomplete_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="is not a checkpoint of fcnkern"):
        load_checkpoint(path)
    save_checkpoint(path, {**CONTENT, "format_version": 99})
    with pytest.raises(ValueError, match="has format 99"):
        load_checkpoint(path)
    save_checkpoint(path, {name: value for name, value in CONTENT.items() if name != "classes"})
    with pytest.raises(ValueError, match="lacks classes"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("format_version", "1", "int"),
        ("state_dict", None, "Mapping"),
        ("classes", "abc", "list"),
        ("palette", [[0, 0, 0]], "Tensor"),
        ("preprocess", 5, "str"),
        ("settings", [], "dict"),
        ("iteration", None, "int"),
    ],
)
def test_an_entry_of_another_type_is_named(tmp_path: Path, name: str, value: object, wanted: str) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, {**CONTENT, name: value})
    with pytest.raises(
        ValueError, match=rf"checkpoint .*a\.pt: {name} is a {type(value).__name__}, wanted {wanted}"
    ):
        load_checkpoint(path)
