"""Operations that the DPU does not have, and what to use instead."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tutelage.host.quantise.walker import advise

_SMOOTH = (
    "use ReLU, ReLU6, LeakyReLU(26/256) or Hardswish, or have it exchanged (replace: "
    "silu=hardswish, gelu=relu)"
)
_NORM = "use BatchNorm2d behind a convolution"

advise(_SMOOTH, nn.SiLU, F.silu, nn.GELU, F.gelu, nn.Mish, nn.ELU, nn.SELU, nn.CELU, nn.Softplus)
advise("use Hardsigmoid, or have it exchanged (replace: tanh=hardsigmoid)", nn.Tanh)
advise(
    "use Hardsigmoid, or have it exchanged (replace: sigmoid=hardsigmoid); a sigmoid or softmax at the end belongs on the CPU",
    nn.Sigmoid, F.sigmoid, torch.sigmoid, "sigmoid", "sigmoid_",
)  # fmt: skip
advise(
    "return logits; the softmax runs on the CPU",
    nn.Softmax, F.softmax, torch.softmax, "softmax",
)  # fmt: skip
advise(_NORM, nn.LayerNorm, F.layer_norm, nn.GroupNorm, F.group_norm)
advise(
    "keep maps as (N, C, H, W); a LayerNorm over channels last has no DPU form: " + _NORM,
    torch.permute, "permute", torch.transpose, "transpose",
)  # fmt: skip
