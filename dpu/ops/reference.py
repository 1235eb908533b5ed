"""Run one op by its reference function or by a user's plugin.

The functions need only numpy, so the board can use them without the rest of the emulation.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.errors import DpuError, plugin_name, unknown_op
from tutelage.core.fixed_point import Array, Inputs
from tutelage.dpu.ops.registry import reference

Plugin = Callable[[dict[str, list[Array]], dict[str, Any]], Array]


def load_plugins(path: str | os.PathLike[str]) -> dict[str, Plugin]:
    """Return the functions ``op_<op_type>`` of a Python file, by the name after ``op_``.

    That name is the op type, or its `plugin_name` if the type is not a valid Python name.

    Raises
    ------
    DpuError
        The file cannot be read or run, or has no such function.
    """
    file = Path(path)
    if not file.is_file():
        raise DpuError(f"{path}: no such plugin file")
    spec = importlib.util.spec_from_file_location(f"plugin_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise DpuError(f"{path}: not a Python file (the name must end in .py)")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DpuError(f"{path}: {type(error).__name__}: {error}") from error
    plugins: dict[str, Plugin] = {}
    for name, value in vars(module).items():
        if name.startswith("op_") and callable(value):
            plugins[name[3:]] = value
    if not plugins:
        raise DpuError(f"{path}: has no function named op_<op_type>")
    return plugins


def run_op(op: Any, inputs: Inputs, plugins: dict[str, Plugin] | None = None) -> Array:
    """Run one op: by a plugin if there is one, else by the reference function for its type.

    The op may be an int8 op, which a compiler leaves to the CPU if the DPU does not support it.

    Raises
    ------
    UnknownOpError
        There is neither for the op's type.
    DpuError
        A plugin failed, or returned an array whose size differs from that in the file.
    """
    kind = op.get_type()
    plugin = plugin_for(kind, plugins or {})
    if plugin is not None:
        return _run_plugin(op, inputs, plugin)
    function = reference(kind)
    if function is None:
        raise unknown_op(op)
    return function(op, inputs)


def plugin_for(kind: str, plugins: dict[str, Plugin]) -> Plugin | None:
    """Return the plugin for an op type, by the type itself or its `plugin_name`, or None."""
    return plugins.get(kind) or plugins.get(plugin_name(kind))


def _run_plugin(op: Any, inputs: Inputs, plugin: Plugin) -> Array:
    floats = {name: [_as_declared(a) for a in arrays] for name, arrays in inputs.items()}
    try:
        result = np.asarray(plugin(floats, op.get_attrs()))
    except Exception as error:
        message = f"plugin for op {op.get_name()!r} ({op.get_type()}) failed"
        raise DpuError(f"{message}: {type(error).__name__}: {error}") from error
    tensor = op.get_output_tensor()
    if result.size != math.prod(tensor.dims):
        raise DpuError(
            f"plugin for op {op.get_name()!r} ({op.get_type()}) returned shape "
            f"{list(result.shape)}, expected {tensor.dims}"
        )
    dtype = np.int8 if tensor.dtype in ("xint8", "int8") else np.float32
    return result.reshape(tensor.dims).astype(dtype)


def _as_declared(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype == np.float64 else array
