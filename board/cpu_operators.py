"""The operators of a compiled model that run on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.board.model_parts import CpuStage, DpuStage, ModelError, with_path
from tutelage.core.fixed_point import dequantise, quantise_int8

_CONVERSIONS = {"fix2float", "float2fix", "const"}

Environment = dict[str, np.ndarray]  # tensor name -> current value
Operation = Callable[[Environment], np.ndarray]  # computes its output from the environment
CpuOperator = Callable[[dict[str, list[np.ndarray]], dict[str, Any]], np.ndarray]


class CpuOperators:
    """The CPU operators of one model, shared by its runners and read-only after loading.

    Parameters
    ----------
    path : the .xmodel file, for messages
    stages : stages of the model
    plugins : Python file with functions op_<type>(inputs, attrs); None without one

    Raises
    ------
    ModelError
        The reference functions or the plugin cannot be imported, or a constant is invalid.
    """

    def __init__(
        self,
        path: Path,
        stages: Sequence[DpuStage | CpuStage],
        plugins: str | Path | None,
    ) -> None:
        ops = [op for stage in stages if isinstance(stage, CpuStage) for op in stage.ops]
        self._constants = {op.get_name(): _constant(op) for op in ops if op.get_type() == "const"}
        self._reference: Any = None
        self._plugins: dict[str, CpuOperator] = {}
        foreign = {op.get_type() for op in ops} - _CONVERSIONS
        if foreign:
            self._reference = _import_reference(path, foreign)
            try:
                self._plugins = self._reference.load_plugins(plugins) if plugins else {}
            except Exception as error:
                raise ModelError(with_path(Path(str(plugins)), error)) from error

    def prepared(self, op: Any) -> Operation:
        """Return a function that computes an op, with all queries to the graph already made."""
        kind = op.get_type()
        if kind == "const":
            constant = self._constants[op.get_name()]
            return lambda values: constant
        sources = {
            argument: [source.get_output_tensor().name for source in sources]
            for argument, sources in op.get_input_ops().items()
        }
        if kind in ("fix2float", "float2fix"):
            (source,) = sources["input"]
            fix_point = int(op.get_attr("fix_point"))
            convert = dequantise if kind == "fix2float" else quantise_int8
            return lambda values: convert(values[source], fix_point)

        def computed(values: Environment) -> np.ndarray:
            inputs = {name: [values[each] for each in names] for name, names in sources.items()}
            return np.asarray(self._reference.run_op(op, inputs, self._plugins))

        return computed


def _import_reference(path: Path, kinds: set[str]) -> Any:
    """Import tutelage.dpu.ops.reference, which only models with such ops need."""
    try:
        return import_module("tutelage.dpu.ops.reference")
    except ImportError as error:
        needs = ", ".join(sorted(kinds))
        raise ModelError(f"{path}: needs {needs} on the CPU, but: {error}") from error


def _constant(op: Any) -> np.ndarray:
    """Return the value of a `const` op, whose attributes are raw bytes, a type and a shape."""
    data = op.get_attr("data")
    raw = data if isinstance(data, bytes) else np.asarray(data).astype(np.int8).tobytes()
    types = {"FLOAT32": np.float32, "INT32": np.int32, "INT8": np.int8, "XINT8": np.int8}
    kind = str(op.get_attr("data_type")).upper()
    dims = op.get_output_tensor().dims
    try:
        return np.asarray(np.frombuffer(raw, types[kind]).reshape(dims))
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"constant {op.get_name()}: {len(raw)} bytes of {kind} do not fill {list(dims)}"
        ) from error
