"""The images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor, fx

from tutelage.dpu.predict.operations import Operation
from tutelage.host.quantise.layers.base import Layer
from tutelage.host.quantise.walker import PLACEHOLDER, Walker, shape_of, traces

if TYPE_CHECKING:
    from tutelage.dpu.compiler.quantised import QuantisedModel
    from tutelage.dpu.xmodel.op import Op
    from tutelage.host.quantise.layers.convolution import Deployed


class Input(Layer):
    """The images, float [N, C, H, W]."""

    op_type = "input"

    def forward(self, images: Tensor) -> Tensor:
        return images

    def can_be_negative(self, inputs: Iterable[bool]) -> bool:
        return True

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        return model.input(self.name, (1, *self.output_shape), fix_point)

    def operation(self, sources: tuple[int, ...]) -> Operation:
        return replace(super().operation(sources), on_dpu=False)


@traces(PLACEHOLDER)
def images(walk: Walker, node: fx.Node) -> None:
    """Add the network's one input."""
    if walk.layers:
        raise walk.error(node, "a second input", "give the network one image input")
    walk.add(node, Input((), shape_of(node)), "input")
