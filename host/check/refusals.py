"""Everything of a network that the quantiser refuses, not only the first."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from torch import fx, nn

from tutelage.host.quantise.layers.base import Layer
from tutelage.host.quantise.trace import normalised_graph
from tutelage.host.quantise.walker import InputShape, UnsupportedOp, Walker, shape_of


@dataclass(frozen=True)
class Refused:
    """Something that the DPU cannot take.

    Attributes
    ----------
    text : what it is, in one line
    at : the module or function that has it; "" for the whole network
    file, line : of the user's code; "" and 0 where they are not known
    remedy : what to use instead; "" where the text alone says it
    """

    text: str
    at: str = ""
    file: str = ""
    line: int = 0
    remedy: str = ""


def refusals(
    network: nn.Module, input_shape: InputShape, replace: Mapping[str, str] | None = None
) -> list[Refused]:
    """Return what of a network is refused, in the order of its forward; [] where nothing is.

    What comes behind something refused is looked at as far as its shapes are known.

    Parameters
    ----------
    replace : see `trace`
    """
    errors: list[UnsupportedOp] = []
    try:
        walker = _Collector(normalised_graph(network, input_shape, replace).module, errors)
        walker.walk()
    except UnsupportedOp as error:
        # Behind a refused part whatever the walk still says may be its consequence.
        errors = errors or [error]
    found = [
        Refused(error.what, error.at, error.file, error.line, error.remedy) for error in errors
    ]
    return list(dict.fromkeys(found))


class _Collector(Walker):
    """A walk that goes on behind what is refused."""

    def __init__(self, module: fx.GraphModule, found: list[UnsupportedOp]) -> None:
        super().__init__(module)
        self.found = found

    def walk(self) -> dict[str, Layer]:
        try:
            return super().walk()
        except UnsupportedOp:
            raise
        except Exception:
            if not self.found:
                raise
            return self.layers  # a handler met what stands in for a refused operation

    def _operation(self, node: fx.Node) -> None:
        try:
            super()._operation(node)
        except UnsupportedOp as error:
            self.found.append(error)
            with suppress(LookupError):  # it has no tensor's shape
                inputs = [self.origin[n] for n in node.all_input_nodes if n in self.origin]
                self.add(node, _Refused(tuple(inputs), shape_of(node)))


class _Refused(Layer):
    """Replaces a refused operation, so that the walk can continue."""

    op_type = "conv2d"
    takes_activation = has_weights = True
