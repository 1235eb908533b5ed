"""Emulation of `pytorch_nndct` (vai_q_pytorch 3.5), AMD's quantiser for the DPU, in PyTorch."""

from __future__ import annotations

from typing import Any

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    from tutelage.core.commands import installation

    raise ModuleNotFoundError(
        f"emulating pytorch_nndct needs PyTorch: {installation('host')}", name=error.name
    ) from error

from tutelage.core.errors import not_emulated

from . import apis, nn, utils

Inspector, QatProcessor = apis.Inspector, apis.QatProcessor
dump_xmodel, torch_quantizer = apis.dump_xmodel, apis.torch_quantizer

__all__ = [
    "Inspector", "QatProcessor", "apis", "dump_xmodel", "nn", "torch_quantizer", "utils",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    raise not_emulated("pytorch_nndct", name)
