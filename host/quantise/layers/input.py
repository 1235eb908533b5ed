"""Inputs of networks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor, fx

from tutelage.host.quantise.graph.modules import RowMap
from tutelage.host.quantise.layers.base import Layer
from tutelage.host.quantise.walker import PLACEHOLDER, Walker, meta_shape, traces

if TYPE_CHECKING:
    from tutelage.dpu.compiler.quantised import QuantisedModel
    from tutelage.dpu.xmodel.op import Op
    from tutelage.host.quantise.layers.convolution import Deployed


class Input(Layer):
    """An input: images or other maps, float [N, C, H, W], or sequences [N, C, L]."""

    op_type = "input"

    def forward(self, images: Tensor) -> Tensor:
        return images if images.dim() == 4 else images.unsqueeze(2)

    def can_be_negative(self, inputs: Iterable[bool]) -> bool:
        return True

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        return model.input(self.name, (1, *self.output_shape), fix_point)


@traces(PLACEHOLDER)
def images(walk: Walker, node: fx.Node) -> None:
    """Add an input of the network."""
    if len(meta_shape(node)) not in (3, 4):
        what = f"an input of shape {meta_shape(node)}"
        raise walk.error(node, what, "use maps (N, C, H, W) or sequences (N, C, L)")
    channels, *rows = meta_shape(node)[1:]
    walk.add(node, Input((), (channels, *(1, *rows)[-2:])), "input")


@traces(RowMap)
def row(walk: Walker, node: fx.Node) -> None:
    """Use the input, which has the shape of a map already."""
    walk.alias(node)
