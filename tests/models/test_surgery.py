"""Classifiers made fully convolutional, and weights moved between networks as the authors' surgery.py does."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from fcnkern.models import FCN, VGG16, FCN32s, GoogLeNet, convolutionalize, fuse_early, transplant
from fcnkern.weights import WeightsMismatchError
from tests.models import _caffe
from tests.models._bodies import ResNet
from tests.models._classifiers import AlexNetLike, Global, chain

CASES = {
    # classifier, its images, the stride of its logits
    "torchvision's shape": (lambda: AlexNetLike(), (3, 79, 83), 16),
    "a chain": (chain, (1, 17, 13), 2),
    "a global average": (Global, (3, 21, 17), 2),
}


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def classifier(name: str) -> tuple[nn.Module, tuple[int, int, int], int]:
    make, size, stride = CASES[name]
    torch.manual_seed(0)
    made = make().double()
    made(images(4, *size))  # batch statistics
    return made.eval(), size, stride


def equal(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_logits_are_the_classifiers_on_its_own_size(name: str) -> None:
    theirs, size, _ = classifier(name)
    x = images(3, *size)
    ours = convolutionalize(theirs, size)(x)
    assert ours.shape[2:] == (1, 1)
    equal(ours[:, :, 0, 0], theirs(x))


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_a_larger_image_gives_the_logits_of_every_crop(name: str) -> None:
    theirs, (channels, height, width), stride = classifier(name)
    ours = convolutionalize(theirs, (channels, height, width))
    x = images(2, channels, height + 3 * stride, width + 2 * stride)
    grid = ours(x)
    assert grid.shape[2:] == (4, 3)
    for row in range(4):
        for column in range(3):
            top, left = row * stride, column * stride
            crop = x[:, :, top : top + height, left : left + width]
            equal(grid[:, :, row, column], theirs(crop))


@torch.no_grad()
def test_a_body_of_this_package_with_its_classifier() -> None:
    body = GoogLeNet(width=1 / 64)
    theirs = nn.Sequential(
        body, nn.AvgPool2d(2, 1), nn.Flatten(), nn.Linear(body.inception_5b.out_channels, 5)
    )
    x = images(1, 3, 64, 64)
    ours = convolutionalize(theirs.double().eval(), (3, 64, 64))
    equal(ours(x)[:, :, 0, 0], theirs(x))
    assert ours(images(1, 3, 96, 64)).shape == (1, 5, 2, 1)


@torch.no_grad()
def test_padding_is_right_at_the_classifiers_size_only() -> None:
    theirs = AlexNetLike(pad=1, pooled=4).double().eval()
    ours = convolutionalize(theirs, (3, 79, 79))
    x = images(1, 3, 95, 79)
    equal(ours(x[:, :, :79])[:, :, 0, 0], theirs(x[:, :, :79]))
    assert not torch.allclose(ours(x)[:, :, 1, 0], theirs(x[:, :, 16:]), rtol=1e-3)


def test_layers_keep_their_names_and_the_classifier_its_weights() -> None:
    theirs = AlexNetLike()
    before = copy.deepcopy(theirs.state_dict())
    ours = convolutionalize(theirs, (3, 79, 79))
    assert list(ours.state_dict()) == list(before)
    assert ours.get_parameter("classifier.1.weight").shape == (16, 8, 3, 3)
    assert ours.get_parameter("classifier.4.weight").shape == (12, 16, 1, 1)
    for each in ours.parameters():
        nn.init.zeros_(each)
    assert all(torch.equal(value, before[key]) for key, value in theirs.state_dict().items())
    assert not any("AdaptiveAvg" in type(each).__name__ for each in ours.modules())


def test_the_result_trains_and_is_saved() -> None:
    ours = convolutionalize(AlexNetLike().train(), (3, 79, 79))
    assert ours.get_submodule("classifier.0").training
    ours(images(1, 3, 95, 79).float()).sum().backward()
    assert all(each.grad is not None for each in ours.parameters())
    stream = io.BytesIO()
    torch.save(ours.eval(), stream)
    stream.seek(0)
    x = images(1, 3, 80, 80).float()
    assert torch.equal(torch.load(stream, weights_only=False)(x), ours(x))


def test_the_result_is_a_body() -> None:
    ours = convolutionalize(AlexNetLike(), (3, 79, 79))
    model = FCN(ours, ("features.2", "classifier.3"), classes=4, pad=40)
    assert model.alignment.stride == 16
    assert model(torch.randn(1, 3, 60, 70)).shape == (1, 4, 60, 70)


class Permuted(nn.Module):
    """Flattens with channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4 * 9, 2)

    def forward(self, x: Tensor) -> Tensor:
        """N,3,5,5 -> N,2."""
        return self.fc(self.conv(x).permute(0, 2, 3, 1).flatten(1))


CONV = nn.Conv2d(3, 4, 3)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            AlexNetLike(pooled=2),
            r"avgpool \(AdaptiveAvgPool2d\) pools 3x3 to 2x2: its windows grow with the image",
        ),
        (ResNet(), "layers of ResNet cannot be told from its forward: TraceError"),
        (
            nn.Sequential(CONV, nn.Flatten(), nn.Linear(7, 2)),
            r"does not run on an image of 1x3x79x79 \(input_size",
        ),
        (nn.Sequential(CONV), r"must give logits N,K of flattened features, it gives \(1, 4, 77, 77\)"),
        (
            nn.Sequential(nn.Conv2d(3, 4, 79), nn.Flatten(), nn.BatchNorm1d(4)),
            r"2 \(BatchNorm1d\) works on flattened features",
        ),
    ],
)
def test_what_has_no_grid_is_refused(made: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convolutionalize(made, (3, 79, 79))


def test_channels_last_are_refused() -> None:
    with pytest.raises(ValueError, match="Permuted does not run on an image of 1x3x1056x1184"):
        convolutionalize(Permuted(), (3, 5, 5))


def test_transplant_makes_convolutions_of_matrices_and_drops_the_rest() -> None:
    new = VGG16(width=1 / 32)
    hidden, pool5 = new.fc6.weight.shape[:2]
    old = {
        "fc6.weight": torch.randn(hidden, pool5 * 49),
        "fc6.bias": torch.randn(hidden),
        "fc8.bias": torch.ones(9),
    }
    before = new.fc7.weight.clone()
    report = transplant(new, old)
    assert torch.equal(new.fc6.weight, old["fc6.weight"].reshape(hidden, pool5, 7, 7))
    assert torch.equal(new.fc6.bias, old["fc6.bias"])
    assert torch.equal(new.fc7.weight, before)
    assert (report.source, report.loaded, report.unused) == ("dict", ("fc6",), ("fc8.bias",))
    assert set(report.kept) == {*VGG16.body_layers} - {"fc6"}


def test_transplant_appends_the_suffix_to_layers() -> None:
    new = nn.ModuleDict({"conv_b": nn.Conv2d(3, 2, 1), "conv": nn.Conv2d(3, 2, 1)})
    old = nn.ModuleDict({"conv": nn.Conv2d(3, 2, 1), "fc": nn.Linear(2, 2)})
    untouched = new["conv"].weight.clone()
    report = transplant(new, old, suffix="_b")
    assert torch.equal(new["conv_b"].weight, old["conv"].weight)
    assert torch.equal(new["conv"].weight, untouched)
    assert report.loaded == ("conv_b",)
    assert report.unused == ("fc.weight", "fc.bias")


def test_transplant_takes_statistics_and_the_convention_along() -> None:
    old, new = FCN(ResNet(), ("layer4",), 3), FCN(ResNet(), ("layer4",), 3)
    old(torch.randn(2, 3, 64, 64))
    old.preprocess = "caffe"
    assert not transplant(new, old).kept
    assert torch.equal(new.body.layer4.bn2.running_mean, old.body.layer4.bn2.running_mean)
    assert new.preprocess == "caffe"


def test_transplant_changes_nothing_where_a_layer_does_not_fit() -> None:
    new = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1))
    before = copy.deepcopy(new.state_dict())
    old = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 3))
    with pytest.raises(
        WeightsMismatchError, match=r"1.weight has shape \(2, 2, 3, 3\), the model needs \(2, 2, 1, 1\)"
    ):
        transplant(new, old)
    assert all(torch.equal(value, before[key]) for key, value in new.state_dict().items())


@torch.no_grad()
def test_early_fusion_reads_the_extra_channel_with_the_mean_of_the_others() -> None:
    colour, fused = FCN32s(4, width=1 / 16).eval(), FCN32s(4, width=1 / 16, in_channels=5).eval()
    _caffe.randomize(colour)
    colour.preprocess = "caffe"
    report = fuse_early(fused, colour)
    old, new = colour.conv1_1.weight, fused.conv1_1.weight
    assert torch.equal(new[:, :3], old)
    for extra in (3, 4):
        torch.testing.assert_close(new[:, extra], old.mean(1), rtol=0, atol=1e-7)
    assert torch.equal(fused.conv1_1.bias, colour.conv1_1.bias)
    assert (report.source, report.kept, report.unused, fused.preprocess) == ("FCN32s", (), (), "caffe")
    x = torch.randn(1, 3, 40, 50)
    blank = torch.zeros(1, 2, 40, 50)
    torch.testing.assert_close(fused(torch.cat([x, blank], 1)), colour(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("old", "message"),
    [
        (
            {"conv.weight": torch.ones(1)},
            "must have the weight of new's first convolution, conv1_1.weight; it has conv",
        ),
        ({"conv1_1.weight": torch.ones(4, 4, 3, 3)}, "fewer than 4 input channels in conv1_1.weight, got 4"),
    ],
)
def test_early_fusion_of_other_networks_is_refused(old: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fuse_early(VGG16(width=1 / 32, in_channels=4), old)
