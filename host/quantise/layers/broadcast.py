"""Small maps spread over larger ones: for sums and products, and by `expand`."""

from __future__ import annotations

import torch
from torch import fx, nn

from tutelage.host.quantise.layers.convolution import Conv
from tutelage.host.quantise.layers.upsample import Upsample
from tutelage.host.quantise.walker import Walker, meta_shape, shape_of, traces

_ADVICE = "use equal shapes, one value for each channel (C, 1, 1), or one for each pixel (1, H, W)"


def spread_operands(
    walk: Walker, node: fx.Node, what: str, factors: bool = False
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the layers of a sum's or product's operands, spread over each other, and its shape.

    Parameters
    ----------
    what : the operation, for a refusal
    factors : one value for each channel may stay as it is, which a product on the DPU takes

    Raises
    ------
    UnsupportedOp : the shapes do not go together on the DPU
    """
    names, shapes = walk.operands(node)
    full, own = tuple(meta_shape(node)[1:]), [walk.layers[name].shape for name in names]
    refusal = walk.error(node, f"{what} of {shapes[0]} and {shapes[1]}", _ADVICE)
    if len(full) != 3:  # vectors, or maps that were flattened alike
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
    """Spread a map; products take one value for each channel as it is."""
    source = walk.layers[walk.source(node)]
    full = shape_of(node)
    users = [handled_product(user) for user in node.users]
    if source.shape == full or (source.shape == (full[0], 1, 1) and all(users)):
        walk.alias(node)
        return
    walk.origin[node] = _spread(walk, node, source.name, source.shape, full, "an expansion")


def handled_product(node: fx.Node) -> bool:
    """Whether a node is a product, which spreads its operands itself."""
    return node.target in PRODUCTS


PRODUCTS: set[object] = set()
"""The functions and methods that are products; `product.py` adds its own."""


def _spread(
    walk: Walker, node: fx.Node, name: str, shape: tuple[int, ...], full: tuple[int, ...], what: str
) -> str:
    """Return the layer with a value spread over a map of shape `full`."""
    if shape == full:
        return name
    if len(full) != 3 or len(shape) != 3:
        raise walk.error(node, f"{what} of {shape} over {full}", _ADVICE)
    if shape[0] == 1 != full[0]:  # to all channels: a convolution by ones
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
