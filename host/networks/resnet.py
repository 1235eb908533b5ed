"""ResNet with basic blocks (He et al. 2016, arXiv:1512.03385).

The order is conv-BN-ReLU throughout, so that the DPU runs it as convolutions and additions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution if the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *conv_norm(inputs, outputs, 3, stride), nn.ReLU(), *conv_norm(outputs, outputs, 3)
        )
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Sequential(*conv_norm(inputs, outputs, 1, stride)) if changes else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        side = x if self.shortcut is None else self.shortcut(x)
        return self.relu(self.body(x) + side)


class ResNet(nn.Module):
    """Stages of basic blocks; each stage after the first halves height and width.

    Parameters
    ----------
    widths, depths : channels and blocks of each stage
    stem_stride : stride of the first convolution: 1 for images of 28 or 32 pixels; 2 makes the
        network about four times cheaper
    in_channels, num_classes : channels of the images, and outputs of the network
    """

    def __init__(
        self,
        widths: Sequence[int] = (16, 32, 64),
        depths: Sequence[int] = (3, 3, 3),
        stem_stride: int = 1,
        in_channels: int = 3,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        channels = widths[0]
        self.stem = nn.Sequential(*conv_norm(in_channels, channels, 3, stem_stride), nn.ReLU())
        self.stages = nn.Sequential()
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                self.stages.append(BasicBlock(channels, width, stride))
                channels = width
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [N, num_classes] of images [N, C, H, W]."""
        features = self.pool(self.stages(self.stem(images)))
        return self.classifier(torch.flatten(features, 1))
