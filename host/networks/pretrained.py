"""Published ImageNet weights for the pre-activation DenseNets, from torchvision or timm."""

from __future__ import annotations

import importlib

import torch
from torch import nn


def load_pretrained(network: nn.Module, name: str) -> list[str]:
    """Copy the published weights of `name` ("densenet121", ...) into `network`.

    Tensors are matched by name; torchvision and timm use the same names. A
    classifier of another size keeps its own initialisation.

    Returns
    -------
    list of str : the network's tensors that were not replaced

    Raises
    ------
    ValueError : neither package is installed, or the tensors do not match the network's
    """
    source = _published(name)
    own = network.state_dict()
    kept = [key for key in own if key not in source]
    for key, tensor in source.items():
        if key not in own:
            raise ValueError(
                f"{name}: the network has no tensor {key!r}; create it with order='pre'"
            )
        if own[key].shape != tensor.shape:
            if not key.startswith("classifier."):
                shapes = f"it is {tuple(tensor.shape)}, the network's {tuple(own[key].shape)}"
                raise ValueError(f"{name}: {key!r} does not fit: {shapes}")
            kept.append(key)
            continue
        own[key] = tensor
    network.load_state_dict(own)
    return kept


def _published(name: str) -> dict[str, torch.Tensor]:
    for package in ("torchvision.models", "timm"):
        try:
            module = importlib.import_module(package)
        except ImportError:
            continue
        model = (
            module.get_model(name, weights="DEFAULT")
            if package == "torchvision.models"
            else module.create_model(name, pretrained=True)
        )
        return dict(model.state_dict())
    raise ValueError(f"the weights of {name} need torchvision or timm: pip install torchvision")
