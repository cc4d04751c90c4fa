"""Two networks fused, one network with several heads, four channels: equal to what they are made of, and trained."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as T
from PIL import Image
from torch import Tensor, nn

from fcnkern.data.preprocess import preset
from fcnkern.models import (
    FCN,
    FCN8s,
    FCN16s,
    FCN32s,
    LateFusion,
    MultiTask,
    create,
    fuse_early,
    transplant,
)
from tests.models import _caffe
from tests.models._bodies import ResNet

SMALL = 1 / 32


def random(make: Callable[..., FCN], classes: int, seed: int = 0, **options: Any) -> FCN:
    torch.manual_seed(seed)
    net = make(classes, width=SMALL, **options).eval()
    _caffe.randomize(net)
    return net


def images(channels: int, height: int = 40, width: int = 50) -> Tensor:
    return torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(3))


def labels(classes: int) -> Tensor:
    drawn = torch.randint(0, classes + 1, (2, 40, 50), generator=torch.Generator().manual_seed(classes))
    return torch.where(drawn == classes, 255, drawn)


@pytest.mark.parametrize("make", [FCN32s, FCN16s, FCN8s])
@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.7, 0.2)])
@torch.no_grad()
def test_late_fusion_averages_logits(make: type[FCN], weights: tuple[float, float]) -> None:
    color, hha = random(make, 5), random(make, 5, seed=1, in_channels=4)
    late, x = LateFusion(color, hha, weights), images(7)
    expected = weights[0] * color(x[:, :3]) + weights[1] * hha(x[:, 3:])
    assert late(x).std() > 0.01
    torch.testing.assert_close(late(x), expected)
    target = labels(5)
    loss, stats = late.loss(x, target, return_stats=True)
    torch.testing.assert_close(
        loss, T.cross_entropy(expected, target, ignore_index=255), rtol=1e-4, atol=1e-5
    )
    assert stats.tolist()[0] == (target != 255).sum()
    found = late.predict(x)
    assert found.dtype == torch.uint8
    assert (found == expected.argmax(1)).float().mean() > 0.999


@torch.no_grad()
def test_late_fusion_of_one_network_with_itself_is_that_network() -> None:
    net, x = random(FCN16s, 4), images(3)
    late = LateFusion(net, net)
    twice = torch.cat([x, x], 1)
    assert torch.equal(late(twice), net(x))
    options = {"flip": True, "scales": (1.0, 0.5)}
    assert torch.equal(late.predict(twice, **options), net.predict(x, **options))


@torch.no_grad()
def test_late_fusion_is_in_the_mode_of_its_networks() -> None:
    color, hha = create("fcn32s_alexnet", 3, width=SMALL), create("fcn32s_alexnet", 3, width=SMALL).eval()
    assert LateFusion(color, hha).training
    assert not LateFusion(color.eval(), hha).training


def test_every_stream_of_late_fusion_is_averaged() -> None:
    color, hha, x = random(FCN8s, 4), random(FCN8s, 4, seed=1), images(6)
    late = LateFusion(color, hha, (0.7, 0.2))
    alone = late.stream_alignments()
    assert list(alone) == ["fc7", "pool4", "pool3"]
    streams = [net.streams(part, alone) for net, part in ((color, x[:, :3]), (hha, x[:, 3:]))]
    for (found, resample), (ours, expected), (theirs, _) in zip(
        late.streams(x, alone), *streams, strict=True
    ):
        torch.testing.assert_close(found, 0.7 * ours + 0.2 * theirs)
        assert resample == expected


@torch.no_grad()
def test_tiles_of_late_fusion_give_the_same_labels() -> None:
    late = LateFusion(random(FCN32s, 5), random(FCN32s, 5, seed=1))
    x = torch.randn(1, 6, 540, 30, generator=torch.Generator().manual_seed(5))
    whole = late.predict(x)
    assert whole.unique().numel() > 1
    assert (late.predict(x, tile=(500, 64)) == whole).float().mean() > 0.999
    with pytest.raises(ValueError, match="tile excludes scales and flip"):
        late.predict(x, tile=(500, 64), flip=True)


def test_late_fusion_trains_both_networks() -> None:
    late = LateFusion(random(FCN32s, 5), random(FCN32s, 5, seed=1)).train()
    late.check_ready()
    late.loss(images(6), labels(5)).backward()
    missing = [name for name, each in late.named_parameters() if each.requires_grad and each.grad is None]
    assert not missing
    assert all(name.startswith(("color.", "hha.")) for name in late.state_dict())


def test_new_networks_are_ready_but_for_a_zero_body() -> None:
    late = LateFusion(FCN32s(3, width=SMALL), FCN32s(3, width=SMALL))
    late.check_ready()
    net = MultiTask(FCN32s(5, width=SMALL), {"semantic": 3, "geometric": 2})
    net.check_ready()
    for broken, part in ((late, late.hha), (net, net.body)):
        nn.init.zeros_(part.conv3_1.weight)
        with pytest.raises(RuntimeError, match=r"all zero: conv3_1\.weight"):
            broken.check_ready()


@pytest.mark.parametrize(
    ("hha", "weights", "message"),
    [
        (lambda: FCN32s(4, SMALL), (0.5, 0.5), "the same n_class, they have 3 and 4"),
        (lambda: FCN16s(3, SMALL), (0.5, 0.5), "the same alignment"),
        (
            lambda: FCN32s(3, SMALL, "learned"),
            (0.5, 0.5),
            "of hha, upscore, must be fixed bilinear: it is learned",
        ),
        (lambda: FCN32s(3, SMALL), (0.5,), r"weights must be two finite numbers, got \(0.5,\)"),
        (lambda: FCN32s(3, SMALL), (0.5, math.nan), "two finite numbers"),
    ],
)
def test_what_cannot_be_fused_is_refused(hha: Any, weights: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LateFusion(FCN32s(3, SMALL), hha(), weights)


def test_late_fusion_names_what_it_cannot_take() -> None:
    late = LateFusion(FCN32s(3, SMALL), FCN32s(3, SMALL))
    with pytest.raises(
        ValueError, match=r"\(N, 6, H, W\), 3 channels for color and 3 for hha, got \(2, 3, 40, 50\)"
    ):
        late(images(3))
    with torch.no_grad():
        late.hha.upscore.weight.mul_(2)
    with pytest.raises(ValueError, match="of hha, upscore, must be fixed bilinear: it is another one"):
        late.scores(images(6))


def two_tasks(make: type[FCN]) -> tuple[MultiTask, dict[str, FCN]]:
    """A network of two heads, and a network for each with the same weights."""
    both = random(make, 5)
    alone: dict[str, FCN] = {}
    for name, first, last in (("semantic", 0, 3), ("geometric", 3, 5)):
        alone[name] = make(last - first, width=SMALL).eval()
        state = {key: value for key, value in both.state_dict().items() if not key.startswith("upscore")}
        for key in [key for key in state if key.startswith("score")]:
            state[key] = state[key][first:last]
        transplant(alone[name], state)
    return MultiTask(both, {"semantic": 3, "geometric": 2}), alone


@pytest.mark.parametrize("make", [FCN32s, FCN8s])
def test_each_head_is_a_network_of_its_own_on_the_same_body(make: type[FCN]) -> None:
    net, alone = two_tasks(make)
    x, target = images(3), {"semantic": labels(3), "geometric": labels(2)}
    logits, maps, losses = net(x), net.predict(x), net.losses(x, target, reduction="sum")
    assert list(logits) == list(maps) == list(losses) == ["semantic", "geometric"]
    for name, single in alone.items():
        assert logits[name].std() > 0.01
        torch.testing.assert_close(logits[name], single(x), rtol=1e-4, atol=1e-4)
        assert (maps[name] == single.predict(x)).float().mean() > 0.999
        torch.testing.assert_close(
            losses[name], single.loss(x, target[name], reduction="sum"), rtol=1e-4, atol=1e-4
        )
    torch.testing.assert_close(net.loss(x, target, reduction="sum"), losses["semantic"] + losses["geometric"])


@pytest.mark.parametrize("options", [{"flip": True, "scales": (1.0, 0.7)}, {"tile": (500, 64)}])
def test_heads_predict_as_networks_of_their_own(options: dict[str, Any]) -> None:
    net, alone = two_tasks(FCN32s)
    x = torch.randn(1, 3, 540, 30, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():  # every class is somewhere the most probable
        for each in (net.net, *alone.values()):
            each.score_fr.bias -= each.scores(x)[0].mean((0, 2, 3))
    found = net.predict(x, out_dtype=torch.int16, **options)
    for name, single in alone.items():
        assert found[name].dtype == torch.int16
        assert found[name].unique().numel() > 1
        assert (found[name] == single.predict(x, out_dtype=torch.int16, **options)).float().mean() > 0.999
    with pytest.raises(ValueError, match="tile excludes scales and flip"):
        net.predict(x, tile=(500, 64), flip=True)


def test_the_bodys_gradient_is_the_sum_over_the_heads() -> None:
    net, alone = two_tasks(FCN16s)
    x, target = images(3), {"semantic": labels(3), "geometric": labels(2)}
    net.loss(x, target).backward()
    for name, single in alone.items():
        single.loss(x, target[name]).backward()
    expected = alone["semantic"].conv4_2.weight.grad + alone["geometric"].conv4_2.weight.grad
    assert expected.norm() > 1e-6
    torch.testing.assert_close(
        net.body.conv4_2.weight.grad, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item()
    )
    rows = torch.cat([alone[name].score_fr.weight.grad for name in ("semantic", "geometric")])
    torch.testing.assert_close(
        net.net.score_fr.weight.grad, rows, rtol=1e-3, atol=1e-3 * rows.abs().max().item()
    )


def test_options_of_the_loss_are_per_head() -> None:
    net, alone = two_tasks(FCN32s)
    x, target = images(3), {"semantic": labels(3), "geometric": labels(2)}
    weight = torch.tensor([1.0, 5.0, 0.5])
    found = net.losses(x, target, class_weight={"semantic": weight}, return_stats=True)
    expected = alone["semantic"].loss(x, target["semantic"], class_weight=weight)
    torch.testing.assert_close(found["semantic"][0], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        found["geometric"][0], alone["geometric"].loss(x, target["geometric"]), rtol=1e-4, atol=1e-4
    )
    assert found["geometric"][1][0] == (target["geometric"] != 255).sum()


def test_heads_work_on_any_body_and_are_copied() -> None:
    net = MultiTask(FCN(ResNet(), ("layer3", "layer4"), classes=5), {"a": 4, "b": 1})
    _caffe.randomize(net)
    net.preprocess = "caffe"
    twin = copy.deepcopy(net.eval())
    x = images(3)
    assert net.net.preprocess == twin.preprocess == "caffe"
    assert all(torch.equal(twin(x)[name], net(x)[name]) for name in ("a", "b"))


@pytest.mark.parametrize("heads", [{"a": 3, "b": 3}, {"a": 5, "b": 0}, {}])
def test_heads_must_share_out_the_classes(heads: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="heads must have at least one class each and net's 5 in all"):
        MultiTask(FCN32s(5, SMALL), heads)


def test_learned_upsampling_would_mix_heads() -> None:
    with pytest.raises(ValueError, match="of net, upscore16, must be fixed bilinear: it is learned"):
        MultiTask(FCN16s(5, SMALL, "learned"), {"a": 3, "b": 2})


@pytest.mark.parametrize(
    ("names", "weights"),
    [(("semantic",), ()), (("semantic", "depth"), ()), (("semantic", "geometric"), ("depth",))],
)
def test_labels_of_other_heads_are_refused(names: tuple[str, ...], weights: tuple[str, ...]) -> None:
    net = MultiTask(FCN32s(5, SMALL), {"semantic": 3, "geometric": 2})
    with pytest.raises(ValueError, match="labels must be those of the heads semantic, geometric"):
        net.loss(
            images(3),
            {name: labels(2) for name in names},
            class_weight={name: torch.ones(2) for name in weights},
        )


@pytest.mark.parametrize("name", ["fcn8s", "fcn16s_caffenet", "fcn32s_alexnet", "fcn8s_googlenet"])
def test_every_body_takes_four_channels(name: str) -> None:
    net = create(name, 3, width=SMALL, in_channels=4)
    assert net(images(4)).shape == (2, 3, 40, 50)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 4, H, W\), got \(2, 3, 40, 50\)"):
        net(images(3))
    with pytest.raises(ValueError, match="in_channels must be at least 1, got 0"):
        create(name, 3, width=SMALL, in_channels=0)


def frame(folder: Path, number: str, side: int = 72) -> dict[str, Tensor]:
    """One NYUDv2 frame reduced: colour, log-depth, HHA and labels of 13 classes."""

    def read(name: str, resample: Image.Resampling) -> np.ndarray:
        return np.array(Image.open(folder / name).resize((side * 4 // 3, side), resample))

    near, smooth = Image.Resampling.NEAREST, Image.Resampling.BILINEAR
    depth = np.log(read(f"depth/{number}.png", near).clip(1).astype(np.float32) / 1000)
    return {
        "color": preset("caffe")(read(f"rgb/{number}.jpg", smooth)),
        "depth": torch.from_numpy(depth)[None],
        "hha": torch.from_numpy(read(f"hha/{number}.png", smooth)).permute(2, 0, 1).float() - 128,
        "labels": torch.from_numpy(read(f"labels13/{number}.png", near)).long(),
    }


def test_real_frames_of_colour_and_depth_are_learned(shared: Path) -> None:
    folder = shared / "data" / "samples" / "nyudv2"
    if not folder.is_dir():
        pytest.skip("needs shared/data/samples/nyudv2")
    frames = [frame(folder, number) for number in ("0001", "0014")]
    stacked = {name: torch.stack([each[name] for each in frames]) for name in frames[0]}
    torch.manual_seed(0)
    color = FCN32s(13, width=1 / 16)
    early = FCN32s(13, width=1 / 16, in_channels=4)
    fuse_early(early, color)
    late = LateFusion(color, FCN32s(13, width=1 / 16))
    for net, names in ((early, ("color", "depth")), (late, ("color", "hha"))):
        x = torch.cat([stacked[name] for name in names], 1)
        net.set_dropout(0)
        optimizer = torch.optim.Adam([each for each in net.parameters() if each.requires_grad], 1e-3)
        losses = []
        for _ in range(8):
            optimizer.zero_grad()
            losses.append(net.loss(x, stacked["labels"]))
            losses[-1].backward()
            optimizer.step()
        assert losses[0].item() == pytest.approx(math.log(13), rel=1e-5)
        assert losses[-1].item() < 0.85 * losses[0].item()
        assert net.predict(x).shape == stacked["labels"].shape
