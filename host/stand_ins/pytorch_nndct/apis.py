"""Emulation of `pytorch_nndct.apis`."""

from __future__ import annotations

from typing import Any

from tutelage.core.errors import not_emulated
from tutelage.host.vai_q_pytorch.inspector import Inspector
from tutelage.host.vai_q_pytorch.qat import QatProcessor
from tutelage.host.vai_q_pytorch.quantizer import TorchQuantizer as torch_quantizer
from tutelage.host.vai_q_pytorch.quantizer import dump_xmodel

__all__ = ["Inspector", "QatProcessor", "dump_xmodel", "torch_quantizer"]


def __getattr__(name: str) -> Any:
    raise not_emulated("pytorch_nndct.apis", name)
