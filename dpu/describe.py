"""What an .xmodel holds, as plain data and as lines for a reader: `python -m dpu inspect`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from dpu import cpu_ops, fix_ops
from dpu.errors import DpuError, contradictions
from dpu.program import CONSTANTS, INPUTS, graph_outputs
from dpu.xir import Graph, Op, Subgraph, Tensor


def describe(path: Path) -> dict[str, Any]:
    """Everything that `inspect` tells about the file, ready for JSON.

    Sizes are bytes; workloads are the compiler's own figures, in operations
    (a multiplication and an addition are two).

    Raises
    ------
    XmodelError
        The file is no usable .xmodel.
    """
    graph = Graph.deserialize(path)
    with contradictions(str(path)):
        return _describe(path, graph)


def _describe(path: Path, graph: Graph) -> dict[str, Any]:
    order = graph.toposort()
    root = graph.get_root_subgraph()
    children = root.toposort_child_subgraph()
    kinds = {op.get_type() for op in order}
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "name": graph.get_name(),
        "kind": "compiled" if children else "quantised",
        "inputs": [_tensor(op.get_output_tensor()) for op in order if op.get_type() in INPUTS],
        "outputs": [_tensor(op.get_output_tensor()) for op in graph_outputs(graph)],
        "parameters": sum(_elements(op) for op in order if op.get_type().startswith("const")),
        "subgraphs": [_subgraph(child) for child in children],
        "ops": [_op(op) for op in order],
        "not_built_in": sorted(kinds - {*INPUTS, *CONSTANTS} - set(fix_ops.OPS) - set(cpu_ops.OPS)),
    }


def _elements(op: Op) -> int:
    return op.get_output_tensor().get_element_num()


def _value(holder: Any, name: str) -> Any:
    return holder.get_attr(name) if holder.has_attr(name) else None


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "dims": tensor.dims,
        "dtype": tensor.dtype,
        "fix_point": _value(tensor, "fix_point"),
    }


def _op(op: Op) -> dict[str, Any]:
    tensor = op.get_output_tensor()
    return {
        "name": op.get_name(),
        "type": op.get_type(),
        "device": _value(op, "device"),
        "dims": tensor.dims,
        "dtype": tensor.dtype,
        "fix_point": _value(tensor, "fix_point"),
        "shift": _shift(op),
        "inputs": [s.get_name() for ops in op.get_input_ops().values() for s in ops],
        "workload": _value(op, "workload"),
        "workload_on_arch": _value(op, "workload_on_arch"),
    }


def _shift(op: Op) -> int | None:
    """The right shift from an int8 convolution's accumulator to its output."""
    if not op.get_type().endswith("-fix") or "weights" not in op.get_input_ops():
        return None
    try:
        acc = fix_ops.input_fix_point(op) + fix_ops.input_fix_point(op, "weights")
        return acc - fix_ops.fix_point(op)
    except DpuError:
        return None


def _subgraph(part: Subgraph) -> dict[str, Any]:
    fingerprint = _value(part, "dpu_fingerprint")
    sizes, contexts = _value(part, "reg_id_to_size"), _value(part, "reg_id_to_context_type_v2")
    memory = [
        {"register": name, "use": (contexts or {}).get(name), "bytes": size}
        for name, size in sorted((sizes or {}).items())
    ]
    return {
        "name": part.get_name(),
        "device": _value(part, "device"),
        "dpu_name": _value(part, "dpu_name"),
        "fingerprint": None if fingerprint is None else f"{fingerprint:#x}",
        "ops": part.get_op_num(),
        "inputs": [_tensor(tensor) for tensor in part.ordered_input_tensors()],
        "outputs": [_tensor(tensor) for tensor in part.ordered_output_tensors()],
        "workload": _value(part, "workload"),
        "workload_on_arch": _value(part, "workload_on_arch"),
        "instruction_bytes": len(_value(part, "mc_code") or b""),
        "memory": memory,
    }


def lines(facts: dict[str, Any]) -> list[str]:
    """The facts as lines for a terminal, without control characters from the file."""
    text = [
        f"{facts['file']}: {facts['name']}, {facts['kind']}, {facts['bytes']:,} bytes, "
        f"{len(facts['ops'])} ops, {facts['parameters']:,} constant values"
    ]
    for what in ("inputs", "outputs"):
        text += [f"{what[:-1]:8} {_tensor_text(tensor)}" for tensor in facts[what]]
    if facts["not_built_in"]:
        text.append(f"not built in, need --plugin: {', '.join(facts['not_built_in'])}")
    for number, part in enumerate(facts["subgraphs"]):
        text += ["", *_subgraph_lines(number, part)]
    text += ["", *_table(facts["ops"])]
    return ["".join(c if c.isprintable() else "?" for c in line) for line in text]


def _tensor_text(tensor: dict[str, Any]) -> str:
    point = "" if tensor["fix_point"] is None else f", fix point {tensor['fix_point']}"
    return f"{tensor['name']}  {_dims(tensor['dims'])} {tensor['dtype']}{point}"


def _dims(dims: list[int]) -> str:
    return "x".join(map(str, dims)) or "scalar"


def _subgraph_lines(number: int, part: dict[str, Any]) -> list[str]:
    target = f", for {part['dpu_name']} {part['fingerprint'] or ''}" if part["dpu_name"] else ""
    head = f"subgraph {number}: {part['device']}, {part['ops']} ops{target}".rstrip()
    text = [head, f"  {part['name']}"]
    for what in ("inputs", "outputs"):
        text += [f"  {what[:-1]:8} {_tensor_text(tensor)}" for tensor in part[what]]
    if part["workload"]:
        share = part["workload"] / (part["workload_on_arch"] or math.inf)
        text.append(
            f"  workload {part['workload']:,} operations, {part['workload_on_arch'] or 0:,} "
            f"on the array ({share:.0%} used)"
        )
    if part["memory"]:
        held = ", ".join(f"{m['use'] or m['register']} {m['bytes']:,}" for m in part["memory"])
        text.append(f"  memory   {held}, instructions {part['instruction_bytes']:,} bytes")
    return text


_COLUMNS = ("type", "device", "dims", "fix_point", "shift", "workload", "name")


def _table(ops: list[dict[str, Any]]) -> list[str]:
    rows = [["type", "device", "dims", "fix", "shift", "workload", "name"]]
    for op in ops:
        cells = {**op, "dims": _dims(op["dims"])}
        rows.append(["" if cells[key] is None else str(cells[key]) for key in _COLUMNS])
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS) - 1)]
    right = {3, 4, 5}  # numbers
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, [*widths, 0], strict=True))
        )
        for row in rows
    ]
