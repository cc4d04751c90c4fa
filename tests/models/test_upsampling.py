"""Fixed and learned upsampling, initialisation, and the check before training."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from fcnkern import models
from fcnkern.models.layers import BilinearDeconv2d, bilinear_kernel
from tests.models import _torchfcn

SMALL = 1 / 16


@pytest.mark.parametrize(
    ("k", "first"),
    [
        (3, [0.5, 1.0, 0.5]),
        (4, [0.25, 0.75]),
        (16, [0.0625, 0.1875, 0.3125]),
        (63, [0.03125, 0.0625]),
        (64, [0.015625, 0.046875]),
    ],
)
def test_bilinear_taps(k: int, first: list[float]) -> None:
    kernel = bilinear_kernel(k)
    axis = kernel.diagonal().sqrt()
    torch.testing.assert_close(axis[: len(first)], torch.tensor(first, dtype=torch.float64))
    assert axis.sum().item() == pytest.approx((k + 1) // 2)
    torch.testing.assert_close(kernel, axis[:, None] * axis[None, :])


def test_deconv_weight_is_bilinear_on_the_channel_diagonal() -> None:
    for factor in (2, 3, 8):
        layer = BilinearDeconv2d(4, factor)
        assert torch.equal(layer.weight.detach(), _torchfcn.bilinear(4, 2 * factor - factor % 2))
        assert layer.bias is None


def test_fixed_path_is_used_only_while_the_weight_is_bilinear() -> None:
    layer = BilinearDeconv2d(3, 2)
    assert layer.taps() is None
    with torch.no_grad():
        layer.weight[0, 1, 2, 2] = 0.125
    assert layer.taps() is layer.weight
    with torch.no_grad():
        layer.weight[0, 1, 2, 2] = 0.0
    assert layer.taps() is None
    layer.weight.data[0, 0, 0, 0] = 1.0
    layer.refresh()
    assert layer.taps() is layer.weight
    layer.reset_parameters()
    assert layer.taps() is None


def test_a_weight_that_was_replaced_is_honoured() -> None:
    layer = BilinearDeconv2d(3, 2)
    assert layer.taps() is None
    for _ in range(2):
        other = torch.zeros_like(layer.weight)
        while other._version < layer.weight._version:
            other.normal_()
        layer.weight = nn.Parameter(other, requires_grad=False)
        assert layer.taps() is layer.weight


def test_a_weight_put_where_another_was_is_honoured() -> None:
    layer = BilinearDeconv2d(3, 2)
    bilinear = layer.weight.detach().clone()

    def takes_fixed_path(weight: torch.Tensor) -> bool:
        with torch.nn.utils.stateless._reparametrize_module(layer, {"weight": weight}):
            return layer.taps() is None

    assert [takes_fixed_path(bilinear * factor) for factor in (1, 2, 1, 2)] == [True, False, True, False]


def test_a_weight_changed_as_often_as_the_one_it_was_copied_from_is_honoured() -> None:
    layer = BilinearDeconv2d(3, 2)
    layer.refresh()
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        with torch.no_grad():
            twin.weight.mul_(2)
        assert twin.taps() is twin.weight


@pytest.mark.parametrize("upsampling", ["fixed", "learned"])
def test_several_networks_at_once_under_vmap(upsampling: str) -> None:
    networks = [models.FCN8s(3, SMALL, upsampling=upsampling).eval() for _ in range(2)]
    for parameter in networks[1].upscore8.parameters():
        parameter.data.mul_(2)
    x = torch.randn(1, 3, 30, 30)
    parameters, buffers = torch.func.stack_module_state(networks)

    def logits(*state: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(networks[0], state, (x,))

    with torch.no_grad():
        both = torch.vmap(logits)(parameters, buffers)
        expected = torch.stack([network(x) for network in networks])
    torch.testing.assert_close(both, expected)


def test_a_loaded_weight_that_is_not_bilinear_is_honoured() -> None:
    state = _torchfcn.random_state("FCN8s", n_class=3)
    state["upscore8.weight"] = state["upscore8.weight"] + 0.01 * torch.randn(3, 3, 16, 16)
    state["upscore2.weight"] = state["upscore2.weight"] * 1.5
    model = models.FCN8s(3, SMALL).eval()
    model.load_state_dict(state)
    x = torch.randn(1, 3, 30, 30)
    labels = torch.randint(0, 3, (1, 30, 30))
    with torch.no_grad():
        expected = _torchfcn.forward("FCN8s", state, x)
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-4)
        loss = model.loss(x, labels)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(expected, labels), rtol=2e-5, atol=1e-6)
    assert not model.upscore8.weight.requires_grad
    model.load_state_dict(_torchfcn.random_state("FCN8s", n_class=3))
    assert model.final_weight() is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_fixed_path_survives_conversion_and_copying(dtype: torch.dtype) -> None:
    model = copy.deepcopy(models.FCN8s(2, SMALL).to(dtype))
    assert model.upscore8.taps() is None
    again = models.FCN8s(2, SMALL).to(dtype)
    again.load_state_dict(model.state_dict())
    assert again.upscore8.taps() is None


@pytest.mark.parametrize("name", ["FCN32s", "FCN16s", "FCN8s", "FCN8sAtOnce"])
def test_which_upsampling_weights_get_gradients(name: str) -> None:
    for upsampling in ("fixed", "learned"):
        model = getattr(models, name)(3, SMALL, upsampling)
        with torch.no_grad():
            model.score_fr.weight.normal_()
        model.loss(torch.randn(1, 3, 20, 20), torch.randint(0, 3, (1, 20, 20))).backward()
        for key, parameter in model.named_parameters():
            if key.startswith("upscore") and upsampling == "fixed":
                assert parameter.grad is None
            elif key.startswith("upscore"):
                assert parameter.grad.abs().max() > 0, key
            else:
                assert parameter.grad is not None, key


def test_learned_and_fixed_start_from_the_same_network() -> None:
    fixed = models.FCN8s(4, SMALL).eval()
    fixed.load_state_dict(_torchfcn.random_state("FCN8s", n_class=4))
    learned = models.FCN8s(4, SMALL, "learned").eval()
    learned.load_state_dict(fixed.state_dict())
    x = torch.randn(1, 3, 33, 21)
    with torch.no_grad():
        torch.testing.assert_close(fixed(x), learned(x), rtol=1e-5, atol=1e-5)


def test_new_models_have_a_live_body_and_silent_scores() -> None:
    torch.manual_seed(0)
    model = models.FCN8s(21, 1 / 4)
    model.check_ready()
    for layer in model.body_layers[1:]:
        weight = model.get_parameter(f"{layer}.weight")
        assert weight.std().item() == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.1)
        assert model.get_parameter(f"{layer}.bias").abs().max() == 0
    for layer in ("score_fr", "score_pool3", "score_pool4"):
        assert model.get_parameter(f"{layer}.weight").abs().max() == 0
    features = model.eval()(torch.randn(1, 3, 64, 64))
    assert features.abs().max() == 0
    pool5 = model.pools(torch.randn(1, 3, 64, 64))[2]
    assert 0.05 < pool5[..., 3:5, 3:5].std() < 20


def test_width_scales_the_body_only() -> None:
    model = models.FCN16s(5, 0.1)
    assert [model.get_parameter(f"{layer}.bias").numel() for layer in model.body_layers] == [
        8, 8, 12, 12, 24, 24, 24, 52, 52, 52, 52, 52, 52, 408, 408]  # fmt: skip
    assert model.score_pool4.weight.shape == (5, 52, 1, 1)
    assert model.upscore16.weight.shape == (5, 5, 32, 32)


def test_a_dead_body_is_reported_with_its_layers_and_the_remedy() -> None:
    model = models.FCN8s(3, SMALL)
    with torch.no_grad():
        model.conv2_1.weight.zero_()
        model.fc7.weight.zero_()
        model.conv3_1.bias[0] = float("nan")
    with pytest.raises(RuntimeError) as report:
        model.check_ready()
    text = str(report.value)
    assert "not finite: conv3_1.bias; all zero: conv2_1.weight, fc7.weight" in text
    assert "load_body" in text
    model.reset_parameters()
    model.check_ready()


def test_a_model_without_storage_is_not_ready_until_initialised() -> None:
    with torch.device("meta"):
        model = models.FCN32s(3, SMALL)
    with pytest.raises(RuntimeError, match=r"meta device: conv1_1\.weight"):
        model.check_ready()
    model.to_empty(device="cpu").reset_parameters()
    model.check_ready()
    assert model.upscore.taps() is None
    assert model(torch.zeros(1, 3, 4, 4)).shape == (1, 3, 4, 4)
