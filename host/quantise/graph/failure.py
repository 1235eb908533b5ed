"""Diagnosis of a network that fails on its inputs: the layer, and the input that it expects."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.errors import first_line
from tutelage.core.text import counted, shown
from tutelage.host.quantise.graph.tracer import NOT_THE_USERS

_TAKES = (
    (nn.modules.conv._ConvNd, "in_channels", 1, "channel"),
    (nn.modules.batchnorm._NormBase, "num_features", 1, "channel"),
    (nn.Linear, "in_features", -1, "value"),
)
"""Layers with an input of fixed size: class, attribute, axis of the tensor, unit of the size."""

_NOT_THE_USERS = (*NOT_THE_USERS, str(Path(__file__).parents[2]))
"""Directories of PyTorch and of host/, whose code calls networks."""

_MOST_TEXT = 200
"""Most characters of an exception's message that are shown."""


@dataclass(frozen=True)
class Failure:
    """The place and the reason of a network's failure.

    Attributes
    ----------
    text : the reason, in one line
    at : name of the layer; "" if the failure is not within a layer
    file, line : the place in the user's code; "" and 0 if it is not known
    is_misfit : whether the network was not made for inputs of this shape
    """

    text: str
    at: str = ""
    file: str = ""
    line: int = 0
    is_misfit: bool = False

    @property
    def place(self) -> str:
        """The layer and the user's line, to append to the text; "" if neither is known."""
        at = f" at {self.at}" if self.at else ""
        return at + (f' (File "{self.file}", line {self.line})' if self.file else "")


def failure(network: nn.Module, inputs: Sequence[Tensor], error: Exception) -> Failure:
    """Find out why a network raised an error when it was called with these inputs.

    The network is called again, to find the layer that fails.

    Parameters
    ----------
    network : the network
    inputs : the tensors that it was called with
    error : the exception that it raised
    """
    file, line = users_line(error)
    text = shown(first_line(error), _MOST_TEXT)
    plain = Failure(f"{type(error).__name__}: {text}", "", file, line)
    layer = _innermost(network, inputs)
    if layer is None:
        return plain
    name, module, shape = layer
    kind = type(module).__name__
    for cls, attribute, axis, unit in _TAKES:
        if not isinstance(module, cls) or len(shape) < 2:
            continue
        wanted = int(getattr(module, attribute))
        if shape[axis] != wanted:
            found = f"{kind} takes {counted(wanted, unit)} and gets {shape[axis]:,}"
            return Failure(found, name, file, line, is_misfit=True)
    size = "x".join(map(str, shape[1:]))
    # PyTorch raises these for wrong shapes.
    is_misfit = isinstance(error, RuntimeError | ValueError)
    return Failure(f"{kind} fails on a tensor of {size}: {text}", name, file, line, is_misfit)


def users_line(error: BaseException) -> tuple[str, int]:
    """Return the file and line of the user's code that an error comes from; "" and 0 if unknown."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_NOT_THE_USERS)]
    if not theirs or theirs[-1].filename.startswith("<"):
        return "", 0
    return theirs[-1].filename, theirs[-1].lineno or 0


def _innermost(
    network: nn.Module, inputs: Sequence[Tensor]
) -> tuple[str, nn.Module, tuple[int, ...]] | None:
    """Return the name and the layer in which a network fails, and the shape of its first tensor.

    Return None if the network does not fail, or fails outside its layers.
    """
    if isinstance(network, torch.jit.ScriptModule):
        return None
    names = {module: name for name, module in network.named_modules()}
    entered: list[tuple[nn.Module, tuple[Any, ...]]] = []

    def enter(module: nn.Module, given: tuple[Any, ...]) -> None:
        entered.append((module, given))

    def leave(*_: Any) -> None:
        entered.pop()

    hooks = [module.register_forward_pre_hook(enter) for module in names]
    hooks += [module.register_forward_hook(leave) for module in names]
    try:
        with torch.no_grad():
            network(*(x.clone() for x in inputs))
        return None
    except Exception:  # the error to diagnose
        module, given = entered[-1] if entered else (network, ())
        tensor = next((x for x in given if isinstance(x, Tensor)), None)
        if not names[module] or tensor is None:
            return None
        return names[module], module, tuple(tensor.shape)
    finally:
        for hook in hooks:
            hook.remove()
