"""Load a compiled .xmodel and run images through it, on the board's DPU or its emulation.

    model = tutelage.board.runner.load("model.xmodel")
    runner = model.runner(slots=2)          # one per thread
    runner.input(0)[...] = image_int8       # the DPU's own buffer, no copy after this
    runner.submit(0)                        # returns immediately, or on edge boards when it is done
    logits = runner.collect(0)              # float32, one per class

A compiled model is a chain of subgraphs, each for one device. `vart` runs those for the DPU. Those
for the CPU are mostly conversions between int8 and float, which are done here, and sometimes an
operator that the DPU lacks, for which `tutelage.dpu.ops.reference` is imported.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tutelage.board.cpu_operators import CpuOperators
from tutelage.board.jobs import ModelRunner
from tutelage.board.model_parts import CpuStage, DpuStage, ModelError, TensorInfo, with_path
from tutelage.board.provider import Provider, find_provider
from tutelage.board.xmodel_file import problem_of
from tutelage.core.board_profile import DEFAULT_BOARD, describe_target
from tutelage.core.errors import DpuError
from tutelage.core.fingerprint import (
    EMULATOR_DPU_NAME,
    device_of,
    dpu_parts,
    fingerprint_of,
    parts_of,
    refuse_foreign,
)

__all__ = ["LoadedModel", "ModelError", "ModelRunner", "TensorInfo", "load"]

# Operators that only move or convert values, skipped when looking for a model's last operator.
_TRANSPARENT = {"download", "fix2float", "float2fix", "fix", "reshape-fix", "reshape", "flatten"}
_INPUTS = {"data", "data-fix"}


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model. Create one `runner()` per thread.

    Attributes
    ----------
    path : the .xmodel file
    name : the graph's name
    input, output : the single input (int8) and the single output
    integers : the DPU's int8 output with the fix point that converts it to `output`; None if the
        CPU computes more than this conversion
    last_op : type of the last operator that computes, e.g. "conv2d-fix" or "softmax"
    dpu_name, fingerprint : the DPU that it was compiled for
    target : description of this DPU, e.g. "ZCU104, Vitis AI 2.x"
    provider : description of what runs it, e.g. "emulation (no vart/xir on this machine)"
    vart : module that runs the DPU's stages
    stages : the stages, in order
    operators : the operators of the CPU's stages
    """

    path: Path
    name: str
    input: TensorInfo
    output: TensorInfo
    integers: TensorInfo | None
    last_op: str
    dpu_name: str
    fingerprint: int | None
    provider: str
    vart: Any = field(repr=False)
    _graph: Any = field(repr=False)  # owns the subgraphs, so it must outlive their use
    stages: tuple[DpuStage | CpuStage, ...] = field(repr=False)
    operators: CpuOperators = field(repr=False)

    @property
    def target(self) -> str:
        return describe_target(self.dpu_name, self.fingerprint)

    @property
    def dpu_subgraphs(self) -> list[Any]:
        """The DPU subgraphs, in order, as xir.Subgraph."""
        return [stage.subgraph for stage in self.stages if isinstance(stage, DpuStage)]

    def runner(self, slots: int = 2) -> ModelRunner:
        """Return a runner for one thread, with up to `slots` jobs in flight."""
        return ModelRunner(self, slots)


def load(path: str | Path, plugins: str | Path | None = None) -> LoadedModel:
    """Load a compiled .xmodel with one image input and one output.

    Parameters
    ----------
    path : the .xmodel file
    plugins : Python file with functions op_<op_type>(inputs, attrs) for custom CPU operators

    Raises
    ------
    ModelError
        The file cannot be read, was not compiled for a DPU, or has a form that cannot run.
    """
    path = Path(path)
    provider = _provider_or_error()
    problem = problem_of(path)
    if problem:
        raise ModelError(f"{path}: {problem}")
    try:
        graph = provider.xir.Graph.deserialize(str(path))
    except Exception as error:  # a native library's errors have no common base
        raise ModelError(with_path(path, error)) from error
    try:
        return _build(path, provider, graph, plugins)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(f"{path}: the model is inconsistent: {text}") from error


def _provider_or_error() -> Provider:
    try:
        return find_provider()
    except ImportError as error:
        raise ModelError(
            f"neither the board's vart/xir nor the emulation can be imported: {error}"
        ) from error


def _build(path: Path, provider: Provider, graph: Any, plugins: str | Path | None) -> LoadedModel:
    on_dpu = dpu_parts(graph)
    if not on_dpu:
        command = f"tutelage compile {shlex.quote(str(path))} --target {DEFAULT_BOARD}"
        raise ModelError(f"{path}: not compiled for a DPU; compile it first: {command}")
    try:
        refuse_foreign(graph)
    except DpuError as error:
        raise ModelError(f"{path}: {error}") from error
    if not provider.is_emulation and _is_for_emulator(on_dpu):
        raise ModelError(
            f"{path}: compiled for the emulation ({EMULATOR_DPU_NAME}), without instructions for "
            f"a DPU; compile it for the board: tutelage compile MODEL --target {DEFAULT_BOARD}"
        )
    order = list(graph.toposort())
    input_op, folded = _find_input(path, order)
    stages = _stages(parts_of(graph), order, folded)
    tails = [op for op in order if op.get_fanout_num() == 0]
    if len(tails) != 1:
        raise ModelError(f"{path}: has {len(tails)} outputs; a classifier has one")
    first = on_dpu[0]
    return LoadedModel(
        path=path,
        name=graph.get_name(),
        input=_tensor_info(input_op.get_output_tensor()),
        output=_tensor_info(tails[0].get_output_tensor()),
        integers=_integers(tails[0], stages),
        last_op=_last_computing_op(tails[0]),
        dpu_name=str(_attr(first, "dpu_name") or "DPU"),
        fingerprint=fingerprint_of(first),
        provider=provider.text,
        vart=provider.vart,
        _graph=graph,
        stages=stages,
        operators=CpuOperators(path, stages, plugins),
    )


def _is_for_emulator(parts: list[Any]) -> bool:
    return any(_attr(part, "dpu_name") == EMULATOR_DPU_NAME for part in parts)


def _attr(holder: Any, name: str) -> Any:
    return holder.get_attr(name) if holder.has_attr(name) else None


def _find_input(path: Path, order: list[Any]) -> tuple[Any, str | None]:
    """Return the op whose output is the int8 input, and the name of a float2fix that it replaces.

    A model may have a float input and begin with float2fix on the CPU. Preprocessing does the same
    rounding, so the int8 input of such a model is the output of that operator.
    """
    inputs = [op for op in order if op.get_type() in _INPUTS]
    if len(inputs) != 1:
        raise ModelError(f"{path}: has {len(inputs)} inputs; a classifier has one")
    op, folded = inputs[0], None
    if _tensor_info(op.get_output_tensor()).fix_point is None:
        readers = list(op.get_fanout_ops())
        if len(readers) != 1 or readers[0].get_type() != "float2fix":
            kinds = ", ".join(sorted({reader.get_type() for reader in readers})) or "nothing"
            raise ModelError(f"{path}: its float input goes to {kinds}; only float2fix can take it")
        op = readers[0]
        folded = op.get_name()
    return op, folded


def _stages(
    children: list[Any], order: list[Any], folded: str | None
) -> tuple[DpuStage | CpuStage, ...]:
    stages: list[DpuStage | CpuStage] = []
    for part in children:
        if device_of(part) == "DPU":
            stages.append(_dpu_stage(part))
            continue
        names = {op.get_name() for op in part.get_ops()} - {folded}
        ops = [op for op in order if op.get_name() in names and op.get_type() not in _INPUTS]
        if ops:
            stages.append(CpuStage(tuple(ops)))
    return tuple(stages)


def _dpu_stage(part: Any) -> DpuStage:
    inputs = {tensor.name: tensor.name for tensor in part.get_input_tensors()}
    outputs = {tensor.name: tensor.name for tensor in part.get_output_tensors()}
    for op in part.get_ops():
        if op.get_type() not in ("upload", "download"):
            continue
        outer, inner = op.get_output_tensor().name, op.get_input_ops()["input"][0]
        inner_name = inner.get_output_tensor().name
        if inner_name in inputs:  # upload: graph tensor -> tensor inside
            inputs[outer] = inner_name
        if outer in outputs:  # download: tensor inside -> graph tensor
            outputs[inner_name] = outer
    return DpuStage(part, inputs, outputs)


def _tensor_info(tensor: Any) -> TensorInfo:
    dims = tuple(int(size) for size in tensor.dims)
    return TensorInfo(tensor.name, dims, _attr(tensor, "fix_point"))


def _integers(tail: Any, stages: tuple[DpuStage | CpuStage, ...]) -> TensorInfo | None:
    """Return the DPU output that is the model's output, up to a conversion to float."""
    op = tail.get_input_ops()["input"][0] if tail.get_type() == "fix2float" else tail
    info = _tensor_info(op.get_output_tensor())
    dpu = [stage.outputs.values() for stage in stages if isinstance(stage, DpuStage)]
    if not any(info.name in names for names in dpu):
        return None
    if op is not tail:
        info = replace(info, fix_point=int(tail.get_attr("fix_point")))
    return None if info.fix_point is None else info


def _last_computing_op(op: Any) -> str:
    while op.get_type() in _TRANSPARENT:
        op = op.get_input_ops()["input"][0]
    return str(op.get_type())
