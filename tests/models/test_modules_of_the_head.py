"""Layers that the kernels compute several at once are called as modules where something looks at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fcnkern.models import FCN, FCN8s, FCN16s, FCN32s, create, create_late
from fcnkern.models.layers import is_conv1x1

HEAD = ["score_fr", "score_pool4", "score_pool3", "upscore2", "upscore_pool4"]
HIDDEN = ["fc7", "relu7", "drop7"]


def images(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(2))


def network(kind: Callable[..., FCN] = FCN8s, **options: Any) -> FCN:
    torch.manual_seed(0)
    model = kind(5, width=1 / 16, **options).eval()
    for parameter in model.head_parameters():
        if parameter.requires_grad and not parameter.any():
            nn.init.normal_(parameter)
    return model


def results(model: FCN, x: Tensor) -> list[Tensor]:
    """Loss, logits, labels and gradients of all that learns."""
    loss = model.loss(
        x, torch.randint(0, 5, (len(x), *x.shape[2:]), generator=torch.Generator().manual_seed(1))
    )
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [loss.detach(), model(x).detach(), model.predict(x), *torch.autograd.grad(loss, learning)]


def assert_alike(found: list[Tensor], wanted: list[Tensor]) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * max(1.0, float(theirs.abs().max())))


@pytest.mark.parametrize("name", HEAD + HIDDEN)
@pytest.mark.parametrize("upsampling", ["fixed", "learned"])
def test_a_hook_is_called_and_changes_nothing(name: str, upsampling: str) -> None:
    model, x, seen = network(upsampling=upsampling), images(37, 50), []
    wanted = results(model, x)
    model.get_submodule(name).register_forward_hook(lambda _, args, out: seen.append(out.shape))
    assert_alike(results(model, x), wanted)
    assert len(seen) == 3
    assert len(set(seen)) == 1


@pytest.mark.parametrize("name", HEAD + HIDDEN)
def test_what_a_hook_returns_is_used(name: str) -> None:
    model, x = network(), images(37, 50)
    plain = model(x)
    model.get_submodule(name).register_forward_hook(lambda _, args, out: 3 * out)
    assert not torch.allclose(model(x), plain)


def test_a_hook_on_the_last_upsampling_sees_logits_where_they_are_formed() -> None:
    model, x, seen = network(FCN16s), images(37, 50), []
    plain = model(x)
    model.get_submodule(model.final_layer).register_forward_hook(lambda _, args, out: seen.append(out))
    logits = model(x)
    torch.testing.assert_close(logits, plain, rtol=1e-4, atol=1e-5)
    top, left = (model.final_offset, model.final_offset)
    assert torch.equal(seen[0][:, :, top : top + 37, left : left + 50], logits)
    model.predict(x)
    assert len(seen) == 1


def test_a_backward_hook_is_called() -> None:
    model, seen = network(FCN32s), []
    model.score_fr.register_full_backward_hook(lambda *_: seen.append(True))
    results(model, images(20, 30))
    assert seen


class Adapted(nn.Module):
    """A layer with a correction of low rank, as adapters have."""

    def __init__(self, layer: nn.Module, channels: int, outputs: int) -> None:
        super().__init__()
        self.layer, self.down, self.up = layer, nn.Conv2d(channels, 2, 1), nn.Conv2d(2, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x) + self.up(self.down(x))
        return out


@pytest.mark.parametrize("name", ["score_fr", "score_pool4", "score_pool3", "fc7"])
def test_a_replacement_is_used_and_learns(name: str) -> None:
    model, x = network(), images(37, 50)
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Conv2d)
    plain = model(x)
    adapted = Adapted(layer, layer.in_channels, layer.out_channels)
    nn.init.zeros_(adapted.up.weight)
    nn.init.zeros_(adapted.up.bias)
    setattr(model, name, adapted)
    torch.testing.assert_close(model(x), plain, rtol=1e-4, atol=1e-4)
    model.loss(x, torch.zeros(len(x), 37, 50, dtype=torch.uint8)).backward()
    assert adapted.up.weight.grad.any()


def test_another_activation_behind_fc7_is_used() -> None:
    model, x = network(FCN32s), images(20, 30)
    model.relu7 = nn.Tanh()
    hidden = model.drop6(model.relu6(model.fc6(model.pools(x)[2])))
    torch.testing.assert_close(model.features(x)["fc7"], model.fc7(hidden).tanh())


def test_another_kind_of_upsampling_is_named() -> None:
    model = network()
    model.upscore2 = nn.Upsample(scale_factor=2)
    with pytest.raises(TypeError, match="layer 'upscore2' must be a BilinearDeconv2d, got Upsample"):
        model(images(20, 30))


@pytest.mark.parametrize(
    ("layer", "plain"),
    [
        (nn.Conv2d(3, 4, 1), True),
        (nn.Conv2d(3, 4, 1, bias=False), True),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 1)), True),
        (nn.Conv2d(3, 4, 3), False),
        (nn.Conv2d(3, 4, 1, padding=1), False),
        (nn.Conv2d(3, 4, 1, stride=2), False),
        (nn.Conv2d(4, 4, 1, groups=2), False),
        (nn.Identity(), False),
    ],
)
def test_what_counts_as_a_1x1_convolution(layer: nn.Module, plain: bool) -> None:
    assert is_conv1x1(layer) is plain


@pytest.mark.parametrize("name", ["fcn32s", "fcn8s", "fcn16s_googlenet", "fcn8s-late_alexnet"])
def test_every_parameter_is_of_the_head_or_of_the_body(name: str) -> None:
    model = (create_late if "late" in name else create)(name, 5, width=1 / 16)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    head, body = (
        [names[id(each)] for each in part()] for part in (model.head_parameters, model.body_parameters)
    )
    assert sorted(names.values()) == sorted((*head, *body))
    assert all(name.split(".")[-2].startswith(("score_", "upscore")) for name in head)
    assert not any("score" in name for name in body)
