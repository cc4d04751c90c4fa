"""The four networks: golden numbers, and the same outputs as pytorch-fcn's chain of operations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fcnkern import models
from fcnkern.models import geometry
from tests.models import _torchfcn

NAMES = ("FCN32s", "FCN16s", "FCN8s", "FCN8sAtOnce")
SMALL = 1 / 16


def small(name: str, **arguments: object) -> models.FCN:
    return getattr(models, name)(width=SMALL, **arguments)


@pytest.mark.parametrize(
    ("name", "n_class", "parameters"),
    [
        ("FCN32s", 21, 136_152_917),
        ("FCN16s", 21, 134_815_994),
        ("FCN8s", 21, 134_489_759),
        ("FCN8sAtOnce", 21, 134_489_759),
        ("FCN32s", 40, 140_978_024),
        ("FCN32s", 33, 138_856_289),
        ("FCN32s", 60, 149_251_964),
    ],
)
def test_parameter_counts(name: str, n_class: int, parameters: int) -> None:
    with torch.device("meta"):
        model = getattr(models, name)(n_class)
    assert sum(value.numel() for value in model.state_dict().values()) == parameters


def test_fixed_upsampling_is_not_learnable() -> None:
    with torch.device("meta"):
        fixed, learned = models.FCN32s(), models.FCN32s(upsampling="learned")
    assert sum(p.numel() for p in fixed.parameters() if p.requires_grad) == 134_346_581
    assert sum(p.numel() for p in learned.parameters() if p.requires_grad) == 136_152_917


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_of_pytorch_fcn_loads_strictly(name: str) -> None:
    with torch.device("meta"):
        model = getattr(models, name)()
    wanted = _torchfcn.shapes(name)
    assert [(key, tuple(value.shape)) for key, value in model.state_dict().items()] == list(wanted.items())
    state = {key: torch.empty(shape, device="meta") for key, shape in wanted.items()}
    model.load_state_dict(state, strict=True, assign=True)
    assert model.fc6.weight is not None
    assert model.upscore2.weight.shape[2] == 4 if name != "FCN32s" else model.upscore.weight.shape[2] == 64


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(1, 1), (37, 70), (96, 64)])
def test_forward_equals_the_plain_chain(name: str, size: tuple[int, int]) -> None:
    state = _torchfcn.random_state(name, n_class=5)
    model = small(name, n_class=5).eval()
    model.load_state_dict(state, strict=True)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = model(x)
        plain = _torchfcn.forward(name, state, x)
    assert ours.shape == plain.shape == (2, 5, *size)
    assert ours.is_contiguous()
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5 * plain.abs().max().item())


def test_fp64_forward_equals_the_plain_chain_to_rounding() -> None:
    state = {key: value.double() for key, value in _torchfcn.random_state("FCN8s", n_class=3).items()}
    model = small("FCN8s", n_class=3).double().eval()
    model.load_state_dict(state)
    x = torch.randn(1, 3, 33, 40, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), _torchfcn.forward("FCN8s", state, x), rtol=1e-11, atol=1e-11)


def test_at_once_scales_features_before_the_classifier() -> None:
    state = _torchfcn.random_state("FCN8s", n_class=3)
    plain, at_once = small("FCN8s", n_class=3).eval(), small("FCN8sAtOnce", n_class=3).eval()
    at_once.load_state_dict(state)
    folded = dict(state)
    folded["score_pool4.weight"] = state["score_pool4.weight"] * 0.01
    folded["score_pool3.weight"] = state["score_pool3.weight"] * 0.0001
    plain.load_state_dict(folded)
    x = torch.randn(1, 3, 20, 30)
    with torch.no_grad():
        torch.testing.assert_close(at_once(x), plain(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_class", [3, 21])
def test_initial_loss_is_ln_c(name: str, n_class: int) -> None:
    model = small(name, n_class=n_class)
    labels = torch.randint(0, n_class, (1, 24, 31))
    labels[0, :5] = 255
    loss = model.loss(torch.randn(1, 3, 24, 31), labels)
    assert loss.item() == pytest.approx(math.log(n_class), rel=1e-6)


@pytest.mark.parametrize("upsampling", ["fixed", "learned"])
@pytest.mark.parametrize(("name", "attenuated"), [("FCN32s", 13), ("FCN16s", 21), ("FCN8s", 25)])
def test_border_gain(name: str, attenuated: int, upsampling: str) -> None:
    """A constant fc7 score of one shows the gain of upsampling: 0.609375 per axis at the corner, one inside."""
    model = small(name, n_class=2, upsampling=upsampling).eval()
    with torch.no_grad():
        model.score_fr.bias.fill_(1.0)
        gain = model(torch.zeros(1, 3, 96, 96))[0, 0]
    assert gain[0, 0].item() == pytest.approx(0.609375**2, rel=1e-6)
    assert gain[0, 48].item() == pytest.approx(0.609375, rel=1e-6)
    leading = gain[:48, 48]
    assert int((leading < 1 - 1e-6).sum()) == attenuated
    torch.testing.assert_close(leading[attenuated:], torch.ones(48 - attenuated))


@pytest.mark.parametrize("name", ["FCN16s", "FCN8s"])
def test_skip_scores_reach_every_pixel_with_gain_one(name: str) -> None:
    model = small(name, n_class=2).eval()
    with torch.no_grad():
        model.score_pool4.bias.fill_(1.0)
        logits = model(torch.zeros(1, 3, 45, 80))
    torch.testing.assert_close(logits, torch.ones_like(logits))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("upsampling", ["fixed", "learned"])
def test_loss_and_predict_agree_with_the_logits(name: str, upsampling: str) -> None:
    state = _torchfcn.random_state(name, n_class=6)
    model = small(name, n_class=6, upsampling=upsampling).eval()
    model.load_state_dict(state)
    x = torch.randn(2, 3, 40, 51, generator=torch.Generator().manual_seed(2))
    labels = torch.randint(0, 6, (2, 40, 51), generator=torch.Generator().manual_seed(3))
    labels[1, 10:20] = 255
    logits = model(x).detach()
    loss, stats = model.loss(x, labels, return_stats=True)
    expected = torch.nn.functional.cross_entropy(logits, labels, ignore_index=255)
    torch.testing.assert_close(loss, expected, rtol=2e-5, atol=1e-6)
    valid = labels != 255
    assert stats[0].item() == valid.sum()
    prediction = model.predict(x)
    assert prediction.dtype == torch.uint8
    top2 = logits.topk(2, dim=1).values
    clear = (top2[:, 0] - top2[:, 1]) > 1e-4 * logits.abs().max()
    assert clear.float().mean() > 0.99
    assert torch.equal(prediction[clear], logits.argmax(1).to(torch.uint8)[clear])
    hits = ((logits.argmax(1) == labels) & valid).sum().item()
    assert abs(stats[1].item() - hits) <= int((~clear).sum())


def test_scores_are_bound_to_the_size_of_the_images() -> None:
    model = small("FCN8s", n_class=4).eval()
    with torch.no_grad():
        scores, resample = model.scores(torch.zeros(1, 3, 224, 375))
    assert scores.shape == (1, 4, 38, 54)
    assert (resample.kind, resample.factor, resample.offset, resample.size) == (
        "deconv",
        (8, 8),
        (31, 31),
        (224, 375),
    )


def test_body_sizes_follow_the_geometry() -> None:
    with torch.device("meta"):
        body, x = models.VGG16(), torch.empty(1, 3, 500, 224)
        pools = body.pools(x)
    expected = [
        [geometry.output_size(geometry.vgg16_layers(f"pool{i}"), n) for n in (500, 224)] for i in (3, 4, 5)
    ]
    assert [list(pool.shape[2:]) for pool in pools] == expected


def test_crop_offsets_of_the_classes_follow_the_geometry() -> None:
    fc7 = geometry.vgg16_layers("fc7")
    up2, up4 = fc7 + [geometry.bilinear_deconv(2)], fc7 + [geometry.bilinear_deconv(2)] * 2
    for cls, layers in ((models.FCN32s, fc7), (models.FCN16s, up2), (models.FCN8s, up4)):
        final = layers + [geometry.bilinear_deconv(cls.final_stride)]
        assert cls.final_offset == geometry.crop_offset(final, [])
    assert models.FCN8s.pool4_offset == geometry.crop_offset(geometry.vgg16_layers("pool4"), up2)
    assert models.FCN8s.pool3_offset == geometry.crop_offset(geometry.vgg16_layers("pool3"), up4)


def test_dropout_is_element_wise_and_off_in_eval() -> None:
    model = small("FCN32s", n_class=3)
    with torch.no_grad():
        model.score_fr.weight.normal_()
    x = torch.randn(1, 3, 16, 16)
    torch.manual_seed(0)
    first = model(x)
    torch.manual_seed(0)
    assert torch.equal(first, model(x))
    assert not torch.equal(first, model(x))
    features = model.classify(torch.rand(1, 32, 12, 12))[0]
    zeros = (features == 0).float().mean(dim=(1, 2))
    assert ((zeros > 0) & (zeros < 1)).float().mean() > 0.5  # whole channels would be all zero or not at all
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("layer", ["drop6", "drop7"])
def test_dropout_follows_its_own_mode(layer: str) -> None:
    model = small("FCN32s", n_class=3).eval()
    model.get_submodule(layer).train()
    pool5 = torch.rand(1, 32, 12, 12)
    assert not torch.equal(model.classify(pool5), model.classify(pool5))
    model.train()
    for name in ("drop6", "drop7"):
        setattr(model, name, torch.nn.Identity())
    assert torch.equal(model.classify(pool5), model.classify(pool5))


@pytest.mark.parametrize(
    ("x", "error", "text"),
    [
        (torch.zeros(3, 8, 8), ValueError, r"\(N, 3, H, W\), got \(3, 8, 8\)"),
        (torch.zeros(1, 1, 8, 8), ValueError, r"\(N, 3, H, W\), got \(1, 1, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), ValueError, "at least one image"),
        (torch.zeros(1, 3, 0, 8), ValueError, "at least one image"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, "floating-point tensor .*uint8"),
        (np.zeros((1, 3, 8, 8), np.float32), TypeError, "floating-point tensor .* got ndarray"),
    ],
)
def test_bad_images(x: torch.Tensor, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        small("FCN8s").predict(x)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"n_class": 0}, "number of classes must be a whole number of at least 1, got 0"),
        ({"n_class": 2.5}, "number of classes must be a whole number of at least 1, got 2.5"),
        ({"width": 0.0}, "width must be a positive finite number, got 0.0"),
        ({"width": math.nan}, "width must be"),
        ({"upsampling": "nearest"}, "'fixed' or 'learned', got 'nearest'"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        models.FCN8s(**{"width": SMALL, **arguments})


def test_labels_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"target.*16, 17|16×17"):
        small("FCN8s").loss(torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 17, dtype=torch.int64))


def test_all_ignored_batch_gives_zero_loss_and_gradient() -> None:
    model = small("FCN8s", n_class=3)
    with torch.no_grad():
        model.score_fr.weight.normal_()
    loss = model.loss(torch.randn(1, 3, 16, 16), torch.full((1, 16, 16), 255))
    loss.backward()
    assert loss.item() == 0
    assert model.conv1_1.weight.grad.abs().max().item() == 0
