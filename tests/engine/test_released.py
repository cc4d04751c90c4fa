"""The authors' models from .caffemodel to label images, on the command line; narrow ones, with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fcnkern import cli
from fcnkern.data import preset, read_input
from fcnkern.engine import RELEASED, TrainSettings, load_released, load_trained, released
from fcnkern.engine.network import starting_network
from fcnkern.models import FCN16s, LateFusion
from fcnkern.weights import save
from fcnkern.weights.files import read_weights
from tests.data.miniature import make_siftflow
from tests.weights import _authors, _caffemodel
from tests.weights._authors import FAMILIES, State

# From the authors' data layers: BGR but for HHA, which is taken as it is stored.
VOC, NYUD, HHA = (104.00699, 116.66877, 122.67892), (116.190, 97.203, 92.318), (132.431, 94.076, 118.477)
MEANS = {"voc": VOC, "pascalcontext": VOC, "nyud": NYUD, "siftflow": (114.578, 115.294, 108.353)}
SIZE = (40, 56)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Released models of a sixteenth of the width, the one on CaffeNet of an eighth."""

    def settings(arch: str, **values: object) -> TrainSettings:
        return TrainSettings(arch=arch, width=1 / 8 if "caffenet" in arch else 1 / 16, **values)

    monkeypatch.setattr(released, "TrainSettings", settings)


def write_caffemodel(path: Path, state: State) -> Path:
    """A file of Caffe's; blobs of one layer follow one another."""
    blobs: dict[str, list[bytes]] = {}
    for key, value in state.items():
        blobs.setdefault(key.rpartition(".")[0], []).append(_caffemodel.blob(value.numpy()))
    path.write_bytes(_caffemodel.network(*(_caffemodel.v2(name, "X", each) for name, each in blobs.items())))
    return path


def write_images(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image, its depth and its HHA in the layout of NYUDv2's archive; images as PIL gives them."""
    generator = np.random.default_rng(5)
    coarse = generator.integers(0, 256, (2, 5, 7, 3)).astype(np.uint8)
    colour, hha = coarse.repeat(8, 1).repeat(8, 2)
    depth = generator.integers(500, 9000, SIZE).astype(np.uint16)
    for name, array in (("images", colour), ("hha", hha), ("depth", depth)):
        (folder / name).mkdir(parents=True)
        Image.fromarray(array).save(folder / name / "img.png")
    return colour, hha, depth


def prepared(family: str, colour: np.ndarray, hha: np.ndarray, depth: np.ndarray) -> torch.Tensor:
    """What the authors' data layer feeds the network, written out."""
    data, _, net = family.partition("-")
    parts = [colour[:, :, ::-1] - np.array(MEANS[data])]
    if net == "fcn32s-hha":
        parts = [hha - np.array(HHA)]
    if net == "fcn32s-color-hha":
        parts.append(hha - np.array(HHA))
    if net == "fcn32s-color-d":
        parts.append(np.log(depth.astype(np.float64))[:, :, None] - 7.844)
    return torch.from_numpy(np.concatenate(parts, axis=2)).permute(2, 0, 1)[None].float()


def test_every_released_model_is_known() -> None:
    assert set(RELEASED) == set(FAMILIES)


@pytest.mark.parametrize(
    "family",
    [
        "voc-fcn8s-atonce",
        "voc-fcn-alexnet",
        "nyud-fcn32s-color",
        "nyud-fcn32s-hha",
        "nyud-fcn32s-color-d",
        "nyud-fcn32s-color-hha",
        "siftflow-fcn16s",
        "pascalcontext-fcn32s",
    ],
)
def test_convert_and_predict_as_caffe_does(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = _authors.random_state(family)
    source, checkpoint = write_caffemodel(tmp_path / "net.caffemodel", state), tmp_path / "net.pt"
    assert cli.main(["convert", str(source), str(checkpoint), "--released", family]) == 0
    told = capsys.readouterr().out
    assert f"{family}: {RELEASED[family].arch}, " in told
    assert f"input convention: {RELEASED[family].preprocess}\n" in told
    images = write_images(tmp_path / "data")
    path = tmp_path / "data" / ("hha" if family == "nyud-fcn32s-hha" else "images") / "img.png"
    words = ["predict", str(path), f"--checkpoint={checkpoint}", f"--out={tmp_path / 'out'}", "--quiet"]
    assert cli.main(words) == 0
    x, own = prepared(family, *images), preset(load_trained(checkpoint).model.preprocess)
    torch.testing.assert_close(own(read_input(path, own))[None], x, rtol=1e-5, atol=1e-3)
    logits = _authors.forward(family, state, x)
    tasks = [f"_{task}" for task in RELEASED[family].tasks] or [""]
    for task, scores in zip(tasks, logits, strict=True):
        found = np.array(Image.open(tmp_path / "out" / f"img{task}.png"))
        assert found.shape == SIZE
        assert (found == scores[0].argmax(0).numpy()).mean() > 0.99


def test_a_released_model_is_where_training_and_conversion_start(tmp_path: Path) -> None:
    family, root = "siftflow-fcn32s", make_siftflow(tmp_path / "sift", trainval=["a"], test=["b"])
    state = _authors.random_state(family)
    source, checkpoint = write_caffemodel(tmp_path / "net.caffemodel", state), tmp_path / "net.pt"
    assert cli.main(["convert", str(source), str(checkpoint), f"--released={family}"]) == 0
    data = f"--data=siftflow:{root},task=both,val=test"
    assert cli.main(["eval", f"--checkpoint={checkpoint}", data, "--quiet"]) == 0
    finer = TrainSettings(iterations=1, width=1 / 16, arch="fcn16s", init_from=str(checkpoint))
    model, _ = starting_network(finer, 36)
    assert isinstance(model, FCN16s)
    assert torch.equal(model.score_fr.weight[33:], state["score_fr_geo.weight"])
    assert model.preprocess == "siftflow"


def test_the_command_converts_names_of_heads_both_ways(tmp_path: Path) -> None:
    """Of the full size, but of weights that share one number."""
    family = "siftflow-fcn32s"
    shapes = {
        key: shape for key, shape in _authors.layers(family).items() if "fc6" not in key and "fc7" not in key
    }
    state = {key: torch.full(shape, index + 1.0) for index, (key, shape) in enumerate(shapes.items())}
    paths = [tmp_path / name for name in ("a.safetensors", "b.safetensors", "c.safetensors")]
    save(paths[0], state, preprocess="siftflow")
    for start, end, naming in ((0, 1, "fcnkern"), (1, 2, "caffe")):
        assert cli.main(["convert", str(paths[start]), str(paths[end]), f"--to={naming}"]) == 0
    joined, back = (read_weights(path) for path in paths[1:])
    assert joined.tasks == {"semantic": 33, "geometric": 3}
    assert joined.tensors["score_fr.bias"].shape == (36,)
    assert set(back.tensors) == set(state)
    assert all(torch.equal(back.tensors[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    ("family", "name", "message"),
    [
        ("nyud-fcn32s-color", "nyud-fcn32s-color-d", r"as nyud-fcn32s-color-d: .*\(4, 3, 3, 3\), the model needs"),
        ("nyud-fcn32s-color", "nyud-fcn32s-color-hha", "missing: color.conv1_1.weight, .*unexpected: conv1_1.weight"),
        ("voc-fcn32s", "pascalcontext-fcn32s", r"score_fr.weight has shape \(21, .*needs \(60, "),
        ("voc-fcn8s", "voc-fcn8s-atonce", "without scale_pool4, scale_pool3 it is a plain FCN-8s, as voc-fcn8s"),
        ("voc-fcn8s-atonce", "voc-fcn8s", "scale_pool4 is 0.01, FCN8s has 1: FCN-8s at once and FCN-8s are"),
        ("voc-fcn32s", "siftflow-fcn32s", r"score_fr.weight has shape \(21, .*needs \(36, "),
        ("voc-fcn32s", "voc-fcn4s", "released model 'voc-fcn4s' is unknown, wanted one of voc-fcn32s, "),
    ],
)  # fmt: skip
def test_a_file_of_another_model_is_refused(family: str, name: str, message: str, tmp_path: Path) -> None:
    path = write_caffemodel(tmp_path / "net.caffemodel", _authors.random_state(family))
    with pytest.raises(ValueError, match=message):
        load_released(name, path)


def test_other_formats_and_what_they_state(tmp_path: Path) -> None:
    state = _authors.random_state("nyud-fcn32s-color-hha")
    save(tmp_path / "a.safetensors", state, preprocess="nyud+nyud-hha")
    trained = load_released("nyud-fcn32s-color-hha", tmp_path / "a.safetensors")
    assert isinstance(trained.model, LateFusion)
    assert not trained.model.training
    assert (len(trained.classes), trained.palette.shape) == (40, (40, 3))
    save(tmp_path / "b.safetensors", state, preprocess="nyud+nyud")
    with pytest.raises(
        ValueError, match=r"'nyud\+nyud', preprocess is 'nyud\+nyud-hha': channels in the order"
    ):
        load_released("nyud-fcn32s-color-hha", tmp_path / "b.safetensors")
    plain = {k: v for k, v in _authors.random_state("voc-fcn8s-atonce").items() if not k.startswith("scale")}
    torch.save(plain, tmp_path / "fcn8s-atonce.pth")
    assert load_released("voc-fcn8s-atonce", tmp_path / "fcn8s-atonce.pth").model.pool4_scale == 0.01


def test_the_command_tells_what_does_not_go_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_caffemodel(tmp_path / "net.caffemodel", _authors.random_state("voc-fcn32s"))
    words = ["convert", str(source), str(tmp_path / "net.pt"), "--released=voc-fcn32s"]
    for more, message in (
        (["--to=caffe", "--preprocess=bvlc"], "--released says all .*, without --to, --preprocess"),
        ([], "checkpoints are written as .pt, got '.safetensors'"),
    ):
        target = words if more else [*words[:2], str(tmp_path / "net.safetensors"), words[3]]
        assert cli.main([*target, *more]) == 2
        with pytest.raises(ValueError, match=message):
            raise ValueError(capsys.readouterr().err)
    assert cli.main(words) == 0
    assert cli.main(["train", f"--resume={tmp_path / 'net.pt'}"]) == 2
    assert "holds a network and no run to go on with" in capsys.readouterr().err
    assert cli.main(["predict", "a.png", f"--checkpoint={source}"]) == 2
    assert "is no checkpoint: 'fcnkern convert --released NAME' makes one" in capsys.readouterr().err
    assert load_trained(tmp_path / "net.pt").settings.arch == "fcn32s"
