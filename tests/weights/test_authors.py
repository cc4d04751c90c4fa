"""The authors' released networks, whole: into this package's networks, and their names there and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fcnkern.models import FCN8s, FCN32s, MultiTask, create, create_late
from fcnkern.weights import WeightsMismatchError, convert, fold_input, transfer_body, transfer_network
from tests.weights import _authors
from tests.weights._authors import FAMILIES, State, narrow_by

TASKS = {"semantic": 33, "geometric": 3}


def network(family: str) -> Any:
    """What the family is to be loaded into, narrow."""
    data, _, net = family.partition("-")
    width = 1 / narrow_by(family)
    if data == "siftflow":
        return MultiTask(create(net, 36, width=width), TASKS).eval()
    classes = _authors.CLASSES[data]
    if net == "fcn32s-color-hha":
        return create_late("fcn32s-late", classes, width=width).eval()
    channels = 4 if net == "fcn32s-color-d" else 3
    name = "fcn32s_caffenet" if net == "fcn-alexnet" else net.removesuffix("-d").removesuffix("-color")
    return create(name.removesuffix("-hha"), classes, width=width, in_channels=channels).eval()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_each_family_loads_wholly_and_computes_what_caffe_does(family: str) -> None:
    state, model = _authors.random_state(family), network(family)
    report = transfer_network(model, state, source="net.caffemodel")
    assert report.unused == report.initialised == report.kept == report.zero == ()
    channels = getattr(model, "net", model)._in_channels
    x = torch.randn(1, channels, 20, 30, generator=torch.Generator().manual_seed(1))
    found = model(x)
    heads = list(found.values()) if isinstance(model, MultiTask) else [found]
    for ours, theirs in zip(heads, _authors.forward(family, state, x), strict=True):
        assert theirs.std() > 0.01
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize("family", ["voc-fcn-alexnet", "nyud-fcn32s-color-hha", "siftflow-fcn16s"])
def test_a_networks_own_state_dict_loads_too(family: str) -> None:
    own, other = network(family), network(family)
    state = own.state_dict()
    transfer_network(other, {f"module.{key}": value for key, value in state.items()}, source="own")
    assert all(torch.equal(value, state[key]) for key, value in other.state_dict().items())


# -------------------------------------------------------------------- names


def numbered(family: str) -> State:
    """Weights of the full size, in which no two layers are alike, at no cost of memory."""
    shapes = {key: shape for key, shape in _authors.layers(family).items() if not key.startswith("scale")}
    return {
        key: torch.full((), index + 1.0).expand(shape) for index, (key, shape) in enumerate(shapes.items())
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_names_there_and_back(family: str) -> None:
    state = numbered(family)
    there = convert(state, "fcnkern")
    assert (there.others, there.left_out, there.zero) == ((), (), ())
    assert there.tasks == (TASKS if family.startswith("siftflow") else {})
    back = convert(there.state, "caffe", tasks=there.tasks).state
    assert {key: value.shape for key, value in back.items()} == {k: value.shape for k, value in state.items()}
    assert all(back[key][(0,) * value.dim()] == value[(0,) * value.dim()] for key, value in state.items())
    first = next(key for key in state if key.startswith("conv1"))
    assert torch.equal(back[first], state[first])


def test_late_fusion_and_depth_have_the_names_of_this_packages_networks() -> None:
    with torch.device("meta"):
        late, early = create_late("fcn32s-late", 40), create("fcn32s", 40, in_channels=4)
    for family, model in (("nyud-fcn32s-color-hha", late), ("nyud-fcn32s-color-d", early)):
        there = convert(numbered(family), "fcnkern").state
        assert {k: v.shape for k, v in there.items()} == {k: v.shape for k, v in model.state_dict().items()}


def test_two_heads_become_one_behind_the_other() -> None:
    state = numbered("siftflow-fcn16s")
    sem, geo = _authors.bilinear(33, 4), 2 * _authors.bilinear(3, 4)
    there = convert(state | {"upscore2_sem.weight": sem, "upscore2_geo.weight": geo}, "pytorch-fcn")
    score, up = there.state["score_pool4.weight"], there.state["upscore2.weight"]
    assert torch.equal(score[:33], state["score_pool4_sem.weight"])
    assert torch.equal(score[33:], state["score_pool4_geo.weight"])
    assert torch.equal(up[:33, :33], sem)
    assert torch.equal(up[33:, 33:], geo)
    assert not up[:33, 33:].any()
    assert not up[33:, :33].any()
    assert "tasks: semantic (33 classes), geometric (3 classes)" in str(there)


def test_depth_keeps_its_channel_under_every_name() -> None:
    state = numbered("nyud-fcn32s-color-d")
    for naming, name in (
        ("torchvision", "features.0"),
        ("pytorch-fcn", "conv1_1"),
        ("caffe", "conv1_1_bgrd"),
    ):
        assert convert(state, naming).state[f"{name}.weight"].shape == (64, 4, 3, 3)


def test_a_body_for_early_fusion_is_taken_from_the_authors_file() -> None:
    state, model = (
        _authors.random_state("nyud-fcn32s-color-d"),
        create("fcn8s", 5, width=1 / 16, in_channels=4),
    )
    transfer_body(model, state, source="net.caffemodel")
    assert torch.equal(model.conv1_1.weight, state["conv1_1_bgrd.weight"])


def test_what_has_no_such_names_is_refused() -> None:
    late, heads = numbered("nyud-fcn32s-color-hha"), convert(numbered("siftflow-fcn32s"), "fcnkern").state
    with pytest.raises(ValueError, match="two networks fused late have no pytorch-fcn names"):
        convert(late, "pytorch-fcn")
    with pytest.raises(ValueError, match="names for the heads semantic and geometric, these are a, b"):
        convert(heads, "caffe", tasks={"a": 33, "b": 3})
    with pytest.raises(ValueError, match=r"score_fr\.weight has 36 classes, the heads 30 \+ 3"):
        convert(heads, "caffe", tasks={"semantic": 30, "geometric": 3})
    mixed = heads | {"upscore.weight": torch.ones(()).expand(36, 36, 64, 64)}
    with pytest.raises(ValueError, match=r"upscore\.weight mixes the heads"):
        convert(mixed, "caffe", tasks=TASKS)
    with pytest.raises(
        ValueError, match=r"only networks on three channels are folded, .* no conv1_1\.weight"
    ):
        fold_input(convert(late, "fcnkern"), "torchvision", "torchvision-bgr")


# -------------------------------------------------------------------- mistakes


def without(family: str, *parts: str) -> State:
    state = _authors.random_state(family)
    return {key: value for key, value in state.items() if not any(part in key for part in parts)}


@pytest.mark.parametrize(
    ("state", "into", "message"),
    [
        (
            lambda: without("nyud-fcn32s-color"),
            "nyud-fcn32s-color-d",
            r"conv1_1\.weight has shape \(4, 3, 3, 3\), the model needs \(4, 4, 3, 3\)",
        ),
        (
            lambda: without("nyud-fcn32s-color-d"),
            "nyud-fcn32s-color",
            r"conv1_1\.weight has shape \(4, 4, 3, 3\), the model needs \(4, 3, 3, 3\)",
        ),
        (
            lambda: without("nyud-fcn32s-color"),
            "nyud-fcn32s-color-hha",
            r"missing: color\.conv1_1\.weight.*unexpected: conv1_1\.weight",
        ),
        (
            lambda: without("nyud-fcn32s-color-hha"),
            "nyud-fcn32s-color",
            r"missing: conv1_1\.weight.*unexpected: color\.conv1_1\.weight",
        ),
        (
            lambda: without("nyud-fcn32s-color-hha", "hha"),
            "nyud-fcn32s-color-hha",
            "late fusion has layers of color and of hha, here are only those of color",
        ),
        (
            lambda: without("nyud-fcn32s-color-hha", "conv3_2hha"),
            "nyud-fcn32s-color-hha",
            r"missing: hha\.conv3_2\.weight, hha\.conv3_2\.bias$",
        ),
        (
            lambda: without("siftflow-fcn16s", "score_pool4_geo"),
            "siftflow-fcn16s",
            r"missing: score_pool4_geo\.weight, score_pool4_geo\.bias$",
        ),
        (
            lambda: without("siftflow-fcn8s"),
            "siftflow-fcn16s",
            r"missing: upscore16\.weight; unexpected: score_pool3\.weight",
        ),
        (
            lambda: without("siftflow-fcn32s") | {"score_fr_geo.weight": torch.ones(3, 9, 1, 1)},
            "siftflow-fcn32s",
            r"score_fr_geo\.weight has shape \(3, 9, 1, 1\), the model needs \(3, 256, 1, 1\)",
        ),
        (
            lambda: without("voc-fcn16s"),
            "pascalcontext-fcn16s",
            r"score_fr\.weight has shape \(21, 256, 1, 1\), the model needs \(60, 256, 1, 1\)",
        ),
        (
            lambda: without("voc-fcn32s") | {"fc8.weight": torch.ones(1)},
            "voc-fcn32s",
            r"unexpected: fc8\.weight$",
        ),
        (lambda: without("voc-fcn8s-atonce"), "voc-fcn8s", "scale_pool4 is 0.01, FCN8s has 1:"),
    ],
)
def test_weights_of_another_network_are_refused(state: Callable[[], State], into: str, message: str) -> None:
    model = network(into)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=rf"(?s)net\.caffemodel.*{message}"):
        transfer_network(model, state(), source="net.caffemodel")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_heads_in_another_order_and_one_stream_alone_are_refused() -> None:
    turned = MultiTask(create("fcn32s", 36, width=1 / 16), {"geometric": 3, "semantic": 33})
    with pytest.raises(ValueError, match=r"the heads are \{'semantic': 33.*network \{'geometric': 3"):
        transfer_network(turned, without("siftflow-fcn32s"), source="net")
    one = {key: value for key, value in numbered("nyud-fcn32s-color-hha").items() if "hha" not in key}
    with pytest.raises(ValueError, match="only those of color"):
        convert(one, "fcnkern")
    lacking = {k: v for k, v in numbered("nyud-fcn32s-color-hha").items() if k != "conv2_1hha.bias"}
    with pytest.raises(WeightsMismatchError, match=r"state, hha as vgg16: .*missing: conv2_1\.bias"):
        convert(lacking, "fcnkern")


def test_classes_of_both_heads_go_into_one_network() -> None:
    state, net = _authors.random_state("siftflow-fcn32s"), FCN32s(36, width=1 / 16)
    transfer_network(net, state, source="net")
    assert torch.equal(net.score_fr.bias[33:], state["score_fr_geo.bias"])


def test_a_network_of_zeros_is_told() -> None:
    state: dict[str, Tensor] = _authors.random_state("voc-fcn8s")
    zeros = {key: torch.zeros_like(state[key]) for key in ("conv2_1.weight", "score_fr.weight")}
    report = transfer_network(FCN8s(21, width=1 / 16), state | zeros, source="net")
    assert report.zero == ("conv2_1",)
