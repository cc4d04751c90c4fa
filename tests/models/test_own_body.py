"""A head on a backbone of the user's own: names, crops, batch statistics, mappings, mistakes."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor, nn

from fcnkern.models import FCN
from tests.models import _caffe
from tests.models._bodies import ResNet
from tests.models._torchfcn import bilinear


class Maps(nn.Module):
    """Returns its feature maps by name."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """N,3,H,W -> maps at strides 2 and 4."""
        fine = torch.relu(self.fine(x))
        return {"out.fine": fine, "out.coarse": torch.relu(self.coarse(fine))}


def network(taps: tuple[str, ...] = ("layer2", "layer3", "layer4"), **arguments: Any) -> FCN:
    torch.manual_seed(0)
    return FCN(ResNet(), taps, classes=3, **arguments)


def test_layers_are_named_after_the_taps() -> None:
    heads = [name for name, _ in network().named_children() if name != "body"]
    assert heads == ["score_fr", "score_layer2", "score_layer3", "upscore2", "upscore8", "upscore_layer3"]
    model = FCN(Maps(), ("out.coarse", "out.fine"), classes=2)
    heads = [name for name, _ in model.named_children() if name != "body"]
    assert heads == ["score_fr", "score_out_fine", "upscore_fr", "upscore2"]
    assert "body.fine.weight" in model.state_dict()


@pytest.mark.parametrize("size", [(64, 96), (33, 50), (1, 1)])
def test_logits_equal_the_chain_written_by_hand(size: tuple[int, int]) -> None:
    model = network().eval()
    _caffe.randomize(model)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    state, body = model.state_dict(), model.body

    def score(name: str, features: Tensor) -> Tensor:
        return T.conv2d(features, state[f"{name}.weight"], state[f"{name}.bias"])

    with torch.no_grad():
        layer2 = body.layer2(body.layer1(body.stem(x)))
        layer3 = body.layer3(layer2)
        total = score("score_fr", body.layer4(layer3))
        for features, name in ((layer3, "score_layer3"), (layer2, "score_layer2")):
            height, width = features.shape[2:]
            up = T.conv_transpose2d(total, bilinear(3, 3), stride=2)
            total = up[:, :, 1 : 1 + height, 1 : 1 + width] + score(name, features)
        full = T.conv_transpose2d(total, bilinear(3, 15), stride=8)
        plain = full[:, :, 7 : 7 + size[0], 7 : 7 + size[1]]
        ours = model(x)
    assert ours.shape == (2, 3, *size)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5 * plain.abs().max().item())


def test_scales_act_like_a_scaled_classifier() -> None:
    scaled, plain = network(scales=(0.25, 0.5)).eval(), network().eval()
    _caffe.randomize(scaled)
    state = scaled.state_dict()
    state["score_layer2.weight"] = state["score_layer2.weight"] * 0.25
    state["score_layer3.weight"] = state["score_layer3.weight"] * 0.5
    plain.load_state_dict(state)
    x = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(scaled(x), plain(x), rtol=1e-5, atol=1e-5)


def test_maps_that_the_body_returns_are_taps_too() -> None:
    assert FCN(Maps(), "out.coarse", classes=2).taps == ("out.coarse",)
    model = FCN(Maps(), ("out.fine", "out.coarse"), classes=2)
    assert (model.taps, model.alignment.stride) == (("out.fine", "out.coarse"), 4)
    loss = model.loss(torch.randn(1, 3, 9, 11), torch.zeros(1, 9, 11, dtype=torch.int64))
    assert loss.item() == pytest.approx(0.6931472, rel=1e-6)


def test_batch_statistics_go_along_from_coarse_to_fine() -> None:
    coarse, fine = network(("layer4",)), network(("layer3", "layer4"))
    _caffe.randomize(coarse)
    coarse.loss(torch.randn(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.int64))
    assert coarse.body.layer4.bn2.running_mean.any()
    fine.copy_params_from(coarse)
    assert torch.equal(fine.body.layer4.bn2.running_mean, coarse.body.layer4.bn2.running_mean)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(fine.eval()(x), coarse.eval()(x), rtol=1e-5, atol=1e-5)


def test_every_dropout_of_a_body_is_set() -> None:
    model = FCN(nn.Sequential(small_body(), nn.Dropout2d(0.3), nn.Dropout(0.3)), "2", 2, pad=8)
    model.set_dropout(0.0)
    assert [model.body[at].p for at in (1, 2)] == [0.0, 0.0]


class Gain(nn.Module):
    """A parameter that is no weight."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


def test_parameters_of_any_name_go_along_from_coarse_to_fine() -> None:
    def body() -> nn.Sequential:
        return nn.Sequential(small_body(), Gain(), nn.MaxPool2d(2))

    coarse, fine = FCN(body(), "2", 2, pad=8), FCN(body(), ("0", "2"), 2, pad=8)
    _caffe.randomize(coarse)
    with pytest.raises(ValueError, match=r"missing: body\.1\.gamma"):
        fine.copy_params_from(
            {key: value for key, value in coarse.state_dict().items() if "gamma" not in key}
        )
    fine.copy_params_from(coarse)
    assert torch.equal(fine.body[1].gamma, coarse.body[1].gamma)


def test_a_new_network_learns() -> None:
    model = network()
    x, labels = torch.randn(2, 3, 32, 48), torch.randint(0, 3, (2, 4, 6)).repeat_interleave(8, 1)
    labels = labels.repeat_interleave(8, 2)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    model.check_ready()
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        losses.append(model.loss(x, labels))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1].item() < 0.5 * losses[0].item()


class Unused(nn.Module):
    """Has a layer that its forward does not call."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Conv2d(3, 2, 3, 2, 1), nn.Conv2d(3, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        """N,3,H,W."""
        return self.used(x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FCN(ResNet()), "taps must name feature maps of the ResNet, got None"),
        (lambda: network(pad=-1), "pad must be at least 0, got -1"),
        (lambda: network(scales=(1.0,)), r"scales must be 2 numbers for 3 taps, got \(1\.0,\)"),
        (lambda: FCN(Unused(), ("unused",)), "tap 'unused' was not called by the body's forward"),
        (lambda: FCN(Unused(), ("used",), classes=0), "classes must be a whole number of at least 1, got 0"),
        (lambda: network(in_channels=4), "does not run on an image of 1x4x1056x1184"),
    ],
)
def test_mistakes_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_images_of_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x must have shape \(N, 3, H, W\), got \(1, 1, 8, 8\)"):
        network()(torch.zeros(1, 1, 8, 8))


def small_body() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, 1, 1))


def hooks(body: nn.Module) -> list[Any]:
    return [hook for module in body.modules() for hook in module._forward_hooks.values()]


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        (small_body(), {"taps": ("3",), "scales": (1.0,)}),
        (small_body(), {"taps": ("3", "absent")}),
        (ResNet(), {"taps": ("layer4",), "elide": True}),
    ],
)
def test_a_refused_network_leaves_the_body_without_hooks(body: nn.Module, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"scales must be|tap 'absent'|elide needs a body"):
        FCN(body, classes=2, **arguments)
    assert not hooks(body)


def test_nothing_of_a_step_stays_on_a_body_of_two_networks() -> None:
    body = small_body()
    networks = [FCN(body, taps="3", classes=2) for _ in range(2)]
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    networks[1].loss(torch.randn(1, 3, 8, 8), labels).backward()
    body(torch.randn(1, 3, 8, 8))
    assert [hook.outputs for hook in hooks(body)] == [{}, {}]
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        for model in (*networks, copy.deepcopy(networks[1])):
            _caffe.randomize(model)
            torch.testing.assert_close(model.scores(x)[0], model.score_fr(model.body(x)))


def test_threads_have_their_own_feature_maps() -> None:
    model = FCN(small_body(), taps="3", classes=2)
    _caffe.randomize(model)
    images = [torch.full((1, 3, 8, 8), value) for value in (1.0, 2.0)]
    wanted = [model(x) for x in images]
    both = threading.Barrier(2, timeout=30)
    model.body[3].register_forward_hook(lambda *_: both.wait() and None)  # until both have computed the tap
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(model, images))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("coarser", [(0.01,), None])
def test_the_scale_of_each_network_counts_once(coarser: tuple[float, ...] | None) -> None:
    coarse = network(("layer3", "layer4"), scales=coarser).eval()
    fine = network(scales=(1e-4, 0.01)).eval()
    _caffe.randomize(coarse)
    fine.copy_params_from(coarse)
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(fine(x), coarse(x), rtol=1e-4, atol=1e-4)


def test_class_weights_under_another_name_are_refused() -> None:
    x, labels = torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"loss takes no weight.*: weights of classes are class_weight"):
        network().loss(x, labels, weight=torch.ones(3))


class Pyramid(nn.Module):
    """Maps at strides 2, 4 and 8 (or 2, 8 and 32), on which the last of three upsamplings is by 2."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        strides = (2, factor, factor)
        self.stages = nn.ModuleList(
            nn.Conv2d(channels, 4, 2 * stride - 1, stride, stride - 1)
            for channels, stride in zip((3, 4, 4), strides, strict=True)
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """N,3,H,W -> the three maps, finest first."""
        maps = {}
        for name, stage in zip(("fine", "middle", "coarse"), self.stages, strict=True):
            x = maps[name] = torch.relu(stage(x))
        return maps


@pytest.mark.parametrize("as_state", [False, True])
@pytest.mark.parametrize("factor", [2, 4])
def test_steps_are_copied_by_place_where_names_differ(factor: int, as_state: bool) -> None:
    body = Pyramid(factor)
    taps = ("fine", "middle", "coarse")
    coarse = FCN(body, taps[1:], classes=2, upsampling="learned").eval()
    fine = FCN(Pyramid(factor), taps, classes=2, upsampling="learned").eval()
    last = fine.get_parameter(f"{fine.final_layer}.weight").clone()
    _caffe.randomize(coarse)
    report = fine.copy_params_from(coarse.state_dict() if as_state else coarse)
    assert report.unused == (f"{coarse.final_layer}.weight",)
    assert set(report.kept) == {"score_fine", fine._step_layers[1], fine.final_layer}
    assert torch.equal(fine.get_parameter(f"{fine.final_layer}.weight"), last)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = T.conv_transpose2d(
            coarse.scores(x)[0], fine.get_parameter(f"{fine._step_layers[1]}.weight"), stride=factor
        )
        found = fine.scores(x)[0]
        offset = max(0, -fine.alignment.steps[1].offset)
        window = expected[:, :, offset:, offset:][:, :, : found.shape[2], : found.shape[3]]
    torch.testing.assert_close(found, window, rtol=1e-5, atol=1e-5)
