"""Networks on depth, HHA and colour with depth: trained, resumed, scored and used as others are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fcnkern import cli
from fcnkern.data import open_dataset, preset
from fcnkern.engine import load_checkpoint, load_trained, predict_image
from fcnkern.engine.network import starting_network
from fcnkern.engine.settings import TrainSettings
from fcnkern.models import create
from fcnkern.weights import WeightsMismatchError, load_body, save
from tests.data.miniature import make_nyud
from tests.engine._runs import losses, tiny

CHANNELS = {"color": 3, "hha": 3, "depth": 1, "rgbd": 4}
FIRST = {"fcn8s": "conv1_1.weight", "fcn32s_googlenet": "body.conv1.7x7_s2.weight"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_nyud(tmp_path / "nyud", train=["5001", "5002", "5003"], val=["5004", "5005"])


def settings(**changes: object) -> TrainSettings:
    return TrainSettings(**{"iterations": 1, "width": 0.02, **changes})


@pytest.mark.parametrize("source", CHANNELS)
def test_train_resume_eval_predict_and_look(source: str, root: Path, tmp_path: Path) -> None:
    data, out = f"nyud:{root},input={source}", tmp_path / "run"
    words = ["train", f"--data={data}", "--width=0.01", "--save-every=2", "--schedule=constant", "--quiet"]
    words += ["--augment", "--scale=0.8,1.2", "--skip-broken"]
    assert cli.main([*words, "--iterations=4", f"--out={tmp_path / 'whole'}"]) == 0
    assert cli.main([*words, "--iterations=2", f"--out={out}"]) == 0
    assert cli.main(["train", f"--resume={out}", "--iterations=4", "--quiet"]) == 0
    assert losses(out) == losses(tmp_path / "whole")
    last = out / "last.pt"
    trained = load_trained(last)
    assert trained.model.get_parameter(FIRST["fcn8s"]).shape[1] == CHANNELS[source]
    assert trained.model.preprocess == ("torchvision" if source == "color" else f"nyud-{source}")
    scores = tmp_path / "scores.json"
    assert cli.main(["eval", f"--checkpoint={last}", f"--json={scores}", "--quiet"]) == 0
    assert json.loads(scores.read_text())["images"] == 2
    image = root / "data" / {"color": "images", "rgbd": "images"}.get(source, source) / "img_5004.png"
    assert cli.main(["predict", str(image), f"--checkpoint={last}", f"--out={tmp_path}", "--quiet"]) == 0
    sample = open_dataset(data, "val")[0]
    assert np.array_equal(Image.open(tmp_path / "img_5004.png"), predict_image(trained, sample.image))
    picture = tmp_path / "sheet.png"
    assert cli.main(["sheet", f"--data={data}", f"--checkpoints={last}", f"--out={picture}", "--quiet"]) == 0
    assert picture.exists()
    other = f"nyud:{root},input={'depth' if source == 'rgbd' else 'rgbd'}"
    assert cli.main(["train", f"--resume={out}", f"--data={other}", "--iterations=5", "--quiet"]) == 2


@pytest.mark.parametrize("arch", FIRST)
def test_weights_for_colour_are_fused_early(arch: str, tmp_path: Path) -> None:
    colour = create(arch, 5, width=0.02)
    for value in colour.parameters():
        torch.nn.init.normal_(value)
    save(
        tmp_path / "w.safetensors",
        colour.body.state_dict() if hasattr(colour, "body") else colour.state_dict(),
    )
    chosen = settings(arch=arch, weights=str(tmp_path / "w.safetensors"), preprocess="caffe")
    model, report = starting_network(chosen, 5, "nyud-rgbd")
    weight, before = (net.get_parameter(FIRST[arch]) for net in (model, colour))
    assert torch.equal(weight[:, :3], before)
    assert torch.equal(weight[:, 3], before.mean(1))
    assert model.preprocess == "caffe-rgbd"
    assert "loaded" in report
    with pytest.raises(ValueError, match="depth alone: do without weights, or take input=rgbd"):
        starting_network(chosen, 5, "nyud-depth")


@pytest.mark.parametrize("arch", FIRST)
@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_weights_of_as_many_channels_are_taken_as_they_are(arch: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w.{suffix}"
    for channels, wanted in ((4, "nyud-rgbd"), (1, "nyud-depth")):
        fused = create(arch, 5, width=0.02, in_channels=channels)
        for value in fused.parameters():
            torch.nn.init.normal_(value)
        state = {key: value.detach() for key, value in fused.state_dict().items()}
        if suffix == "npz":
            np.savez(path, **{key: value.numpy() for key, value in state.items()})
        else:
            save(path, state, preprocess=wanted)
        model, _ = starting_network(settings(arch=arch, weights=str(path)), 5, wanted)
        assert torch.equal(model.get_parameter(FIRST[arch]), state[FIRST[arch]])
        colours = "torchvision-rgbd" if arch == "fcn8s" else "bvlc-rgbd"
        assert model.preprocess == (colours if suffix == "npz" and channels == 4 else wanted)
        if suffix == "safetensors" and channels == 4:
            with pytest.raises(
                ValueError, match=r"'nyud-rgbd', preprocess is 'caffe-rgbd': mean \(R, G, B\)"
            ):
                starting_network(settings(arch=arch, weights=str(path), preprocess="caffe"), 5, wanted)


@pytest.mark.parametrize(("given", "wanted"), [(4, None), (4, "nyud-depth"), (1, None), (1, "nyud-rgbd")])
def test_weights_of_other_channels_are_refused(given: int, wanted: str | None, tmp_path: Path) -> None:
    path, needed = tmp_path / "w.safetensors", 3 if wanted is None else len(preset(wanted).mean)
    save(path, create("fcn8s", 5, width=0.02, in_channels=given).state_dict())
    message = f"w.safetensors are for {given}-channel images, the data set has {needed}-channel ones"
    with pytest.raises(ValueError, match=message):
        starting_network(settings(weights=str(path)), 5, wanted)
    save(path, create("fcn8s", 5, width=0.04, in_channels=given).state_dict())
    with pytest.raises(WeightsMismatchError, match=rf"conv1_1.weight has shape \(4, {given}, 3, 3\)"):
        load_body(create("fcn8s", 5, width=0.02, in_channels=needed), path)


def test_a_preset_of_other_channels_is_refused(tmp_path: Path) -> None:
    path, model = tmp_path / "w.safetensors", create("fcn32s_googlenet", 5, width=0.02, in_channels=4)
    save(path, model.state_dict())
    with pytest.raises(ValueError, match="preprocess 'caffe' gives 3 channels, the model takes 4"):
        load_body(model, path, preprocess="caffe")
    assert load_body(model, path, preprocess="caffe-rgbd").preprocess == "caffe-rgbd"


def test_a_checkpoint_on_colour_and_depth_is_a_file_of_weights(root: Path, tmp_path: Path) -> None:
    first = tiny(tmp_path / "first", data=f"nyud:{root},input=rgbd", arch="fcn32s")
    first.run()
    words = ["train", f"--weights={first.last}", "--width=0.01", "--iterations=1", "--quiet"]
    for source, code in (("rgbd", 0), ("color", 2)):
        assert cli.main([*words, f"--data=nyud:{root},input={source}", f"--out={tmp_path / source}"]) == code
    assert load_trained(tmp_path / "rgbd" / "last.pt").model.preprocess == "nyud-rgbd"


def test_weights_for_height_and_angle_are_not_fused_with_depth(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save(path, create("fcn8s", 5, width=0.02).state_dict(), preprocess="nyud-hha")
    with pytest.raises(ValueError, match="'nyud-hha' is not for colours: it has none with depth"):
        starting_network(settings(weights=str(path)), 5, "nyud-rgbd")


def test_a_network_on_colour_is_where_fusion_starts(root: Path, tmp_path: Path) -> None:
    colour = tmp_path / "colour" / "last.pt"
    tiny(tmp_path / "colour", data=f"nyud:{root}", arch="fcn32s", preprocess="caffe").run()
    fused = tiny(tmp_path / "fused", data=f"nyud:{root},input=rgbd", arch="fcn32s", init_from=str(colour))
    before = load_checkpoint(colour)["state_dict"]
    assert torch.equal(fused.model.score_fr.weight, before["score_fr.weight"])
    assert torch.equal(fused.model.get_parameter(FIRST["fcn8s"])[:, :3], before[FIRST["fcn8s"]])
    assert fused.model.preprocess == "caffe-rgbd"
    fused.run()
    finer = {"data": f"nyud:{root},input=rgbd", "arch": "fcn16s"}
    stage = tiny(tmp_path / "finer", init_from=str(fused.last), **finer)
    assert stage.model.preprocess == "caffe-rgbd"
    with pytest.raises(ValueError, match="its images have 3 channels, the data set's 4"):
        tiny(tmp_path / "no", init_from=str(colour), **finer)


def test_new_networks_take_the_data_sets_preset_or_the_chosen_colours() -> None:
    def of(wanted: str | None, **changes: object) -> str:
        return starting_network(settings(**changes), 5, wanted)[0].preprocess

    assert of("nyud-hha") == "nyud-hha"
    assert of("nyud-hha", preprocess="caffe") == "caffe"
    assert of("nyud-rgbd", preprocess="torchvision") == "torchvision-rgbd"
    assert of(None) == "torchvision"
    with pytest.raises(ValueError, match=r"preprocess caffe is for colours, the images .* have 1 channels"):
        of("nyud-depth", preprocess="caffe")


def test_depth_is_prepared_alike_behind_all_colours() -> None:
    image = np.random.default_rng(0).integers(1, 255, (4, 5, 4)).astype(np.float32)
    depth = preset("nyud-depth")(image[:, :, 3:])[0]
    for name in ("torchvision", "caffe", "nyud"):
        x = preset(f"{name}-rgbd")(image)
        torch.testing.assert_close(x[3], depth, rtol=1e-4, atol=1e-4)
        assert torch.equal(x[:3], preset(name)(image[:, :, :3].astype(np.uint8)))
