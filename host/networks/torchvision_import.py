"""Import torchvision, even if its compiled operations do not match the installed PyTorch.

PyPI's torchvision is built for the CUDA build of PyTorch. With the CPU build, its library of
compiled operations does not load, and its import fails because it refers to operations that are
not defined. Defining them without an implementation is enough for networks and transforms; only
detection models call them.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_defined: list[torch.library.Library] = []  # operations exist only as long as their library


@cache
def import_torchvision() -> ModuleType:
    """Import torchvision and return it.

    Raises
    ------
    ModuleNotFoundError
        torchvision is not installed.
    ImportError
        It does not work with the installed PyTorch.
    """
    try:
        return import_module("torchvision")
    except RuntimeError:  # "operator torchvision::nms does not exist"
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in _SCHEMAS:
            if not hasattr(torch.ops.torchvision, schema.partition("(")[0]):
                library.define(schema)
        _defined.append(library)
    try:
        return import_module("torchvision")
    except RuntimeError as error:
        raise ImportError(
            f"torchvision does not work with torch {torch.__version__}: {error}"
        ) from error
