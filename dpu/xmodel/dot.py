"""Export of graphs to Graphviz."""

from __future__ import annotations

from collections.abc import Iterable

from tutelage.dpu.xmodel.op import Op


def dot(ops: Iterable[Op]) -> str:
    """Return a digraph of the ops and their inputs."""

    def quote(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    lines = ["digraph {", "  node [shape=box];"]
    for op in ops:
        label = f"{op.get_name()}\n{op.get_type()} {op.get_output_tensor().dims}"
        lines.append(f"  {quote(op.get_name())} [label={quote(label)}];".replace("\n", "\\n"))
        for ops in op.get_input_ops().values():
            lines += [f"  {quote(s.get_name())} -> {quote(op.get_name())};" for s in ops]
    return "\n".join([*lines, "}", ""])
