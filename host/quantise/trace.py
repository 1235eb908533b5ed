"""Any nn.Module -> the DPU's layers, by torch.fx.

Batch norms join the convolution before them (one with none before it becomes a
1x1 depthwise convolution), ReLUs join the convolution or addition before them,
linear layers become convolutions over the whole map, dropout disappears. What
the DPU cannot take is an UnsupportedOp that says where it is and what to do.
What becomes which layer is written with the layers (host/quantise/layers).
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from tutelage.core.errors import first_line
from tutelage.host.quantise.layers.base import Layer
from tutelage.host.quantise.walker import UnsupportedOp, Walker, is_leaf


def trace(network: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, Layer]:
    """Return the layers of `network` for images [N, *input_shape], in an order they can run in.

    Weights and norms are copies; the network stays as it is.

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
    return Walker(module).walk()


def _module(network: nn.Module, input_shape: tuple[int, int, int]) -> fx.GraphModule:
    """The fx graph with shapes, checked on one image against the network itself."""
    tracer = _Tracer()
    tracer.record_stack_traces = True
    module = fx.GraphModule(network, tracer.trace(network))
    parameter = next(network.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, *input_shape, generator=generator).to(parameter)
    with torch.no_grad():
        traced = ShapeProp(module).propagate(image.clone())
        computed = network(image)
    # fx takes `x += y` for `x = x + y`, which is another value where x has a second name.
    if isinstance(computed, Tensor) and not torch.allclose(
        traced, computed, 1e-3, 1e-4, equal_nan=True
    ):
        raise UnsupportedOp(
            f"the trace of {type(network).__name__} computes something else than the network: "
            "it overwrites (+=) a value that is read again, or draws random numbers"
        )
    return module


class _Tracer(fx.Tracer):
    """fx looks into all modules but torch's own, and those derived from what a handler takes."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_leaf(m) or super().is_leaf_module(m, module_qualified_name)
