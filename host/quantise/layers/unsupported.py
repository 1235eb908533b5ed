"""Operations that the DPU does not support, with the advice what to use instead."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import fx, nn

from tutelage.host.quantise.walker import Walker, advise, meta_shape, traces

_SMOOTH = (
    "use ReLU, ReLU6, LeakyReLU(26/256) or Hardswish, or have it replaced (replace: "
    "silu=hardswish, gelu=relu)"
)
_NORM = "use BatchNorm2d after a convolution"

advise(_SMOOTH, nn.SiLU, F.silu, nn.GELU, F.gelu, nn.Mish, nn.ELU, nn.SELU, nn.CELU, nn.Softplus)
advise("use Hardsigmoid, or have it replaced (replace: tanh=hardsigmoid)", nn.Tanh)
advise(
    "use Hardsigmoid, or have it replaced (replace: sigmoid=hardsigmoid); a sigmoid or softmax at "
    "the end of the network is allowed, and runs on the CPU",
    nn.Sigmoid, F.sigmoid, torch.sigmoid, "sigmoid", "sigmoid_",
)  # fmt: skip
advise(
    "return logits; the softmax runs on the CPU",
    nn.Softmax, F.softmax, torch.softmax, "softmax",
)  # fmt: skip
advise(
    "return its operand, and compute it in the application, after the network",
    torch.argmax, "argmax", torch.topk, "topk", torch.argsort, "argsort", F.normalize,
)  # fmt: skip
advise(_NORM, nn.LayerNorm, F.layer_norm, nn.GroupNorm, F.group_norm)


@traces(torch.permute, "permute", torch.transpose, "transpose", torch.movedim, "movedim")
def permutation(walk: Walker, node: fx.Node) -> None:
    """Refuse a permutation between two layers, or the LayerNorm after it, the usual reason."""
    for reader in node.users:
        if _is_layer_norm(walk, reader):
            raise walk.error(reader, "a LayerNorm over channels last", _NORM)
    what = f"a permutation to {meta_shape(node)} between two layers"
    raise walk.error(node, what, "keep maps as (N, C, H, W)")


def _is_layer_norm(walk: Walker, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(walk.module_of(node), nn.LayerNorm)
    return node.target is F.layer_norm
