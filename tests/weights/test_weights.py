"""Weights from files and from other models."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from fcnkern import models
from fcnkern.weights import load, load_body
from tests.models import _torchfcn

SMALL = 1 / 16
CONVS = tuple(_torchfcn.BODY)[:13]
FEATURES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def body_state(layers: tuple[str, ...] = tuple(_torchfcn.BODY), divide: int = 16) -> dict[str, Tensor]:
    state = _torchfcn.random_state("FCN32s", divide=divide)
    return {key: value for key, value in state.items() if key.rpartition(".")[0] in layers}


def torchvision_state(divide: int = 16) -> dict[str, Tensor]:
    """The same weights under torchvision's names, with matrices and a last classifier."""
    names = dict(zip(CONVS, (f"features.{i}" for i in FEATURES), strict=True))
    names |= {"fc6": "classifier.0", "fc7": "classifier.3"}
    state = {}
    for key, value in body_state(divide=divide).items():
        layer, _, kind = key.rpartition(".")
        state[f"{names[layer]}.{kind}"] = (
            value.flatten(1) if layer.startswith("fc") and kind == "weight" else value
        )
    return state | {
        "classifier.6.weight": torch.ones(10, 4096 // divide),
        "classifier.6.bias": torch.ones(10),
    }


def assert_body(model: models.VGG16, state: dict[str, Tensor]) -> None:
    for key, value in state.items():
        assert torch.equal(model.get_parameter(key).detach(), value), key


def write(path: Path, state: dict[str, Tensor]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **{key: value.numpy() for key, value in state.items()})
    elif path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"model_state_dict": state, "epoch": 3} if path.suffix == ".tar" else state, path)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth", ".pt", ".tar"])
def test_every_format_loads(tmp_path: Path, suffix: str) -> None:
    state = body_state()
    model = models.FCN8s(3, SMALL)
    report = load_body(model, write(tmp_path / f"vgg16{suffix}", state), preprocess="caffe")
    assert_body(model, state)
    assert (report.loaded, report.initialised, report.unused) == (model.body_layers, (), ())
    assert model.preprocess == "caffe"
    model.check_ready()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_torchvision_names(tmp_path: Path, prefix: str) -> None:
    named = {prefix + key: value for key, value in torchvision_state().items()}
    model = models.VGG16(SMALL)
    report = load_body(model, write(tmp_path / "vgg16.pth", named))
    assert_body(model, body_state())
    assert report.unused == (f"{prefix}classifier.6.weight", f"{prefix}classifier.6.bias")
    assert model.preprocess == "torchvision"


def test_missing_fully_connected_layers_are_initialised_and_reported(tmp_path: Path) -> None:
    state = body_state(CONVS)
    model = models.FCN16s(3, SMALL)
    with torch.no_grad():
        model.fc6.weight.zero_()
        model.fc7.weight.zero_()
    report = load_body(model, write(tmp_path / "convs.npz", state))
    assert_body(model, state)
    assert report.loaded == CONVS
    assert report.initialised == ("fc6", "fc7")
    assert "newly initialised: fc6, fc7" in str(report)
    assert model.fc6.weight.std().item() == pytest.approx((2 / (32 * 49)) ** 0.5, rel=0.05)
    model.check_ready()


def test_a_missing_convolution_names_file_and_layer_and_changes_nothing(tmp_path: Path) -> None:
    state = body_state()
    del state["conv4_2.bias"]
    path = write(tmp_path / "part.safetensors", state)
    model = models.FCN8s(3, SMALL)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"part\.safetensors: .*missing: conv4_2\.bias$"):
        load_body(model, path)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_another_shape_names_file_layer_and_shapes(tmp_path: Path) -> None:
    path = write(tmp_path / "vgg16.npz", body_state(divide=32))
    with pytest.raises(
        ValueError,
        match=r"vgg16\.npz: .*; misshapen: conv1_1\.weight has shape \(2, 3, 3, 3\), .* \(4, 3, 3, 3\)",
    ):
        load_body(models.VGG16(SMALL), path)
    wide = models.VGG16(1 / 8)
    wide.width = 1.0  # leading channels are for narrow models only
    with pytest.raises(ValueError, match=r"conv1_1\.weight"):
        load_body(wide, write(tmp_path / "wide.npz", body_state(divide=4)))


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = body_state()
    state["conv5_1.weight"][3, 2, 1, 0] = float("inf")
    with pytest.raises(ValueError, match=r"bad\.pth: conv5_1\.weight contains NaN or infinity"):
        load_body(models.VGG16(SMALL), write(tmp_path / "bad.pth", state))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.95])
def test_truncated_files_are_named(tmp_path: Path, suffix: str, keep: float) -> None:
    path = write(tmp_path / f"vgg16{suffix}", body_state())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ValueError, match=rf"vgg16\{suffix}: not a readable \{suffix} file"):
        load_body(models.VGG16(SMALL), path)


def test_damaged_bytes_inside_an_archive_are_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "vgg16.npz", body_state())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"vgg16\.npz: not a readable \.npz file"):
        load(path)


@pytest.mark.parametrize(
    "shape", ["(10000000000000,)", "(3000000000,)", "(-1,)", "(9999999999999999999999,)", "('a',)", "("]
)
def test_an_npz_that_declares_more_than_it_holds_is_refused(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"abcd")
    with pytest.raises(ValueError, match=r"a\.npz: not a readable \.npz file"):
        load(tmp_path / "a.npz")


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_a_damaged_torch_file_is_an_error_that_names_it(tmp_path: Path, seed: int, old: bool) -> None:
    path, rng = tmp_path / "a.pth", np.random.default_rng(seed)
    torch.save({"a.weight": torch.ones(3, 2)}, path, _use_new_zipfile_serialization=not old)
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    content[rng.integers(len(content), size=8)] = rng.integers(256, size=8)
    path.write_bytes(content.tobytes())
    try:
        load(path)
    except ValueError as error:
        message = str(error)
    else:
        message = f"{path}: read"
    assert message.startswith(f"{path}: ")


class Opener:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("1 + 1",)


def test_files_that_need_unpickled_code_are_refused(tmp_path: Path) -> None:
    torch.save({"conv1_1.weight": Opener()}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match=r"code\.pth: not a readable \.pth file"):
        load(tmp_path / "code.pth")
    np.savez(tmp_path / "code.npz", weight=np.array([Opener()], dtype=object))
    with pytest.raises(ValueError, match=r"code\.npz: not a readable \.npz file"):
        load(tmp_path / "code.npz")


def test_a_whole_model_is_refused_without_advice_to_run_it(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "model.pth")
    with pytest.raises(
        ValueError, match=r"holds torch\.nn\.modules\.linear\.Linear, wanted .* state_dict\(\)"
    ) as refused:
        load(tmp_path / "model.pth")
    assert "weights_only" not in str(refused.value)
    (tmp_path / "text.pth").write_text("= no weights")
    with pytest.raises(
        ValueError, match=r"text\.pth: not a readable \.pth file.*\(not written by torch\.save\)"
    ):
        load(tmp_path / "text.pth")


def test_other_bad_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.npz"):
        load(tmp_path / "nothing.npz")
    (tmp_path / "net.onnx").write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"net\.onnx: unknown weights format '\.onnx', expected one of \.caffemodel, \.npz"
    ):
        load(tmp_path / "net.onnx")
    (tmp_path / "net.caffemodel").write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"net\.caffemodel: not a readable .caffemodel file.*\(byte 1, network"
    ):
        load(tmp_path / "net.caffemodel")
    torch.save({"epoch": 3, 0: torch.zeros(1)}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match=r"empty\.pth: contains no floating-point tensors"):
        load(tmp_path / "empty.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list\.pth: .*state_dict was expected, the file holds a list"):
        load(tmp_path / "list.pth")
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    with pytest.raises(ValueError, match=r"array\.npz: .*single array"):
        load(tmp_path / "array.npz")
    with pytest.raises(ValueError, match="preset 'bgr' is unknown, wanted one of bvlc, bvlc-rgbd, caffe"):
        load_body(models.VGG16(SMALL), tmp_path / "nothing.npz", preprocess="bgr")


@pytest.mark.parametrize(
    ("strange", "what"),
    [
        (torch.eye(3).to_sparse(), "torch.float32, torch.sparse_coo, on cpu"),
        (torch.ones(3, device="meta"), "torch.float32, torch.strided, on meta"),
        (torch.ones(3).to(torch.float8_e4m3fn), "torch.float8_e4m3fn, torch.strided, on cpu"),
    ],
)
def test_tensors_that_no_layer_can_take_are_named(tmp_path: Path, strange: Tensor, what: str) -> None:
    path = write(tmp_path / "a.pth", {"plain.weight": torch.ones(3), "c.weight": strange})
    with pytest.raises(ValueError, match=rf"a.pth: c.weight is {what}, wanted a dense tensor"):
        load(path)


def test_a_narrow_model_takes_leading_channels_with_the_fan_in_compensated(tmp_path: Path) -> None:
    state = body_state(divide=8)
    model = models.FCN32s(3, SMALL)
    report = load_body(model, write(tmp_path / "vgg16.npz", state))
    assert report.narrowed
    assert "warm start" in str(report)
    torch.testing.assert_close(model.conv1_1.weight.detach(), state["conv1_1.weight"][:4])
    torch.testing.assert_close(model.conv3_2.weight.detach(), state["conv3_2.weight"][:16, :16] * 2**0.5)
    torch.testing.assert_close(model.fc6.weight.detach(), state["fc6.weight"][:256, :32] * 2**0.5)
    assert torch.equal(model.fc7.bias.detach(), state["fc7.bias"][:256])


def test_copy_from_a_torchvision_like_module_a_model_and_a_dict() -> None:
    vgg = nn.Module()
    named = torchvision_state()
    for group in ("features", "classifier"):
        layers = [nn.Identity() for _ in range(31)]
        for key, value in named.items():
            prefix, index, kind = key.split(".")
            if prefix == group and kind == "weight":
                new = nn.Conv2d if value.dim() == 4 else nn.Linear
                layers[int(index)] = new(value.shape[1], value.shape[0], *value.shape[2:3])
        vgg.add_module(group, nn.Sequential(*layers))
    vgg.load_state_dict(named)
    first, second, third = (models.FCN32s(3, SMALL) for _ in range(3))
    first.copy_params_from_vgg16(vgg)
    assert_body(first, body_state())
    body = models.VGG16(SMALL)
    body.preprocess = "caffe"
    body.copy_params_from_vgg16(body_state())
    second.copy_params_from_vgg16(body)
    assert second.preprocess == "caffe"
    third.copy_params_from_vgg16({key: value.numpy() for key, value in named.items()})
    for model in (second, third):
        assert_body(model, body_state())
    assert second.conv1_1.weight.data_ptr() != body.conv1_1.weight.data_ptr()


def test_staged_training_keeps_the_scores() -> None:
    """32s -> 16s -> 8s: the new skip is silent, so each starts from its predecessor's low-resolution scores."""
    coarse = models.FCN32s(3, SMALL).eval()
    coarse.load_state_dict(_torchfcn.random_state("FCN32s", n_class=3))
    coarse.preprocess = "caffe"
    middle, fine, at_once = (
        cls(3, SMALL).eval() for cls in (models.FCN16s, models.FCN8s, models.FCN8sAtOnce)
    )
    report = middle.copy_params_from_fcn32s(coarse)
    assert report.kept == ("score_pool4", "upscore2", "upscore16")
    assert "left as they were: score_pool4, upscore2, upscore16" in str(report)
    assert report.unused == ("upscore.weight",)
    assert middle.preprocess == "caffe"
    x = torch.randn(1, 3, 70, 45)
    with torch.no_grad():
        scores32, scores16 = coarse.scores(x)[0], middle.scores(x)[0]
        up = nn.functional.conv_transpose2d(scores32, middle.upscore2.weight, stride=2)
        torch.testing.assert_close(scores16, up, rtol=1e-5, atol=1e-5)
        middle.score_pool4.weight.normal_()
        for model in (fine, at_once):
            report = model.copy_params_from_fcn16s(middle)
            assert report.unused == ("upscore16.weight",)
            up = nn.functional.conv_transpose2d(middle.scores(x)[0], fine.upscore2.weight, stride=2)
            torch.testing.assert_close(model.scores(x)[0], up, rtol=1e-5, atol=1e-4)


def test_staged_training_from_a_wrong_source() -> None:
    fine = models.FCN8s(3, SMALL)
    with pytest.raises(
        ValueError,
        match=r"FCN32s: .*missing: score_pool4\.weight, score_pool4\.bias, upscore2\.weight; unexpected: upscore",
    ):
        fine.copy_params_from_fcn16s(models.FCN32s(3, SMALL))
    with pytest.raises(
        ValueError, match=r"score_fr\.weight has shape \(4, 256, 1, 1\), the model needs \(3, 256, 1, 1\)"
    ):
        fine.copy_params_from_fcn16s(models.FCN16s(4, SMALL))


def test_imagenet_vgg16(shared: Path) -> None:
    path = shared / "weights" / "vgg16_conv_torchvision_imagenet.npz"
    if not path.is_file():
        pytest.skip("needs shared/weights/vgg16_conv_torchvision_imagenet.npz")
    model = models.FCN8s(11, 1 / 8)
    report = load_body(model, path)
    assert report.initialised == ("fc6", "fc7")
    assert report.narrowed
    model.check_ready()
    original = load(path)
    with torch.device("meta"):
        full = models.VGG16()
    assert all(full.get_parameter(key).shape == value.shape for key, value in original.items())
    assert len(original) == 26
    torch.testing.assert_close(model.conv1_1.weight.detach(), original["conv1_1.weight"][:8])
