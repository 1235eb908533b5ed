"""All reasons why the quantiser refuses a network, not only the first."""

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
    """A reason why a network is refused.

    Attributes
    ----------
    text : the reason, in one line
    at : the module or function concerned; "" for the whole network
    file, line : the place in the user's code; "" and 0 if it is not known
    remedy : what to use instead; "" if the text says so
    """

    text: str
    at: str = ""
    file: str = ""
    line: int = 0
    remedy: str = ""


def refusals(
    network: nn.Module, input_shape: InputShape, replace: Mapping[str, str] | None = None
) -> list[Refused]:
    """Return the reasons why a network is refused, in the order of execution; [] if it is accepted.

    Operations after a refused one are checked as far as their shapes are known.

    Parameters
    ----------
    input_shape : (C, H, W) of an image, or one shape for each input
    replace : see `tutelage.host.quantise.trace.trace`
    """
    errors: list[UnsupportedOp] = []
    try:
        walker = _Collector(normalised_graph(network, input_shape, replace).module, errors)
        walker.walk()
    except UnsupportedOp as error:
        # After a refused operation, a later error may only be its consequence.
        errors = errors or [error]
    found = [
        Refused(error.what, error.at, error.file, error.line, error.remedy) for error in errors
    ]
    return list(dict.fromkeys(found))


class _Collector(Walker):
    """A walker that collects refused operations and continues after them."""

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
            return self.layers  # a handler could not use the placeholder of a refused operation

    def _operation(self, node: fx.Node) -> None:
        try:
            super()._operation(node)
        except UnsupportedOp as error:
            self.found.append(error)
            with suppress(LookupError):  # the shape of its result is not known
                inputs = [self.origin[n] for n in node.all_input_nodes if n in self.origin]
                self.add(node, _Refused(tuple(inputs), shape_of(node)))


class _Refused(Layer):
    """Placeholder for a refused operation, so that the walk can continue."""

    op_type = "conv2d"
    takes_activation = has_weights = True
