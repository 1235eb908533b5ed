"""The files that AMD's quantiser writes to its output directory, under the same names."""

from __future__ import annotations

import copy
from pathlib import Path

from tutelage.dpu.xmodel.graph import Graph
from tutelage.host.export.model_directory import deployable_graph
from tutelage.host.export.onnx_qdq import to_onnx
from tutelage.host.export.student_directory import check_values
from tutelage.host.quantise.student import Student
from tutelage.host.vai_q_pytorch.arguments import note


def write_xmodel(student: Student, name: str, folder: Path, deploy_check: bool) -> Path:
    """Write `<name>_int.xmodel`, the input of `tutelage compile`, and return its path.

    Parameters
    ----------
    student : calibrated
    name : of the network's class
    deploy_check : accepted for compatibility; prints that no data is written

    Raises
    ------
    NotDeployable
        The DPU cannot compute this network.
    ExportError
        The file written computes other values than the student.
    """
    graph, deployed = _graph(student, name)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_int.xmodel"
    graph.serialize(path)
    check_values(deployed, path)
    if deploy_check:
        note("deploy_check: no data is written; `tutelage run` computes any tensor of the file")
    note(f"wrote {path}; next: tutelage compile {path} -o DIR")
    return path


def write_onnx(student: Student, name: str, folder: Path) -> Path:
    """Write `<name>_int.onnx`, which takes any batch size, and return its path.

    Raises
    ------
    NotDeployable
        The DPU cannot compute this network.
    """
    graph, _ = _graph(student, name, quiet=True)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_int.onnx"
    path.write_bytes(to_onnx(graph))
    return path


def no_torch_script() -> None:
    """Print that no file is written, since the student's rounding has no TorchScript form."""
    note("export_torch_script: not emulated, no .pt is written; use export_onnx_model instead")


def _graph(student: Student, name: str, quiet: bool = False) -> tuple[Graph, Student]:
    deployed = copy.deepcopy(student).cpu().eval()
    xir_name = "".join(c if c.isalnum() else "_" for c in name)
    graph, outside = deployable_graph(deployed, xir_name, allow_cpu=True)
    for op, reason in outside.items() if not quiet else ():
        note(f"{op} runs on the CPU: {reason}")
    return graph, deployed
