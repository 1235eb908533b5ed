"""Any nn.Module -> the DPU's layers, by torch.fx.

Batch norms join the convolution before them (one with none before it becomes a
1x1 depthwise convolution), ReLUs join the convolution or addition before them,
linear layers become convolutions over the whole map, dropout disappears. What
the DPU cannot take is an UnsupportedOp that says where it is and what to do.
What becomes which layer is written with the layers (host/quantise/layers).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from tutelage.core.errors import first_line
from tutelage.host.quantise.layers.base import Layer
from tutelage.host.quantise.walker import (
    InputShape,
    UnsupportedOp,
    Walker,
    input_shapes,
    is_leaf,
)


def trace(
    network: nn.Module, input_shape: InputShape, walker: type[Walker] = Walker
) -> dict[str, Layer]:
    """Return the layers of `network` for images [N, *input_shape], in an order they can run in.

    Weights and norms are copies; the network stays as it is.

    Parameters
    ----------
    input_shape : (C, H, W), or one for each input of a network with several
    walker : what makes the layers

    Raises
    ------
    UnsupportedOp : an operation the DPU cannot take, or control flow that fx cannot follow
    """
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        module = _module(network, input_shape)
    except UnsupportedOp:
        raise
    except (ValueError, TypeError, RuntimeError) as error:  # fx's TraceError is a ValueError
        raise UnsupportedOp(
            f"{type(network).__name__} cannot be traced ({first_line(error)}); "
            "its forward must not branch on values, only on constants"
        ) from error
    finally:
        for part, mode in training.items():
            part.training = mode
    return walker(module).walk()


def _module(network: nn.Module, input_shape: InputShape) -> fx.GraphModule:
    """The fx graph with shapes, checked on one image against the network itself."""
    tracer = _Tracer()
    tracer.record_stack_traces = True
    module = fx.GraphModule(network, tracer.trace(network))
    parameter = next(network.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    shapes = input_shapes(input_shape)
    images = [torch.randn(1, *s, generator=generator).to(parameter) for s in shapes]
    with torch.no_grad():
        traced = ShapeProp(module).propagate(*(image.clone() for image in images))
        computed = network(*images)
    # fx takes `x += y` for `x = x + y`, which is another value where x has a second name.
    if not all(
        torch.allclose(found, wanted, 1e-3, 1e-4, equal_nan=True)
        for found, wanted in zip(_tensors(traced), _tensors(computed), strict=True)
    ):
        raise UnsupportedOp(
            f"the trace of {type(network).__name__} computes something else than the network: "
            "it overwrites (+=) a value that is read again, or draws random numbers"
        )
    return module


def _tensors(values: Any) -> list[Tensor]:
    """The tensors that a network returns."""
    several = values if isinstance(values, tuple | list) else [values]
    return [value for value in several if isinstance(value, Tensor)]


class _Tracer(fx.Tracer):
    """fx looks into all modules but torch's own, and those derived from what a handler takes."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_leaf(m) or super().is_leaf_module(m, module_qualified_name)
