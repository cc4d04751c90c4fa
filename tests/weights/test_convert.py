"""Files that are written and checked, the command `fcnkern convert`, and trained bodies into networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from fcnkern import cli, models
from fcnkern.weights import WeightsMismatchError, convert, fold_input, load, load_body, save
from fcnkern.weights.files import read_weights
from tests.models import _torchfcn
from tests.weights._states import body

# -------------------------------------------------------------------- files and the command


def small_vgg(path: Path, **options: str) -> dict[str, Tensor]:
    """A file of VGG16's first convolution with random weights, the others constant."""
    generator = torch.Generator().manual_seed(0)
    state = body("vgg16", "torchvision") | {
        "features.0.weight": torch.randn(64, 3, 3, 3, generator=generator)
    }
    save(path, state, **options)
    return state


def test_save_states_the_convention_and_separates_shared_memory(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    state = {"a": base[:6], "b": base, "c": base.reshape(3, 4).T, "d": base}
    save(tmp_path / "a.safetensors", state, preprocess="bvlc")
    weights = read_weights(tmp_path / "a.safetensors")
    assert weights.preprocess == "bvlc"
    assert all(torch.equal(weights.tensors[key], value) for key, value in state.items())
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_save_states_late_fusions_presets_and_tasks(tmp_path: Path) -> None:
    path, tasks = tmp_path / "a.safetensors", {"semantic": 33, "geometric": 3}
    save(path, {"a": torch.ones(2)}, preprocess="nyud+nyud-hha", tasks=tasks)
    assert (read_weights(path).preprocess, read_weights(path).tasks) == ("nyud+nyud-hha", tasks)
    torch.save(
        {"state_dict": {"a": torch.ones(2)}, "preprocess": "nyud-rgbd", "tasks": tasks}, tmp_path / "a.pt"
    )
    stated = read_weights(tmp_path / "a.pt")
    assert (stated.preprocess, stated.tasks) == ("nyud-rgbd", tasks)


def test_what_other_programs_state_is_not_taken_for_ours(tmp_path: Path) -> None:
    metadata = {"tasks": "segmentation", "preprocess": "resize"}
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors", metadata)
    torch.save({"model": {"a": torch.ones(2)}, "preprocess": 3, "tasks": ["x"]}, tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        stated = read_weights(tmp_path / name)
        assert (stated.preprocess, stated.tasks) == (None, {})


def test_saved_weights_may_be_read_as_other_new_files(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    save(tmp_path / "a.safetensors", {"a.weight": torch.ones(2)})
    modes = {file.stat().st_mode for file in tmp_path.iterdir()}
    assert len(modes) == 1


@pytest.mark.parametrize(
    ("name", "state", "options", "error", "message"),
    [
        ("a.pt", {"a": torch.ones(1)}, {}, ValueError, r"written as \.safetensors, got '\.pt'"),
        ("a.safetensors", {}, {}, ValueError, "no tensors to write"),
        ("a.safetensors", {"a": 3}, {}, TypeError, "a is a int"),
        (
            "a.safetensors",
            {"a": torch.ones(1)},
            {"preprocess": "x"},
            ValueError,
            "preset 'x' is unknown, wanted one of bvlc",
        ),
    ],
)
def test_save_refuses(
    tmp_path: Path, name: str, state: dict, options: dict, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        save(tmp_path / name, state, **options)
    assert list(tmp_path.iterdir()) == []


def test_load_checks_the_sha256(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(ValueError, match=rf"a\.npz: SHA-256 is {known}, wanted 00ff"):
        load(path, sha256="00ff")
    with pytest.raises(ValueError, match="not a readable"):
        load(path, sha256=f" {known.upper()}\n")


def test_the_command_converts_folds_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = small_vgg(tmp_path / "in.safetensors", preprocess="torchvision")
    words = ["convert", str(tmp_path / "in.safetensors"), str(tmp_path / "out.safetensors")]
    assert cli.main([*words, "--to", "pytorch-fcn", "--fold", "torchvision-bgr"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "vgg16: torchvision names to pytorch-fcn names, 26 tensors, 14,714,688 numbers"
    assert lines[2:4] == ["not in the source: classifier.0, classifier.3, classifier.6",
                          "first layer: folded from torchvision to torchvision-bgr"]  # fmt: skip
    written = read_weights(tmp_path / "out.safetensors")
    assert written.preprocess == "torchvision-bgr"
    assert set(written.tensors) == set(body())
    wanted = fold_input(convert(state, "pytorch-fcn"), "torchvision", "torchvision-bgr")
    assert torch.equal(written.tensors["conv1_1.weight"], wanted.state["conv1_1.weight"])
    assert not torch.equal(written.tensors["conv1_1.weight"], state["features.0.weight"])
    digest = lines[0].rpartition(" ")[2]
    assert cli.main([*words, "--sha256", digest]) == 0
    assert f"SHA-256 {digest}, as wanted" in capsys.readouterr().out
    assert read_weights(tmp_path / "out.safetensors").preprocess == "torchvision"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sha256", "12"], "SHA-256 is .*, wanted 12"),
        (
            ["--preprocess", "caffe"],
            "its input as 'torchvision', preprocess is 'caffe': channels in the order",
        ),
        (["--preprocess", "coffee"], "preset 'coffee' is unknown, wanted one of bvlc"),
        (["--fold", "caffe"], "mean mismatch"),
        (["--arch", "googlenet"], "in.safetensors as googlenet: .*missing: conv1.7x7_s2.weight"),
    ],
)
def test_the_command_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    small_vgg(tmp_path / "in.safetensors", preprocess="torchvision")
    out = tmp_path / "out.safetensors"
    assert cli.main(["convert", str(tmp_path / "in.safetensors"), str(out), *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    with pytest.raises(ValueError, match=f"^fcnkern: error: .*{message}"):
        raise ValueError(captured.err)
    assert not out.exists()


def test_the_command_needs_to_know_from_where_to_fold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_vgg(tmp_path / "in.safetensors")
    assert (
        cli.main(
            ["convert", str(tmp_path / "in.safetensors"), str(tmp_path / "o.safetensors"), "--fold", "caffe"]
        )
        == 2
    )
    assert "does not state how its images were prepared" in capsys.readouterr().err


# -------------------------------------------------------------------- into a network


def small_body() -> tuple[models.VGG16, dict[str, Tensor]]:
    state = _torchfcn.random_state("FCN32s", divide=16)
    return models.VGG16(1 / 16), {key: value for key, value in state.items() if "score" not in key}


@pytest.mark.parametrize(
    ("stated", "given", "wanted"),
    [
        ("bvlc", None, "bvlc"),
        (None, "bvlc", "bvlc"),
        (None, None, "torchvision"),
        ("caffe", "caffe", "caffe"),
    ],
)
def test_load_body_takes_the_convention_that_is_stated(
    tmp_path: Path, stated: str | None, given: str | None, wanted: str
) -> None:
    model, state = small_body()
    save(tmp_path / "a.safetensors", state, preprocess=stated)
    report = load_body(model, tmp_path / "a.safetensors", preprocess=given)
    assert (model.preprocess, report.preprocess) == (wanted, wanted)
    assert f"input: {wanted}" in str(report)
    assert ("assumed: the source does not say" in str(report)) == (stated is None and given is None)


def test_load_body_reads_a_checkpoints_convention(tmp_path: Path) -> None:
    model, state = small_body()
    torch.save({"state_dict": state, "preprocess": "caffe"}, tmp_path / "a.pt")
    load_body(model, tmp_path / "a.pt")
    assert model.preprocess == "caffe"


@pytest.mark.parametrize(
    ("stated", "given", "words"),
    [("caffe", "torchvision", "channels in the order"), ("caffe", "bvlc", r"mean \(R, G, B\)")],
)
def test_load_body_refuses_a_convention_that_contradicts_the_file(
    tmp_path: Path, stated: str, given: str, words: str
) -> None:
    model, state = small_body()
    save(tmp_path / "a.safetensors", state, preprocess=stated)
    before = model.conv1_1.weight.clone()
    with pytest.raises(
        ValueError, match=rf"a\.safetensors: the file states its input as '{stated}'.*{words}"
    ):
        load_body(model, tmp_path / "a.safetensors", preprocess=given)
    assert torch.equal(model.conv1_1.weight, before)


def test_load_body_reports_a_body_of_zeros(tmp_path: Path) -> None:
    model, state = small_body()
    state["conv3_1.weight"] = torch.zeros_like(state["conv3_1.weight"])
    np.savez(tmp_path / "a.npz", **{key: value.numpy() for key, value in state.items()})
    report = load_body(model, tmp_path / "a.npz")
    assert report.zero == ("conv3_1",)
    assert "all zero, so that nothing passes them: conv3_1" in str(report)


def test_load_body_lists_all_that_differs(tmp_path: Path) -> None:
    model, state = small_body()
    model.fc6.weight.data.zero_()
    del state["conv2_2.weight"], state["conv5_3.bias"]
    state |= {"conv1_1.weight": torch.ones(4, 3, 5, 5), "odd.weight": torch.ones(1)}
    save(tmp_path / "a.safetensors", state)
    with pytest.raises(WeightsMismatchError) as error:
        load_body(model, tmp_path / "a.safetensors")
    assert error.value.missing == ("conv2_2.weight", "conv5_3.bias")
    assert error.value.misshapen == {"conv1_1.weight": ((4, 3, 5, 5), (4, 3, 3, 3))}
    assert error.value.unexpected == ("odd.weight",)
    assert not model.fc6.weight.any()
