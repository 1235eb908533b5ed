"""The parts of a compiled model: its tensors, and the stages that run one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.core.errors import TutelageError, first_line


class ModelError(TutelageError):
    """A model that cannot be loaded or run; the text is one line for the user."""


@dataclass(frozen=True)
class TensorInfo:
    """A model's input or output.

    Attributes
    ----------
    name : the tensor's name in the file
    dims : its shape, NHWC for images, batch first
    fix_point : int8 value q means q * 2**-fix_point; None for a float tensor
    """

    name: str
    dims: tuple[int, ...]
    fix_point: int | None


@dataclass(frozen=True)
class DpuStage:
    """A DPU subgraph, and the names under which a runner may list its tensors.

    The graph knows the tensors around `upload` and `download` by two names each; which of
    them a runner reports differs between releases of VART.
    """

    subgraph: Any
    inputs: dict[str, str]  # name in a runner -> name in the graph
    outputs: dict[str, str]


@dataclass(frozen=True)
class CpuStage:
    ops: tuple[Any, ...]  # in topological order


def with_path(path: Path, error: Exception) -> str:
    """Return an error's first line, after the path unless it names it itself."""
    text = first_line(error)
    return text if str(path) in text else f"{path}: {text}"
