"""pytorch-fcn's networks in plain PyTorch, after its documented modules: state_dict and forward (eval)."""

from __future__ import annotations

import torch
import torch.nn.functional as T
from torch import Tensor

BODY = {
    "conv1_1": (64, 3, 3), "conv1_2": (64, 64, 3),
    "conv2_1": (128, 64, 3), "conv2_2": (128, 128, 3),
    "conv3_1": (256, 128, 3), "conv3_2": (256, 256, 3), "conv3_3": (256, 256, 3),
    "conv4_1": (512, 256, 3), "conv4_2": (512, 512, 3), "conv4_3": (512, 512, 3),
    "conv5_1": (512, 512, 3), "conv5_2": (512, 512, 3), "conv5_3": (512, 512, 3),
    "fc6": (4096, 512, 7), "fc7": (4096, 4096, 1),
}  # fmt: skip
SCORES = {"score_fr": 4096, "score_pool3": 256, "score_pool4": 512}
HEADS = {
    "FCN32s": (("score_fr",), {"upscore": 64}),
    "FCN16s": (("score_fr", "score_pool4"), {"upscore2": 4, "upscore16": 32}),
    "FCN8s": (
        ("score_fr", "score_pool3", "score_pool4"),
        {"upscore2": 4, "upscore8": 16, "upscore_pool4": 4},
    ),
}
HEADS["FCN8sAtOnce"] = HEADS["FCN8s"]


def shapes(name: str, n_class: int = 21, divide: int = 1) -> dict[str, tuple[int, ...]]:
    """state_dict keys and shapes in order; `divide` the channels of the body."""
    out: dict[str, tuple[int, ...]] = {}
    for layer, (cout, cin, k) in BODY.items():
        out[f"{layer}.weight"] = (cout // divide, cin if cin == 3 else cin // divide, k, k)
        out[f"{layer}.bias"] = (cout // divide,)
    scores, deconvs = HEADS[name]
    for layer in scores:
        out[f"{layer}.weight"] = (n_class, SCORES[layer] // divide, 1, 1)
        out[f"{layer}.bias"] = (n_class,)
    return out | {f"{layer}.weight": (n_class, n_class, k, k) for layer, k in deconvs.items()}


def bilinear(n_class: int, k: int) -> Tensor:
    factor = (k + 1) // 2
    centre = factor - 1 if k % 2 == 1 else factor - 0.5
    weight = torch.zeros(n_class, n_class, k, k)
    for i in range(k):
        for j in range(k):
            tap = (1 - abs(i - centre) / factor) * (1 - abs(j - centre) / factor)
            weight[range(n_class), range(n_class), i, j] = tap
    return weight


def random_state(name: str, n_class: int = 21, divide: int = 16, seed: int = 0) -> dict[str, Tensor]:
    """Weights that keep activations of order one through the body, bilinear upsampling."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in shapes(name, n_class, divide).items():
        fan_in = shape[1] * shape[2] * shape[3] if len(shape) == 4 else 50
        state[key] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        if key.startswith("upscore"):
            state[key] = bilinear(n_class, shape[-1])
    return state


def forward(name: str, state: dict[str, Tensor], x: Tensor) -> Tensor:
    """N,C,H,W logits by the chain of operations in pytorch-fcn's forward, without dropout."""

    def conv(layer: str, x: Tensor, padding: int = 0) -> Tensor:
        return T.conv2d(x, state[f"{layer}.weight"], state[f"{layer}.bias"], padding=padding)

    def up(layer: str, x: Tensor, stride: int) -> Tensor:
        return T.conv_transpose2d(x, state[f"{layer}.weight"], stride=stride)

    def crop(x: Tensor, start: int, like: Tensor) -> Tensor:
        return x[:, :, start : start + like.shape[2], start : start + like.shape[3]]

    h, pools = x, {}
    for layer in list(BODY)[:13]:
        h = conv(layer, h, 100 if layer == "conv1_1" else 1).relu()
        if layer in ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"):
            h = pools[layer[4]] = T.max_pool2d(h, 2, stride=2, ceil_mode=True)
    score_fr = conv("score_fr", conv("fc7", conv("fc6", h).relu()).relu())
    if name == "FCN32s":
        return crop(up("upscore", score_fr, 32), 19, x)
    scale4, scale3 = (0.01, 0.0001) if name == "FCN8sAtOnce" else (1.0, 1.0)
    upscore2 = up("upscore2", score_fr, 2)
    fused = upscore2 + crop(conv("score_pool4", pools["4"] * scale4), 5, upscore2)
    if name == "FCN16s":
        return crop(up("upscore16", fused, 16), 27, x)
    upscore_pool4 = up("upscore_pool4", fused, 2)
    fused = upscore_pool4 + crop(conv("score_pool3", pools["3"] * scale3), 9, upscore_pool4)
    return crop(up("upscore8", fused, 8), 31, x)
