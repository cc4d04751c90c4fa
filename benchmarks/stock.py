"""FCN-8s written with PyTorch's own modules, as a user would: what the models are measured against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fcnkern

STAGES = (2, 2, 3, 3, 3)


class StockFCN8s(nn.Module):
    """FCN-8s on VGG16: dense transposed convolutions, full-resolution logits. Parameters named as in `fcnkern.FCN8s`.

    Args:
        like: the network whose sizes and parameters it takes over.
    """

    def __init__(self, like: fcnkern.FCN8s) -> None:
        super().__init__()
        for name, layer in like.named_children():
            if isinstance(layer, nn.Conv2d):
                pad = 100 if name == "conv1_1" else 1 if name.startswith("conv") else 0
                own: nn.Module = nn.Conv2d(
                    layer.in_channels, layer.out_channels, layer.kernel_size[0], padding=pad
                )
            elif isinstance(layer, nn.ConvTranspose2d):
                channels, size, stride = layer.in_channels, layer.kernel_size[0], layer.stride[0]
                own = nn.ConvTranspose2d(channels, channels, size, stride=stride, bias=False)
                own.requires_grad_(False)
            else:
                continue
            self.add_module(name, own)
        self.drop6, self.drop7 = nn.Dropout(like.drop6.p), nn.Dropout(like.drop7.p)
        self.load_state_dict(like.state_dict())

    def trunk(self, x: Tensor) -> list[Tensor]:
        """The maps that are scored, coarsest first: fc7, pool4, pool3."""
        h, pools = x, []
        for stage, convs in enumerate(STAGES, start=1):
            for number in range(1, convs + 1):
                h = F.relu(self.get_submodule(f"conv{stage}_{number}")(h))
            h = F.max_pool2d(h, 2, stride=2, ceil_mode=True)
            pools.append(h)
        h = self.drop6(F.relu(self.get_submodule("fc6")(h)))
        h = self.drop7(F.relu(self.get_submodule("fc7")(h)))
        return [h, pools[3], pools[2]]

    def head(self, maps: Sequence[Tensor]) -> Tensor:
        """Their scores, upsampled and summed, at stride 8."""
        h = self.get_submodule("upscore2")(self.get_submodule("score_fr")(maps[0]))
        h = h + _crop(self.get_submodule("score_pool4")(maps[1]), 5, h.shape[2:])
        h = self.get_submodule("upscore_pool4")(h)
        return h + _crop(self.get_submodule("score_pool3")(maps[2]), 9, h.shape[2:])

    def upsample(self, scores: Tensor, size: Sequence[int]) -> Tensor:
        """Scores at stride 8 -> logits N,C,H,W."""
        return _crop(self.get_submodule("upscore8")(scores), 31, size).contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """Images N,3,H,W -> logits N,C,H,W."""
        return self.upsample(self.head(self.trunk(x)), x.shape[2:])

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy over the pixels that are not 255."""
        return F.cross_entropy(self(x), labels, ignore_index=255)

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Images N,3,H,W -> label map N,H,W, int64."""
        labels: Tensor = self(x).argmax(1)
        return labels


def _crop(x: Tensor, start: int, size: Sequence[int]) -> Tensor:
    return x[:, :, start : start + size[0], start : start + size[1]]
