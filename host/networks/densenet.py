"""DenseNet-BC (Huang et al. 2017, arXiv:1608.06993) in an order that the DPU can run.

A dense layer is a 1x1 and a 3x3 convolution whose result is concatenated with
its input. The paper's order, BN-ReLU-conv, places a batch norm after each
concat, so that it cannot be folded into a convolution before it. `order="post"`
is conv-BN-ReLU, as in AMD's DenseNetX tutorial: every batch norm folds into the
convolution before it, and only convolutions, concats and pools remain.
`order="pre"` is the paper's order, for pretrained weights and for comparison.
In both, the modules have the names that torchvision and timm use.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEMS = {  # name: (kernel, stride, whether a max pool follows)
    "small": (3, 1, False),  # for images of 28 or 32 pixels
    "stride2": (3, 2, False),  # the same images at a quarter of the cost
    "stride4": (3, 2, True),
    "imagenet": (7, 2, True),  # for images of 224 pixels
}


def conv_norm_relu(
    order: str, tag: str, inputs: int, outputs: int, kernel: int
) -> OrderedDict[str, nn.Module]:
    """Return a convolution, its norm and its ReLU in either order, named conv<tag>, norm<tag>."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    norm = nn.BatchNorm2d(inputs if order == "pre" else outputs)
    named: list[tuple[str, nn.Module]] = [(f"norm{tag}", norm), (f"relu{tag}", nn.ReLU())]
    named.insert(0 if order == "post" else 2, (f"conv{tag}", conv))
    return OrderedDict(named)


class DenseLayer(nn.Sequential):
    """A dense layer: [N, C, H, W] -> [N, C + growth_rate, H, W]."""

    def __init__(
        self, inputs: int, growth_rate: int, bottleneck: int, dropout: float, order: str
    ) -> None:
        width = bottleneck * growth_rate
        super().__init__(
            conv_norm_relu(order, "1", inputs, width, 1)
            | conv_norm_relu(order, "2", width, growth_rate, 3)
        )
        self.dropout = dropout

    def forward(self, features: Tensor) -> Tensor:
        new = super().forward(features)
        if self.dropout:
            new = F.dropout(new, self.dropout, self.training)
        return torch.cat([features, new], 1)


class DenseNet(nn.Module):
    """DenseNet-BC.

    Parameters
    ----------
    growth_rate : channels that each dense layer adds (k in the paper)
    block_config : dense layers per block
    compression : fraction of the channels that a transition keeps (theta)
    bottleneck : output channels of a layer's 1x1 convolution, in units of growth_rate
    stem : a key of STEMS
    in_channels, num_classes : channels of the images, and outputs of the network
    init_features : channels after the stem; 0: 2 * growth_rate
    dropout : probability of dropout after each dense layer
    order : "post" (conv-BN-ReLU) or "pre" (BN-ReLU-conv)

    Raises
    ------
    ValueError
        The stem or the order is unknown, or a transition would keep no channel.
    """

    def __init__(
        self,
        growth_rate: int = 12,
        block_config: tuple[int, ...] = (16, 16, 16),
        compression: float = 0.5,
        bottleneck: int = 4,
        stem: str = "small",
        in_channels: int = 3,
        num_classes: int = 10,
        init_features: int = 0,
        dropout: float = 0.0,
        order: str = "post",
    ) -> None:
        super().__init__()
        if stem not in STEMS:
            raise ValueError(f"stem {stem!r} is not one of {', '.join(STEMS)}")
        if order not in ("post", "pre"):
            raise ValueError(f"order {order!r} is neither 'post' nor 'pre'")
        channels = init_features or 2 * growth_rate
        self.features = self._stem(stem, in_channels, channels)
        for index, depth in enumerate(block_config, start=1):
            block = nn.Sequential()
            for layer in range(1, depth + 1):
                dense = DenseLayer(channels, growth_rate, bottleneck, dropout, order)
                block.add_module(f"denselayer{layer}", dense)
                channels += growth_rate
            self.features.add_module(f"denseblock{index}", block)
            if index < len(block_config):
                kept = int(channels * compression)
                if not kept:
                    raise ValueError(f"compression {compression} keeps none of {channels} channels")
                transition = nn.Sequential(conv_norm_relu(order, "", channels, kept, 1))
                transition.add_module("pool", nn.AvgPool2d(2))
                self.features.add_module(f"transition{index}", transition)
                channels = kept
        if order == "pre":
            self.features.add_module("norm5", nn.BatchNorm2d(channels))
            self.features.add_module("relu5", nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        self._initialise()

    @staticmethod
    def _stem(stem: str, in_channels: int, channels: int) -> nn.Sequential:
        kernel, stride, pool = STEMS[stem]
        conv = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=False)
        named: list[tuple[str, nn.Module]] = [
            ("conv0", conv),
            ("norm0", nn.BatchNorm2d(channels)),
            ("relu0", nn.ReLU()),
        ]
        if pool:
            named.append(("pool0", nn.MaxPool2d(3, 2, 1) if kernel == 7 else nn.MaxPool2d(2)))
        return nn.Sequential(OrderedDict(named))

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [N, num_classes] of images [N, C, H, W]."""
        return self.classifier(torch.flatten(self.pool(self.features(images)), 1))
