"""Classifiers with fully connected layers: of torchvision's shapes, and plain chains."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AlexNetLike(nn.Module):
    """As torchvision's AlexNet: `features`, `avgpool`, flatten, `classifier`; strides 4, 2 and 2.

    Args:
        pad: of the convolutions; the average pooling keeps `pooled` x `pooled` values.
    """

    def __init__(self, pad: int = 0, pooled: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 7, 4, pad),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(6, 8, 3, 1, pad),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((pooled, pooled))
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(8 * pooled * pooled, 16),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(16, 12),
            nn.ReLU(inplace=True),
            nn.Linear(12, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        """N,3,H,W -> N,5."""
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class Global(nn.Module):
    """As a residual network ends: a global average, a view, one linear layer; functions in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        """N,3,H,W -> N,4."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = x + self.conv2(x)
        x = nn.functional.adaptive_avg_pool2d(x, 1)
        return self.fc(x.view(x.size(0), -1))


def chain() -> nn.Sequential:
    """LeNet's shape, for images 1,17,13: two convolutions with average pooling, then two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 2),
        nn.Sequential(nn.Tanh(), nn.Flatten()),
        nn.Linear(6 * 6 * 4, 7),
        nn.Sigmoid(),
        nn.Linear(7, 3, bias=False),
    )
