"""The networks' inputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor, fx

from tutelage.host.quantise.layers.base import Layer
from tutelage.host.quantise.walker import PLACEHOLDER, Walker, meta_shape, shape_of, traces

if TYPE_CHECKING:
    from tutelage.dpu.compiler.quantised import QuantisedModel
    from tutelage.dpu.xmodel.op import Op
    from tutelage.host.quantise.layers.convolution import Deployed


class Input(Layer):
    """Images or other maps, float [N, C, H, W]."""

    op_type = "input"

    def forward(self, images: Tensor) -> Tensor:
        return images

    def can_be_negative(self, inputs: Iterable[bool]) -> bool:
        return True

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        return model.input(self.name, (1, *self.output_shape), fix_point)


@traces(PLACEHOLDER)
def images(walk: Walker, node: fx.Node) -> None:
    """Add an input of the network."""
    if len(meta_shape(node)) != 4:
        what = f"an input of shape {meta_shape(node)}"
        raise walk.error(node, what, "give the network maps (N, C, H, W)")
    walk.add(node, Input((), shape_of(node)), "input")
