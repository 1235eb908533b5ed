"""Operations that do nothing in evaluation mode, and become no layer."""

from __future__ import annotations

import torch.nn.functional as F
from torch import fx, nn

from tutelage.host.quantise.walker import Walker, traces


@traces(nn.Dropout, nn.Dropout2d, nn.Identity, F.dropout, "contiguous")
def identity(walk: Walker, node: fx.Node) -> None:
    """Use the operand as the value."""
    walk.alias(node)
