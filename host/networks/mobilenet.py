"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381): inverted residual blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Table 2 of the paper: expansion t, channels c, blocks n, stride s.
PAPER = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def conv_norm_relu6(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU6()]


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection without an activation."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers = conv_norm_relu6(inputs, hidden, 1) if expansion != 1 else []
        layers += conv_norm_relu6(hidden, hidden, 3, stride, groups=hidden)
        layers += conv_norm_relu6(hidden, outputs, 1)[:2]
        self.body = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV2(nn.Module):
    """MobileNetV2, defined by its table of blocks.

    Parameters
    ----------
    blocks : rows (expansion, channels, repeats, stride)
    width : factor on the channels of all blocks; at least 8 channels remain
    stem_stride : stride of the first convolution: 2 in the paper, 1 for small images
    head : channels of the last 1x1 convolution
    in_channels, num_classes : channels of the images, and outputs of the network
    """

    def __init__(
        self,
        blocks: Sequence[Sequence[int]] = PAPER,
        width: float = 1.0,
        stem_stride: int = 2,
        head: int = 1280,
        in_channels: int = 3,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        channels = max(8, round(32 * width))
        layers = conv_norm_relu6(in_channels, channels, 3, stem_stride)
        for expansion, outputs, repeats, stride in blocks:
            outputs = max(8, round(outputs * width))
            for repeat in range(repeats):
                step = stride if repeat == 0 else 1
                layers.append(InvertedResidual(channels, outputs, step, expansion))
                channels = outputs
        layers += conv_norm_relu6(channels, head, 1)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(head, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [N, num_classes] of images [N, C, H, W]."""
        return self.classifier(torch.flatten(self.pool(self.features(images)), 1))
