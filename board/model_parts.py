"""The parts of a compiled model: its tensors and its stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.core.errors import TutelageError, first_line


class ModelError(TutelageError):
    """A model cannot be loaded or run; the message is one line."""


@dataclass(frozen=True)
class TensorInfo:
    """A model's input or output.

    Attributes
    ----------
    name : the tensor's name in the file
    dims : its shape, NHWC for images, batch first
    fix_point : an int8 value q represents q * 2**-fix_point; None for a float tensor
    """

    name: str
    dims: tuple[int, ...]
    fix_point: int | None


@dataclass(frozen=True)
class DpuStage:
    """A DPU subgraph, and the names under which a runner may list its tensors.

    The tensors around `upload` and `download` have two names in the graph; releases of VART differ
    in the one that a runner reports.

    Attributes
    ----------
    subgraph : the xir.Subgraph
    inputs, outputs : name in a runner -> name in the graph
    """

    subgraph: Any
    inputs: dict[str, str]
    outputs: dict[str, str]


@dataclass(frozen=True)
class CpuStage:
    """A CPU subgraph: its xir.Op objects in topological order."""

    ops: tuple[Any, ...]


def with_path(path: Path, error: Exception) -> str:
    """Return an error's first line, preceded by the path unless it contains it."""
    text = first_line(error)
    return text if str(path) in text else f"{path}: {text}"
