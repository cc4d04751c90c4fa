"""CaffeNet and GoogLeNet with FCN heads in plain PyTorch, layer by layer with Caffe's names (evaluation)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as T
from torch import Tensor

from tests.models._torchfcn import bilinear

State = Mapping[str, Tensor]
# Crops by the number of taps, as worked out from the authors' net.py and Caffe's coordinate map.
SKIPS = {"caffenet": (5, 10), "alexnet": (5, 10), "googlenet": (0, 0)}
FINAL = {"caffenet": 18, "alexnet": 18, "googlenet": 1}
TAPS = {
    "caffenet": ("pool1", "pool2"),
    "alexnet": ("pool1", "pool2"),
    "googlenet": ("inception_3b", "inception_4e"),
}


def layer(state: State, name: str, x: Tensor, stride: int = 1, pad: int = 0, group: int = 1) -> Tensor:
    """Convolution and ReLU."""
    return torch.relu(T.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride, pad, 1, group))


def pool(x: Tensor) -> Tensor:
    """3x3, stride 2, sizes rounded up."""
    return T.max_pool2d(x, 3, 2, ceil_mode=True)


def norm(x: Tensor) -> Tensor:
    """Caffe's LRN: x / (1 + alpha/5 · sum over the five channels around)^0.75."""
    padded = T.pad(x * x, (0, 0, 0, 0, 2, 2))
    around = sum(padded[:, shift : shift + x.shape[1]] for shift in range(5))
    return x / (1 + 1e-4 / 5 * around) ** 0.75


def alexnet(state: State, x: Tensor, group: int, normalise: bool) -> list[Tensor]:
    """pool1, pool2, fc7."""
    after = norm if normalise else (lambda x: x)
    pool1 = pool(layer(state, "conv1", x, stride=4, pad=100))
    pool2 = pool(layer(state, "conv2", after(pool1), pad=2, group=group))
    x = layer(state, "conv3", after(pool2), pad=1)
    x = layer(state, "conv5", layer(state, "conv4", x, pad=1, group=group), pad=1, group=group)
    return [pool1, pool2, layer(state, "fc7", layer(state, "fc6", pool(x)))]


def inception(state: State, name: str, x: Tensor) -> Tensor:
    """One block."""
    return torch.cat(
        (
            layer(state, f"{name}/1x1", x),
            layer(state, f"{name}/3x3", layer(state, f"{name}/3x3_reduce", x), pad=1),
            layer(state, f"{name}/5x5", layer(state, f"{name}/5x5_reduce", x), pad=2),
            layer(state, f"{name}/pool_proj", T.max_pool2d(x, 3, 1, 1)),
        ),
        dim=1,
    )


def googlenet(state: State, x: Tensor) -> list[Tensor]:
    """inception_3b, inception_4e, inception_5b, from a state with Caffe's names."""
    x = norm(pool(layer(state, "conv1/7x7_s2", x, stride=2, pad=3)))
    x = pool(norm(layer(state, "conv2/3x3", layer(state, "conv2/3x3_reduce", x), pad=1)))
    taps = []
    for stage, blocks in (("3", "ab"), ("4", "abcde"), ("5", "ab")):
        for block in blocks:
            x = inception(state, f"inception_{stage}{block}", x)
        taps.append(x)
        x = pool(x) if stage != "5" else x
    return taps


def body(name: str, state: State, x: Tensor) -> list[Tensor]:
    """The taps of a body, finest first."""
    inside = {key.removeprefix("body."): value for key, value in state.items()}
    if name == "googlenet":
        return googlenet({key.replace(".", "/", key.count(".") - 1): v for key, v in inside.items()}, x)
    return alexnet(inside, x, 2 if name == "caffenet" else 1, name == "caffenet")


def forward(name: str, taps: int, state: State, x: Tensor) -> Tensor:
    """Logits of the network with `taps` taps: transposed convolutions, and crops like Caffe's."""
    maps = body(name, state, x)[-taps:]
    scores = T.conv2d(maps[-1], state["score_fr.weight"], state["score_fr.bias"])
    n_class = scores.shape[1]
    skips = list(zip(reversed(maps[:-1]), reversed(TAPS[name][3 - taps :]), SKIPS[name], strict=False))
    for skip, tap, offset in skips:
        up = T.conv_transpose2d(scores, bilinear(n_class, 3), stride=2)
        score = T.conv2d(skip, state[f"score_{tap}.weight"], state[f"score_{tap}.bias"])[
            :, :, offset:, offset:
        ]
        height, width = (min(sides) for sides in zip(up.shape[2:], score.shape[2:], strict=True))
        scores = up[:, :, :height, :width] + score[:, :, :height, :width]
    stride = 64 >> taps
    full = T.conv_transpose2d(scores, bilinear(n_class, 2 * stride - 1), stride=stride)
    start = FINAL[name]
    return full[:, :, start : start + x.shape[2], start : start + x.shape[3]]


def randomize(model: torch.nn.Module, seed: int = 0) -> None:
    """Weights and biases that keep activations of order one, scores too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                fan_in = parameter[0].numel() if parameter.dim() > 1 else 50
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * (2 / fan_in) ** 0.5)
                assert name
