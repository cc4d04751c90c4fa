"""Bodies of tests: random chains of averaging layers, and a residual network as users have."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn


class Mean(nn.Conv2d):
    """A convolution of one channel that takes the mean, so that it moves a ramp by what the geometry says."""

    def __init__(self, kernel: int, stride: int = 1, pad: int = 0, dilation: int = 1) -> None:
        super().__init__(1, 1, kernel, stride, pad, dilation, bias=False)
        nn.init.constant_(self.weight, 1 / kernel**2)


class Chain(nn.Module):
    """Three stages `stage1` ... `stage3`, each of stride 2, of random kernels, pads and dilations."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        choose = random.Random(seed)
        for stage in (1, 2, 3):
            kernel = choose.choice((1, 2, 3, 5))
            if choose.random() < 0.5 and kernel > 1:
                down: nn.Module = nn.AvgPool2d(
                    kernel, 2, choose.randint(0, kernel // 2), ceil_mode=choose.random() < 0.5
                )
            else:
                down = Mean(kernel, 2, choose.randint(0, 2))
            keep = Mean(choose.choice((1, 2, 3)), 1, choose.randint(0, 2), choose.choice((1, 2)))
            layers = [down, keep] if choose.random() < 0.5 else [keep, down]
            self.add_module(f"stage{stage}", nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        """N,1,H,W."""
        return self.stage3(self.stage2(self.stage1(x)))


class Residual(nn.Module):
    """A block of a residual network: two convolutions beside a projection, in place where users write so."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.down = nn.Conv2d(channels, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """N,channels,H,W -> N,out,H/stride,W/stride."""
        y = torch.relu_(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.down(x)
        return nn.functional.relu(y, inplace=True)


class ResNet(nn.Module):
    """A small residual classifier with strides 4 to 32, average pooling and a linear layer at its end."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels, 7, 2, 3), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        self.layer1 = Residual(channels, channels, 1)
        self.layer2 = Residual(channels, 2 * channels, 2)
        self.layer3 = Residual(2 * channels, 3 * channels, 2)
        self.layer4 = Residual(3 * channels, 4 * channels, 2)
        self.fc = nn.Linear(4 * channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        """N,3,H,W -> N,10."""
        if x.shape[2] < 8:  # Python that a symbolic tracer cannot follow
            x = x * 1.0
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))
