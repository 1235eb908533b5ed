"""Runners: the buffers of a model's jobs, and their execution through all stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.board.cpu_operators import CpuOperators, Environment
from tutelage.board.model_parts import CpuStage, DpuStage, ModelError, with_path
from tutelage.core.fixed_point import dequantise, quantise_int8

if TYPE_CHECKING:
    from tutelage.board.runner import LoadedModel


class ModelRunner:
    """Runner of a model for one thread, with several jobs in flight.

    Each slot has the buffers of one job. Fill `input(slot)`, call `submit(slot)`, do other work,
    and call `collect(slot)`. Slots are independent. A slot is free again after `collect`, also if
    it raised an exception.

    Parameters
    ----------
    model : the loaded model
    slots : number of slots

    Raises
    ------
    ModelError
        The DPU or emulation refuses the model.
    """

    def __init__(self, model: LoadedModel, slots: int) -> None:
        self._model = model
        runners = [
            _create_runner(model, stage) if isinstance(stage, DpuStage) else None
            for stage in model.stages
        ]
        self._slots = [_Slot(model, runners) for _ in range(slots)]

    @property
    def slots(self) -> int:
        return len(self._slots)

    def input(self, slot: int) -> np.ndarray:
        """Return the slot's input buffer, int8 of the input's dims without the batch."""
        return self._slots[slot].image

    def submit(self, slot: int) -> None:
        """Start the slot's job. Do not change its input until `collect`.

        VART on an edge board returns only when the job is done.
        """
        self._slots[slot].start()

    def collect(self, slot: int) -> np.ndarray:
        """Wait for the slot's job; return a copy of its output, float32 without the batch."""
        return self._slots[slot].finish()

    def collect_integers(self, slot: int) -> np.ndarray:
        """Wait for the slot's job; return the model's `integers` without the batch, int8.

        The array is the slot's buffer, which its next job overwrites.

        Raises
        ------
        ValueError
            The model has no `integers`, since the CPU computes its output.
        """
        integers = self._model.integers
        if integers is None:
            raise ValueError(f"{self._model.name}: its output is computed on the CPU")
        return self._slots[slot].finish_integers(integers.name)

    def dpu_outputs(self, slot: int) -> dict[str, np.ndarray]:
        """Return the DPU's outputs of the slot's last job, int8 with the batch, by tensor name.

        The arrays are the slot's buffers, which its next job overwrites.
        """
        return self._slots[slot].dpu_outputs

    def run(self, image: np.ndarray) -> np.ndarray:
        """Run one image and return its output.

        Parameters
        ----------
        image : int8, or float, which is quantised to the input's fix point; of the input's dims,
            with or without a batch of one

        Returns
        -------
        float32 output without the batch

        Raises
        ------
        ValueError
            The shape or type does not match the input.
        """
        target = self.input(0)
        image = np.asarray(image)
        if image.shape == (1, *target.shape):
            image = image[0]
        if image.shape != target.shape:
            raise ValueError(f"image has shape {image.shape}, the model takes {target.shape}")
        if image.dtype.kind == "f":
            image = quantise_int8(image, self._model.input.fix_point or 0)
        elif image.dtype != np.int8:
            raise ValueError(f"image has type {image.dtype}, the model takes int8 or float")
        target[...] = image
        self.submit(0)
        return self.collect(0)


def _create_runner(model: LoadedModel, stage: DpuStage) -> Any:
    try:
        return model.vart.Runner.create_runner(stage.subgraph, "run")
    except Exception as error:
        raise ModelError(
            f"{with_path(model.path, error)} (the model is compiled for {model.target})"
        ) from error


class _Slot:
    """The buffers of one job and its execution through all stages."""

    def __init__(self, model: LoadedModel, runners: list[Any]) -> None:
        self._output = model.output
        self._values: Environment = {}
        steps: list[_DpuStep | _CpuStep] = [
            _DpuStep(stage, runner)
            if isinstance(stage, DpuStage)
            else _CpuStep(stage, model.operators)
            for stage, runner in zip(model.stages, runners, strict=True)
        ]
        place, first = next((i, s) for i, s in enumerate(steps) if isinstance(s, _DpuStep))
        self._before, self._first, self._behind = steps[:place], first, steps[place + 1 :]
        self._last: list[_DpuStep | _CpuStep] = []  # the conversion of `integers` to float
        if model.integers is not None and isinstance(steps[-1], _CpuStep):
            self._last = [self._behind.pop()]
        own = first.inputs.get(model.input.name)
        buffer = np.zeros(model.input.dims, np.int8) if own is None else own
        self.image: np.ndarray = buffer[0]
        self._values[model.input.name] = buffer
        self.dpu_outputs: dict[str, np.ndarray] = {}
        for step in steps:
            if isinstance(step, _DpuStep):
                self.dpu_outputs.update(step.outputs)
        self._values.update(self.dpu_outputs)

    def start(self) -> None:
        for step in self._before:
            step.start(self._values)
        self._first.start(self._values)

    def finish_integers(self, name: str) -> np.ndarray:
        self._first.finish()
        self._run(self._behind)
        return self._values[name][0]

    def finish(self) -> np.ndarray:
        self._first.finish()
        self._run(self._behind)
        self._run(self._last)
        output = self._values[self._output.name][0]
        if self._output.fix_point is not None:
            return dequantise(output, self._output.fix_point)
        return np.array(output, np.float32)  # a copy: the slot is used again

    def _run(self, steps: list[_DpuStep | _CpuStep]) -> None:
        for step in steps:
            step.start(self._values)
            step.finish()


class _DpuStep:
    """A DPU subgraph in one slot: the job's buffers by their names in the graph."""

    def __init__(self, stage: DpuStage, runner: Any) -> None:
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

    def finish(self) -> None:
        job, self._job = self._job, None
        self._runner.wait(job)


def _buffers(tensors: Sequence[Any], names: dict[str, str]) -> dict[str, np.ndarray]:
    """Return an int8 buffer for each tensor, by name in the graph, in the runner's order."""
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
    """The operators of a CPU subgraph, which `start` computes."""

    def __init__(self, stage: CpuStage, operators: CpuOperators) -> None:
        self._operations = [
            (op.get_output_tensor().name, operators.prepared(op)) for op in stage.ops
        ]

    def start(self, values: Environment) -> None:
        for name, operation in self._operations:
            values[name] = operation(values)

    def finish(self) -> None:
        pass
