"""The layers of a quantised student, with one file for each family.

Each file defines everything about its layers: their arithmetic, the constraints of the DPU's shifts
on their fix points, their op in an .xmodel and its export to ONNX, and the PyTorch modules and
functions that become these layers. All files of this folder are imported here, so that adding a
layer takes one new file.
"""

from __future__ import annotations

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
