"""The networks with `elide`: the plain networks' results and gradients, and refusal where they would be others."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cases import CASES
from benchmarks.memory import in_new_process
from fcnkern import models
from fcnkern.models import FCN, VGG16, create
from fcnkern.nn import MaxPool2d
from tests.models import _caffe, _torchfcn
from tests.models._bodies import ResNet

NAMES = ("FCN8s", "FCN16s", "FCN32s", "FCN8sAtOnce")
SIZES = [(1, 1), (1, 300), (2, 3), (31, 32), (33, 64)]
PICK = random.Random(8)
SIZES += [(PICK.randint(1, 300), PICK.randint(1, 300)) for _ in range(5)]


def network(name: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> models.FCN:
    """A network at a sixteenth of the width with random weights and biases, so that a blank is not zero."""
    model = getattr(models, name)(3, 1 / 16).to(dtype)
    model.load_state_dict(_torchfcn.random_state(name, n_class=3, seed=seed))
    for key, value in model.named_parameters():
        if key.endswith("bias"):
            nn.init.normal_(value, std=0.3, generator=torch.Generator().manual_seed(seed))
    return model.eval()


def difference(ours: Tensor, wanted: Tensor) -> float:
    """Largest difference relative to the largest value."""
    assert ours.shape == wanted.shape
    assert ours.dtype == wanted.dtype
    ours, wanted = ours.detach(), wanted.detach()
    return float((ours - wanted).abs().max() / wanted.abs().max())


def both(model: models.FCN, call: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """What a call gives with `elide` and without."""
    model.elide = True
    ours = call()
    model.elide = False
    return ours, call()


def of_gradients(model: models.FCN, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Gradients of the loss, of every parameter that learns and of the images."""
    wanted = {key: value for key, value in model.named_parameters() if value.requires_grad} | {"x": x}
    found = torch.autograd.grad(model.loss(x, labels), list(wanted.values()))
    return dict(zip(wanted, found, strict=True))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_same_logits_at_any_size(name: str, dtype: torch.dtype, bound: float) -> None:
    model = network(name, dtype)
    for index, size in enumerate(SIZES):
        x = 3 * torch.randn(1 + index % 2, 3, *size, dtype=dtype)
        assert difference(*both(model, lambda x=x: model(x))) < bound, size


@pytest.mark.parametrize("size", [(1, 1), (45, 120), (160, 37)])
@pytest.mark.parametrize("name", NAMES[:3])
def test_the_same_gradients(name: str, size: tuple[int, int]) -> None:
    model = network(name)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 3, (2, *size))
    model.elide = True
    ours = of_gradients(model, x, labels)
    model.elide = False
    for key, wanted in of_gradients(model, x, labels).items():
        assert difference(ours[key], wanted) < 1e-12, key


def test_the_same_gradients_again() -> None:
    """Of a graph that is kept, and of gradients."""
    model = network("FCN8s")
    model.elide = True
    loss = model.scores(torch.randn(1, 3, 60, 83, dtype=torch.float64))[0].square().sum()
    first, second = (torch.autograd.grad(loss, model.conv1_2.weight, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)

    def of_gradient() -> Tensor:
        pool3 = model._feature_maps(torch.ones(1, 3, 60, 83, dtype=torch.float64))["pool3"]
        (slope,) = torch.autograd.grad(pool3.square().sum(), model.conv1_1.weight, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), model.conv1_2.weight)[0]

    assert difference(*both(model, of_gradient)) < 1e-12


def test_dropout_draws_the_same_numbers() -> None:
    model = network("FCN8s").train()
    x, labels = torch.randn(2, 3, 70, 90, dtype=torch.float64), torch.randint(0, 3, (2, 70, 90))

    def loss() -> Tensor:
        torch.manual_seed(3)
        return model.loss(x, labels)

    first = loss()
    assert difference(*both(model, loss)) < 1e-12
    assert model.loss(x, labels) != first


def test_labels_averaged_probabilities_and_scores() -> None:
    model = network("FCN8s")
    x = torch.randn(1, 3, 60, 83, dtype=torch.float64)
    assert torch.equal(*both(model, lambda: model.predict(x)))
    assert torch.equal(*both(model, lambda: model.predict(x, scales=(0.5, 1.0), flip=True)))
    assert difference(*both(model, lambda: model.scores(x)[0])) < 1e-12


def test_less_is_computed() -> None:
    """At full width, as PyTorch counts; the plain network's 1x1 layers, which it does not count, are the same."""
    with torch.device("meta"):
        model, x = models.FCN8s().eval(), torch.empty(1, 3, 500, 500)
    counts = []
    for model.elide in (True, False):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.scores(x)
        counts.append(counter.get_total_flops())
    assert counts[1] / counts[0] > 1.33


def test_the_network_is_the_same() -> None:
    plain, elided = network("FCN16s"), models.FCN16s(3, 1 / 16, elide=True)
    assert not plain.elide
    assert elided.elide
    assert list(plain.state_dict()) == list(elided.state_dict())
    assert [type(each) for each in plain.modules()] == [type(each) for each in elided.modules()]
    assert copy.deepcopy(elided).elide
    assert create("fcn8s", 3, width=1 / 16, elide=True).elide


def test_weights_are_read_anew_at_each_call() -> None:
    model = network("FCN8s")
    model.elide = True
    x = torch.randn(1, 3, 40, 50, dtype=torch.float64)
    with torch.no_grad():
        model(x)
        model.conv1_1.bias.add_(1.0)
        model.conv3_2 = copy.deepcopy(model.conv3_2)
        model.conv3_2.weight.mul_(-1)
        assert difference(*both(model, lambda: model(x))) < 1e-12


@pytest.mark.parametrize("images", [1, 3])
@torch.no_grad()
def test_channels_last_stays_so(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("FCN8s", torch.float32).to(memory_format=torch.channels_last)
    x = torch.randn(images, 3, 100, 120).to(memory_format=torch.channels_last)
    convolution, steps = nn.functional.conv2d, []

    def watched(x: Tensor, *settings: object) -> Tensor:
        if x.shape[2] > 16:  # no blank
            steps.append(x.stride(1))
        return convolution(x, *settings)

    monkeypatch.setattr(nn.functional, "conv2d", watched)
    model.elide = True
    ours = model(x)
    assert steps == [1] * 15  # 13 layers, two of them in two bands
    model.elide = False
    assert difference(ours, model(x)) < 1e-5


def test_the_largest_maps_are_computed_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    model, convolution, heights = network("FCN8s"), nn.functional.conv2d, []
    model.elide = True

    def watched(x: Tensor, *settings: object) -> Tensor:
        out = convolution(x, *settings)
        if out.shape[1] == 4:  # at a sixteenth of the width, the first stage
            heights.append(out.shape[2])
        return out

    monkeypatch.setattr(nn.functional, "conv2d", watched)
    model(torch.randn(1, 3, 200, 40, dtype=torch.float64))
    assert max(heights) == 106  # of conv1_1, whose plain map has 398 rows


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell peaks")
def test_a_training_step_takes_half_of_the_memory() -> None:
    """The trunk at the size of image where least is left out; at full width it is the same share."""
    name = "elide FCN-8s at a quarter of the width, 500×500, step"
    case = next(each for each in CASES if each.name == name)
    ours, plain = (in_new_process(case, f"trunk alone, {kind}") for kind in ("elided", "plain"))
    assert ours <= 0.5 * plain


def test_bands_of_a_body_that_begins_in_place() -> None:
    body = vgg_like()
    body[0][0].padding = (1, 1)
    model = FCN(nn.Sequential(nn.ELU(inplace=True), *body), ("2", "4.1"), pad=70).double().eval()
    _caffe.randomize(model)
    x = torch.randn(1, 3, 40, 61, dtype=torch.float64)
    weights = list(model.body.parameters())

    def gradients() -> list[Tensor]:
        return torch.autograd.grad(model(x.clone()).square().sum(), weights)

    with torch.no_grad():
        assert difference(*both(model, lambda: model(x.clone()))) < 1e-12
    for ours, plain in zip(*both(model, gradients), strict=True):
        assert difference(ours, plain) < 1e-12


def test_autocast() -> None:
    """The backward pass, in which the first maps are computed again, lies outside."""
    model = network("FCN8s", torch.float32)
    x = torch.randn(2, 3, 64, 64)

    def logits_and_gradient(autocast: bool = True) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model(x)
        (slope,) = torch.autograd.grad(logits.float().square().mean(), model.conv1_1.weight)
        return logits.detach(), slope

    ours, plain = both(model, logits_and_gradient)
    for mine, theirs, exact in zip(ours, plain, logits_and_gradient(autocast=False), strict=True):
        assert mine.dtype == theirs.dtype
        assert difference(mine.float(), exact) < 2 * difference(theirs.float(), exact) + 1e-3


@torch.no_grad()
def test_under_compile_and_export_the_body_runs_plainly() -> None:
    model = network("FCN8s", torch.float32)
    model.elide = True
    sizes = ((64, 50), (41, 75))
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    for size in sizes:
        x = torch.randn(1, 3, *size)
        assert difference(compiled(x), model(x)) < 1e-5
    assert counter.frame_count == 1
    x = torch.randn(1, 3, *sizes[0])
    program = torch.export.export(model, (x,))
    assert not any("cat" in str(node.target) for node in program.graph.nodes)
    assert difference(program.module()(x), model(x)) < 1e-5


def vgg_like(norm: bool = False) -> nn.Sequential:
    """A body of a user's own that pads by 30, with dropout behind its last pool."""
    stages = []
    for stage, (channels, out) in enumerate(((3, 4), (4, 6), (6, 8))):
        layers = [nn.Conv2d(channels, out, 3, padding=30 if stage == 0 else 1), nn.ReLU(inplace=True)]
        layers.insert(1, nn.BatchNorm2d(out) if norm else nn.Identity())
        stages.append(nn.Sequential(*layers, nn.MaxPool2d(2, 2, ceil_mode=True)))
    head = nn.Sequential(nn.Conv2d(8, 16, 5), nn.ReLU(), nn.Dropout())
    return nn.Sequential(*stages, head)


def own(norm: bool = False, **options: object) -> FCN:
    model = FCN(vgg_like(norm), ("0", "1", "3.1"), classes=3, pad=70, **options).double().eval()
    _caffe.randomize(model)
    return model


@pytest.mark.parametrize("norm", [False, True])
def test_a_sequential_body_with_a_pad_of_the_networks_own(norm: bool) -> None:
    model = own(norm, elide=True)
    assert model.elide
    for size in ((1, 1), (40, 61), (90, 33)):
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        assert difference(*both(model, lambda x=x: model(x))) < 1e-12


def test_a_sequential_body_with_this_packages_pools() -> None:
    model, x = own(), torch.randn(2, 3, 40, 61, dtype=torch.float64)
    for stage in model.body[:3]:
        stage[3] = MaxPool2d(2, 2, ceil_mode=True)
    assert difference(*both(model, lambda: model(x))) < 1e-12


def test_a_body_of_this_package_with_a_pad_of_the_networks_own() -> None:
    model = FCN(VGG16(1 / 16, pad=1), ("pool4", "fc7"), pad=99).double().eval()
    _caffe.randomize(model)
    x = torch.randn(1, 3, 50, 31, dtype=torch.float64)
    assert difference(*both(model, lambda: model(x))) < 1e-12


def test_dropout_behind_the_last_stage_draws_the_same_numbers() -> None:
    model = FCN(vgg_like(), ("1", "3"), classes=3, pad=70).double()
    x = torch.randn(2, 3, 40, 50, dtype=torch.float64)

    def logits() -> Tensor:
        torch.manual_seed(0)
        return model(x)

    _caffe.randomize(model)
    assert difference(*both(model, logits)) < 1e-12


class Own(nn.Conv2d):
    """A layer that does something else."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class OwnFeatures(models.FCN32s):
    """A network whose body does something else."""

    def pools(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().pools(2 * x)


@pytest.mark.parametrize("name", ["fcn8s_alexnet", "fcn32s_caffenet", "fcn16s_googlenet"])
def test_other_bodies_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"elide is not for \w+Net: its first layers|branches"):
        create(name, width=1 / 32, elide=True)


def test_networks_that_are_no_chain_are_refused() -> None:
    model = FCN(ResNet(), ("layer3", "layer4"))
    with pytest.raises(ValueError, match=r"one chain of layers, VGG16 or an nn.Sequential, got ResNet"):
        model.elide = True
    assert not model.elide
    with pytest.raises(ValueError, match="OwnFeatures, which computes feature maps of its own"):
        OwnFeatures(width=1 / 16, elide=True)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect"), "zero padding given in numbers, layer '1.2'"),
        (nn.Conv2d(6, 6, 3, padding="same"), "zero padding given in numbers"),
        (nn.MaxPool2d(3, 1, 1), "max pools without padding or indices"),
        (nn.AvgPool2d(2, 1), "layers that act on each pixel alone, layer '1.2' is AvgPool2d"),
        (nn.Conv2d(6, 6, 1, padding=1), "padding behind the first layer .* layer '1.2' is Conv2d"),
        (nn.GroupNorm(2, 6), "layer '1.2' is GroupNorm"),
        (Own(6, 6, 1), "layer '1.2' is Own"),
    ],
)
def test_layers_that_cannot_be_computed_in_part(layer: nn.Module, reason: str) -> None:
    body = vgg_like()
    body[1][2] = layer
    with pytest.raises(ValueError, match=reason):
        FCN(body, ("3",), pad=200, elide=True)


def test_batch_statistics_and_dropout_in_a_part() -> None:
    model, x = own(norm=True, elide=True), torch.randn(2, 3, 30, 30, dtype=torch.float64)
    model.train()
    with pytest.raises(RuntimeError, match=r"'0.1' \(BatchNorm2d\) takes the statistics of its whole map"):
        model(x)
    model = own(elide=True)
    model.body[1].insert(3, nn.Dropout2d().eval())
    model(x)
    model.train()
    with pytest.raises(RuntimeError, match=r"'1.3' \(Dropout2d\) draws random numbers for its whole map"):
        model(x)
    model.elide = False
    model(x)


@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook", "full_backward_hook"])
@pytest.mark.parametrize("where", ["1.0", "1", ""])
def test_hooks(kind: str, where: str) -> None:
    model, x = own(elide=True), torch.randn(1, 3, 30, 30, dtype=torch.float64)
    handle = getattr(model.body.get_submodule(where), f"register_{kind}")(lambda *args: None)
    with pytest.raises(
        RuntimeError, match=f"layer '{where}' has a hook .* remove the hook, or set elide = False"
    ):
        model(x)
    handle.remove()
    model(x)


def test_a_forward_put_on_a_layer() -> None:
    model, x = network("FCN32s"), torch.randn(1, 3, 30, 30, dtype=torch.float64)
    model.elide = True
    model.conv2_1.forward = lambda x: x
    with pytest.raises(ValueError, match="layer 'conv2_1' is BodyConv2d"):
        model(x)


def test_hooks_on_layers_behind_the_chain_see_whole_maps() -> None:
    model, seen = network("FCN8s"), []
    model.elide = True
    model.fc6.register_forward_hook(lambda module, args, out: seen.append(args[0].shape[2:]))
    model(torch.randn(1, 3, 30, 64, dtype=torch.float64))
    assert seen == [(8, 9)]
