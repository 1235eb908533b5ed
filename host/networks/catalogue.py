"""Networks by name: presets of this package, or any `module:function` of the user's."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import Any

from torch import nn

from host.networks.densenet import DenseNet
from host.networks.mobilenet import MobileNetV2
from host.networks.resnet import ResNet

# One preset a line: the constructor and what differs from its signature.
PRESETS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    "densenet": (DenseNet, {}),
    "densenetx": (DenseNet, dict(growth_rate=12, block_config=(16, 16, 16))),
    "densenet-121": (DenseNet, dict(growth_rate=32, block_config=(6, 12, 24, 16), stem="imagenet")),
    "densenet-169": (DenseNet, dict(growth_rate=32, block_config=(6, 12, 32, 32), stem="imagenet")),
    "densenet-201": (DenseNet, dict(growth_rate=32, block_config=(6, 12, 48, 32), stem="imagenet")),
    "densenet-tiny": (DenseNet, dict(growth_rate=4, block_config=(2, 2), stem="stride4")),
    "densenet-small": (DenseNet, dict(growth_rate=8, block_config=(3, 3, 3), stem="stride2")),
    "densenet-wide": (DenseNet, dict(growth_rate=24, block_config=(3, 3, 3), stem="stride2")),
    "resnet-8": (ResNet, dict(depths=(1, 1, 1))),
    "resnet-20": (ResNet, dict(depths=(3, 3, 3))),
    "mobilenet-v2": (MobileNetV2, {}),
    "mobilenet-small": (
        MobileNetV2,
        dict(blocks=((1, 8, 1, 1), (4, 16, 2, 2), (4, 24, 2, 2)), width=1.0, head=64),
    ),
}


def create(name: str, **options: Any) -> nn.Module:
    """Build the preset `name`, or call the user's `module:function`, with `options`.

    Raises
    ------
    ValueError : unknown name, or options that the network does not take
    """
    maker, defaults = _maker(name)
    try:
        return maker(**(defaults | options))
    except TypeError as error:
        raise ValueError(f"network {name!r}: {error}") from error


def _maker(name: str) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
    if name in PRESETS:
        return PRESETS[name]
    if ":" not in name:
        near = difflib.get_close_matches(name, PRESETS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(PRESETS)}"
        raise ValueError(f"no network {name!r}{hint} (your own: 'module:function')")
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function), {}
    except (ImportError, AttributeError) as error:
        raise ValueError(f"network {name!r} cannot be imported: {error}") from error
