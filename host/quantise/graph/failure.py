"""Why a network fails on its inputs: the layer, and what it takes and gets."""

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
"""Layers of a fixed input: class, attribute, axis of the tensor, and what the number counts."""

_NOT_THE_USERS = (*NOT_THE_USERS, str(Path(__file__).parents[2]))
"""Folders of PyTorch, and of host/ with all that calls a network."""

_MOST_TEXT = 200
"""Characters of another program's error."""


@dataclass(frozen=True)
class Failure:
    """Where and why a network fails.

    Attributes
    ----------
    text : what is wrong, in one line
    at : the layer's name; "" where it is not within one
    file, line : of the user's code; "" and 0 where they are not known
    is_misfit : the inputs have a shape that the network was not made for
    """

    text: str
    at: str = ""
    file: str = ""
    line: int = 0
    is_misfit: bool = False

    @property
    def place(self) -> str:
        """The layer and the user's line, to be put behind the text; "" where nothing is known."""
        at = f" at {self.at}" if self.at else ""
        return at + (f' (File "{self.file}", line {self.line})' if self.file else "")


def failure(network: nn.Module, inputs: Sequence[Tensor], error: Exception) -> Failure:
    """Say why a network raised an error when it was called with these inputs.

    The network is called once more, to see how far it gets.
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
    is_misfit = isinstance(error, RuntimeError | ValueError)  # PyTorch's own, of shapes
    return Failure(f"{kind} fails on a tensor of {size}: {text}", name, file, line, is_misfit)


def users_line(error: BaseException) -> tuple[str, int]:
    """Return the file and the line of the user's that an error comes from; "" and 0 if unknown."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_NOT_THE_USERS)]
    if not theirs or theirs[-1].filename.startswith("<"):
        return "", 0
    return theirs[-1].filename, theirs[-1].lineno or 0


def _innermost(
    network: nn.Module, inputs: Sequence[Tensor]
) -> tuple[str, nn.Module, tuple[int, ...]] | None:
    """Return the layer in which a network fails, with the shape of its first tensor.

    None where it does not fail within a layer, but in the network's own forward.
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
    except Exception:  # the error that is to be explained
        module, given = entered[-1] if entered else (network, ())
        tensor = next((x for x in given if isinstance(x, Tensor)), None)
        if not names[module] or tensor is None:
            return None
        return names[module], module, tuple(tensor.shape)
    finally:
        for hook in hooks:
            hook.remove()
