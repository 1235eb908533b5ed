"""Load a compiled .xmodel and run images through it, on the board's DPU or its emulation.

    model = tutelage.board.runner.load("model.xmodel")
    runner = model.runner(slots=2)          # one per thread
    runner.input(0)[...] = image_int8       # the DPU's own buffer, no copy after this
    runner.submit(0)                        # returns at once, or (edge boards) with the job done
    logits = runner.collect(0)              # float32, one per class

A compiled model is a chain of subgraphs, each for one device. Those for the DPU go to
`vart`; those for the CPU are mostly conversions between int8 and float, which are done
here, and sometimes an operator the DPU lacks, for which `tutelage.dpu.ops.reference` is imported.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

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
from tutelage.core.fixed_point import dequantise, quantise_int8

# Operators that only move or convert values: looked through when asking what a model ends in.
_TRANSPARENT = {"download", "fix2float", "float2fix", "fix", "reshape-fix", "reshape", "flatten"}
_CONVERSIONS = {"fix2float", "float2fix", "const"}
_INPUTS = {"data", "data-fix"}

Environment = dict[str, np.ndarray]  # tensor name -> its present value
CpuOperator = Callable[[dict[str, list[np.ndarray]], dict[str, Any]], np.ndarray]


class ModelError(Exception):
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
class _DpuStage:
    """A DPU subgraph, and the names under which a runner may list its tensors.

    The graph knows the tensors around `upload` and `download` by two names each; which of
    them a runner reports differs between releases of VART.
    """

    subgraph: Any
    inputs: dict[str, str]  # name in a runner -> name in the graph
    outputs: dict[str, str]


@dataclass(frozen=True)
class _CpuStage:
    ops: tuple[Any, ...]  # in topological order


@dataclass(frozen=True)
class Model:
    """A loaded model; make one `runner()` per thread.

    Attributes
    ----------
    path : the .xmodel file
    name : the graph's name
    input, output : the one input (int8) and the one output
    last_op : type of the last operator that computes, e.g. "conv2d-fix" or "softmax"
    dpu_name, fingerprint : the DPU it was compiled for
    target : the same for a reader, e.g. "ZCU104, Vitis AI 2.x"
    provider : what runs it, e.g. "emulation (no vart/xir on this machine)"
    """

    path: Path
    name: str
    input: TensorInfo
    output: TensorInfo
    last_op: str
    dpu_name: str
    fingerprint: int | None
    provider: str
    _vart: Any = field(repr=False)
    _graph: Any = field(repr=False)  # owns the subgraphs: must live as long as they are used
    _stages: tuple[_DpuStage | _CpuStage, ...] = field(repr=False)
    _operators: _CpuOperators = field(repr=False)

    @property
    def target(self) -> str:
        return describe_target(self.dpu_name, self.fingerprint)

    @property
    def dpu_subgraphs(self) -> list[Any]:
        """The parts that run on the DPU, in order, as xir.Subgraph."""
        return [stage.subgraph for stage in self._stages if isinstance(stage, _DpuStage)]

    def runner(self, slots: int = 2) -> ModelRunner:
        """Return a runner for one thread, with `slots` jobs that may be in flight at once."""
        return ModelRunner(self, slots)


def load(path: str | Path, plugins: str | Path | None = None) -> Model:
    """Load a compiled .xmodel with one image input and one output.

    Parameters
    ----------
    path : the .xmodel file
    plugins : Python file with functions op_<op_type> for CPU operators of the user's own

    Raises
    ------
    ModelError
        The file cannot be read, was not compiled for a DPU, or is of a form that cannot run.
    """
    path = Path(path)
    provider = _provider_or_error()
    problem = problem_of(path)
    if problem:
        raise ModelError(f"{path}: {problem}")
    try:
        graph = provider.xir.Graph.deserialize(str(path))
    except Exception as error:  # a native library's errors have no common base
        raise ModelError(_with_path(path, error)) from error
    try:
        return _build(path, provider, graph, plugins)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(f"{path}: the model contradicts itself: {text}") from error


def _provider_or_error() -> Provider:
    try:
        return find_provider()
    except ImportError as error:
        raise ModelError(
            f"neither the board's vart/xir nor the emulation can be imported: {error}"
        ) from error


def _build(path: Path, provider: Provider, graph: Any, plugins: str | Path | None) -> Model:
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
    return Model(
        path=path,
        name=graph.get_name(),
        input=_tensor_info(input_op.get_output_tensor()),
        output=_tensor_info(tails[0].get_output_tensor()),
        last_op=_last_computing_op(tails[0]),
        dpu_name=str(_attr(first, "dpu_name") or "DPU"),
        fingerprint=fingerprint_of(first),
        provider=provider.text,
        _vart=provider.vart,
        _graph=graph,
        _stages=stages,
        _operators=_CpuOperators(path, stages, plugins),
    )


def _is_for_emulator(parts: list[Any]) -> bool:
    return any(_attr(part, "dpu_name") == EMULATOR_DPU_NAME for part in parts)


def _attr(holder: Any, name: str) -> Any:
    return holder.get_attr(name) if holder.has_attr(name) else None


def _find_input(path: Path, order: list[Any]) -> tuple[Any, str | None]:
    """Return the op whose output the user fills, and the name of a float2fix taken as part of it.

    A model may take float and begin with float2fix on the CPU. The same rounding is done by
    the preprocessing, so such a model is fed with int8 behind that operator.
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
) -> tuple[_DpuStage | _CpuStage, ...]:
    stages: list[_DpuStage | _CpuStage] = []
    for part in children:
        if device_of(part) == "DPU":
            stages.append(_dpu_stage(part))
            continue
        names = {op.get_name() for op in part.get_ops()} - {folded}
        ops = [op for op in order if op.get_name() in names and op.get_type() not in _INPUTS]
        if ops:
            stages.append(_CpuStage(tuple(ops)))
    return tuple(stages)


def _dpu_stage(part: Any) -> _DpuStage:
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
    return _DpuStage(part, inputs, outputs)


def _tensor_info(tensor: Any) -> TensorInfo:
    dims = tuple(int(size) for size in tensor.dims)
    return TensorInfo(tensor.name, dims, _attr(tensor, "fix_point"))


def _last_computing_op(op: Any) -> str:
    while op.get_type() in _TRANSPARENT:
        op = op.get_input_ops()["input"][0]
    return str(op.get_type())


class ModelRunner:
    """Runs one model in one thread, with several jobs in flight.

    Each slot owns the buffers of one job. Fill `input(slot)`, `submit(slot)`, do other
    work, `collect(slot)`. Slots are independent; a slot is free again after `collect`,
    also when that raised.
    """

    def __init__(self, model: Model, slots: int) -> None:
        self._model = model
        runners = [
            _create_runner(model, stage) if isinstance(stage, _DpuStage) else None
            for stage in model._stages
        ]
        self._slots = [_Slot(model, runners) for _ in range(slots)]

    @property
    def slots(self) -> int:
        return len(self._slots)

    def input(self, slot: int) -> np.ndarray:
        """Return the slot's input, int8 of the input's dims without the batch, to be filled."""
        return self._slots[slot].image

    def submit(self, slot: int) -> None:
        """Start the slot's job; its input must not be touched until `collect`.

        VART on an edge board returns from here when the job is done.
        """
        self._slots[slot].start()

    def collect(self, slot: int) -> np.ndarray:
        """Wait for the slot's job; return its output, float32 without the batch, a new array."""
        return self._slots[slot].finish()

    def run(self, image: np.ndarray) -> np.ndarray:
        """Run one image to its end.

        Parameters
        ----------
        image : int8, or float in the input's own units (quantised here); the input's dims
            with or without the batch of one

        Returns
        -------
        float32 output without the batch

        Raises
        ------
        ValueError
            The shape or type is not the input's.
        """
        target = self.input(0)
        image = np.asarray(image)
        if image.shape == (1, *target.shape):
            image = image[0]
        if image.shape != target.shape:
            raise ValueError(f"image of shape {image.shape}, the model takes {target.shape}")
        if image.dtype.kind == "f":
            image = quantise_int8(image, self._model.input.fix_point or 0)
        elif image.dtype != np.int8:
            raise ValueError(f"image of {image.dtype}, the model takes int8 or float")
        target[...] = image
        self.submit(0)
        return self.collect(0)


def _create_runner(model: Model, stage: _DpuStage) -> Any:
    try:
        return model._vart.Runner.create_runner(stage.subgraph, "run")
    except Exception as error:
        raise ModelError(
            f"{_with_path(model.path, error)} (the model is compiled for {model.target})"
        ) from error


class _Slot:
    """The buffers of one job and the way through all stages."""

    def __init__(self, model: Model, runners: list[Any]) -> None:
        self._output = model.output
        self._values: Environment = {}
        self._steps: list[_DpuStep | _CpuStep] = []
        for stage, runner in zip(model._stages, runners, strict=True):
            if isinstance(stage, _DpuStage):
                self._steps.append(_DpuStep(stage, runner))
            else:
                self._steps.append(_CpuStep(stage, model._operators))
        self._first_dpu = next(i for i, s in enumerate(self._steps) if isinstance(s, _DpuStep))
        first = self._steps[self._first_dpu]
        own = first.inputs.get(model.input.name) if isinstance(first, _DpuStep) else None
        buffer = np.zeros(model.input.dims, np.int8) if own is None else own
        self.image: np.ndarray = buffer[0]
        self._values[model.input.name] = buffer

    def start(self) -> None:
        for step in self._steps[: self._first_dpu + 1]:
            step.start(self._values)

    def finish(self) -> np.ndarray:
        self._steps[self._first_dpu].finish(self._values)
        for step in self._steps[self._first_dpu + 1 :]:
            step.start(self._values)
            step.finish(self._values)
        output = self._values[self._output.name][0]
        if self._output.fix_point is not None:
            return dequantise(output, self._output.fix_point)
        return np.array(output, np.float32)  # a copy: the slot is used again


class _DpuStep:
    """One DPU subgraph in one slot: its job's buffers and their names in the graph."""

    def __init__(self, stage: _DpuStage, runner: Any) -> None:
        self._runner = runner
        self._job: Any = None
        self.inputs = _buffers(runner.get_input_tensors(), stage.inputs)
        self.outputs = _buffers(runner.get_output_tensors(), stage.outputs)
        self._sources, self._targets = list(self.inputs.values()), list(self.outputs.values())

    def start(self, values: Environment) -> None:
        for name, buffer in self.inputs.items():
            if values[name] is not buffer:
                buffer[...] = values[name]
        self._job = self._runner.execute_async(self._sources, self._targets)

    def finish(self, values: Environment) -> None:
        job, self._job = self._job, None
        self._runner.wait(job)
        values.update(self.outputs)


def _buffers(tensors: Sequence[Any], names: dict[str, str]) -> dict[str, np.ndarray]:
    """Return an int8 buffer per runner tensor, in the runner's order, by name in the graph."""
    graph_names = set(names.values())
    buffers: dict[str, np.ndarray] = {}
    for tensor in tensors:
        name = names.get(tensor.name)
        if name is None and len(tensors) == len(graph_names) == 1:
            (name,) = graph_names
        if name is None:
            raise ModelError(f"the runner's tensor {tensor.name} is not in the model")
        buffers[name] = np.zeros(tuple(tensor.dims), np.int8)
    return buffers


class _CpuStep:
    """The operators of one CPU subgraph; done when `start` returns."""

    def __init__(self, stage: _CpuStage, operators: _CpuOperators) -> None:
        self._ops = stage.ops
        self._operators = operators

    def start(self, values: Environment) -> None:
        for op in self._ops:
            values[op.get_output_tensor().name] = self._operators.run(op, values)

    def finish(self, values: Environment) -> None:
        pass


class _CpuOperators:
    """What runs the CPU operators of one model; shared by its runners, read-only after loading."""

    def __init__(
        self,
        path: Path,
        stages: Sequence[_DpuStage | _CpuStage],
        plugins: str | Path | None,
    ) -> None:
        ops = [op for stage in stages if isinstance(stage, _CpuStage) for op in stage.ops]
        self._constants = {op.get_name(): _constant(op) for op in ops if op.get_type() == "const"}
        self._reference: Any = None
        self._plugins: dict[str, CpuOperator] = {}
        foreign = {op.get_type() for op in ops} - _CONVERSIONS
        if foreign:
            self._reference = _import_reference(path, foreign)
            try:
                self._plugins = self._reference.load_plugins(plugins) if plugins else {}
            except Exception as error:
                raise ModelError(_with_path(Path(str(plugins)), error)) from error

    def run(self, op: Any, values: Environment) -> np.ndarray:
        kind = op.get_type()
        if kind == "const":
            return self._constants[op.get_name()]
        inputs = {
            argument: [values[source.get_output_tensor().name] for source in sources]
            for argument, sources in op.get_input_ops().items()
        }
        if kind == "fix2float":
            return dequantise(inputs["input"][0], int(op.get_attr("fix_point")))
        if kind == "float2fix":
            return quantise_int8(inputs["input"][0], int(op.get_attr("fix_point")))
        return np.asarray(self._reference.run_op(op, inputs, self._plugins))


def _import_reference(path: Path, kinds: set[str]) -> Any:
    """Import tutelage.dpu.ops.reference, only now: a model without such ops does not need it."""
    try:
        return import_module("tutelage.dpu.ops.reference")
    except ImportError as error:
        needs = ", ".join(sorted(kinds))
        raise ModelError(f"{path}: needs {needs} on the CPU, but: {error}") from error


def _constant(op: Any) -> np.ndarray:
    """Return the value of a `const` op, whose attributes hold raw bytes, a type and a shape."""
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


def _with_path(path: Path, error: Exception) -> str:
    """Return an error's first line, after the path unless it names it itself."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if str(path) in text else f"{path}: {text}"
