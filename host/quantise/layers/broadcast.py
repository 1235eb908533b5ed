"""Broadcasting of small maps over larger ones, for sums, products and `expand`."""

from __future__ import annotations

import torch
from torch import fx, nn

from tutelage.host.quantise.layers.convolution import Conv
from tutelage.host.quantise.layers.upsample import Upsample
from tutelage.host.quantise.walker import Walker, meta_shape, shape_of, traces

_ADVICE = "use equal shapes, one value per channel (C, 1, 1), or one value per pixel (1, H, W)"


def spread_operands(
    walk: Walker, node: fx.Node, what: str, factors: bool = False
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Broadcast the operands of a sum or product.

    Parameters
    ----------
    what : name of the operation, for error messages
    factors : whether an operand (C, 1, 1) may be left unchanged, since the DPU's product takes it

    Returns
    -------
    The names of the layers with the broadcast operands, and the shape of the result.

    Raises
    ------
    UnsupportedOp : the shapes cannot be combined on the DPU
    """
    names, shapes = walk.operands(node)
    full, own = tuple(meta_shape(node)[1:]), [walk.layers[name].shape for name in names]
    refusal = walk.error(node, f"{what} of {shapes[0]} and {shapes[1]}", _ADVICE)
    if len(full) != 3:  # vectors, or maps flattened in the same way
        if shapes[0] != shapes[1] or own[0] != own[1]:
            raise refusal
        return names, own[0]
    if any(len(shape) != 3 for shape in shapes) or full not in shapes:
        raise refusal
    if not (factors and (full[0], 1, 1) in shapes):
        spread = (_spread(walk, node, n, shape, full, what)
                  for n, shape in zip(names, own, strict=True))  # fmt: skip
        names = tuple(spread)
    return names, full


@traces("expand", "expand_as", torch.broadcast_to, "broadcast_to")
def expand(walk: Walker, node: fx.Node) -> None:
    """Broadcast a map, unless all its readers are products that do so themselves."""
    source = walk.layers[walk.source(node)]
    full = shape_of(node)
    users = [handled_product(user) for user in node.users]
    if source.shape == full or (source.shape == (full[0], 1, 1) and all(users)):
        walk.alias(node)
        return
    walk.origin[node] = _spread(walk, node, source.name, source.shape, full, "an expansion")


def handled_product(node: fx.Node) -> bool:
    """Return whether a node is a product, which broadcasts its operands itself."""
    return node.target in PRODUCTS


PRODUCTS: set[object] = set()
"""Functions and methods that compute products, filled in by `product.py`."""


def _spread(
    walk: Walker, node: fx.Node, name: str, shape: tuple[int, ...], full: tuple[int, ...], what: str
) -> str:
    """Return the name of the layer with a value broadcast to the shape `full`."""
    if shape == full:
        return name
    if len(full) != 3 or len(shape) != 3:
        raise walk.error(node, f"{what} of {shape} over {full}", _ADVICE)
    if shape[0] == 1 != full[0]:  # to all channels, by a convolution with weights 1
        conv = nn.Conv2d(1, full[0], 1, bias=False)
        nn.init.ones_(conv.requires_grad_(False).weight)
        shape = (full[0], *shape[1:])
        name = walk.insert(f"{node.name}/channels", Conv(conv, (name,), shape))
    if shape[0] != full[0] or any(size not in (1, f) for size, f in zip(shape[1:], full[1:],
                                                                       strict=True)):  # fmt: skip
        raise walk.error(node, f"{what} of {shape} over {full}", _ADVICE)
    if shape == full:
        return name
    factors = full[1] // shape[1], full[2] // shape[2]
    return walk.insert(f"{node.name}/spread", Upsample((name,), full, factors))
