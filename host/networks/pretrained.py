"""Published ImageNet weights for the pre-activation DenseNets, where torchvision or timm is."""

from __future__ import annotations

import importlib

import torch
from torch import nn


def load_pretrained(network: nn.Module, name: str) -> list[str]:
    """Copy the published weights of `name` ("densenet121", ...) into `network`.

    The names of the tensors are torchvision's, which timm shares. A classifier of
    another size keeps its own initialisation.

    Returns
    -------
    list of str : tensors that stayed as they were

    Raises
    ------
    ValueError : neither package is installed, or a tensor's shape does not fit
    """
    source = _published(name)
    own = network.state_dict()
    kept = [key for key in own if key not in source]
    for key, tensor in source.items():
        if key not in own:
            raise ValueError(f"{name}: the network has no tensor {key!r}; is its order 'pre'?")
        if own[key].shape != tensor.shape:
            if not key.startswith("classifier."):
                shapes = f"{tuple(tensor.shape)} into {tuple(own[key].shape)}"
                raise ValueError(f"{name}: {key!r} does not fit, {shapes}")
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
    raise ValueError(f"weights of {name} come with torchvision or timm; install one of them")
