"""The layers that a quantised student is made of, a file for each family.

A file has everything that is known of its layers: their arithmetic, what the DPU's shifts ask of
their fix points, their op in an .xmodel, their operation for the prediction of latency, the ONNX
form of that op, and the PyTorch modules and functions that become the layer. All files of the
folder are imported here, so that a new layer is a new file.
"""

from __future__ import annotations

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
