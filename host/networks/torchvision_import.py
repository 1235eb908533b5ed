"""torchvision, also where its compiled operations do not fit the PyTorch that is installed.

PyPI's torchvision is built for the CUDA build of PyTorch. Beside the CPU build its library of
compiled operations does not load, and then its import fails, because it describes operations that
nobody has defined. Defined without an implementation they are enough for networks and transforms;
only detection models call them.
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
_defined: list[torch.library.Library] = []  # an operation exists as long as its library


@cache
def import_torchvision() -> ModuleType:
    """Import torchvision and return it.

    Raises
    ------
    ModuleNotFoundError
        It is not installed.
    ImportError
        It does not fit this PyTorch.
    """
    try:
        return import_module("torchvision")
    except RuntimeError:  # an operation does not exist
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in _SCHEMAS:
            if not hasattr(torch.ops.torchvision, schema.partition("(")[0]):
                library.define(schema)
        _defined.append(library)
    try:
        return import_module("torchvision")
    except RuntimeError as error:
        raise ImportError(f"torchvision does not fit torch {torch.__version__}: {error}") from error
