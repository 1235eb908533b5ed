"""The engine `instructions`: executes the code (`mc_code`) of DPU subgraphs, the rest op by op.

The other engines compute a DPU subgraph from the graph's ops. This one uses only the locations of
inputs and outputs in the DDR, as VART does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tutelage.core.errors import UnsupportedError, XmodelError
from tutelage.core.fingerprint import device_of, fingerprint_of
from tutelage.core.fixed_point import Array
from tutelage.dpu.engine.program import Program
from tutelage.dpu.isa.encoding import Instruction, decode
from tutelage.dpu.isa.machine import REGISTERS, Machine, shape_of
from tutelage.dpu.isa.program import run
from tutelage.dpu.xmodel.op import Op
from tutelage.dpu.xmodel.subgraph import Subgraph
from tutelage.dpu.xmodel.tensor import Tensor

MAX_BYTES = 1 << 30
"""Most bytes of a subgraph's registers together, since a file may claim any size."""


@dataclass(frozen=True)
class Place:
    """Location of a tensor in the DDR.

    Attributes
    ----------
    register, offset : location of its first byte
    dims, strides : of its values; strides in bytes
    """

    register: int
    offset: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def end(self) -> int:
        """Offset after its last byte."""
        pairs = zip(self.dims, self.strides, strict=True)
        return self.offset + sum((n - 1) * step for n, step in pairs) + 1

    def view(self, registers: dict[int, Array]) -> Array:
        """Return a view of its values, int8 [dims].

        Raises
        ------
        XmodelError
            Some of them are outside the register.
        """
        memory = registers.get(self.register, np.empty(0, np.int8))
        if self.offset < 0 or min(self.strides, default=1) < 1 or self.end > len(memory):
            raise XmodelError(
                f"bytes {self.offset} to {self.end} exceed register {self.register} of "
                f"{len(memory)} bytes"
            )
        return np.lib.stride_tricks.as_strided(memory[self.offset :], self.dims, self.strides)


def place_of(tensor: Tensor) -> Place:
    """Return the location of a tensor of a compiled file.

    Raises
    ------
    UnsupportedError
        The tensor is not in the DDR.
    """
    if not (tensor.has_attr("reg_id") and tensor.has_attr("ddr_addr")):
        raise UnsupportedError(f"tensor {tensor.name!r} has no address in the DDR")
    dims = tuple(tensor.dims)
    if tensor.has_attr("stride"):
        strides = tuple(int(step) for step in tensor.get_attr("stride"))
    else:
        strides = tuple(int(np.prod(dims[axis + 1 :])) for axis in range(len(dims)))
    return Place(int(tensor.get_attr("reg_id")), int(tensor.get_attr("ddr_addr")), dims, strides)


class CompiledPart:
    """A DPU subgraph with code.

    Attributes
    ----------
    subgraph : subgraph of the file
    shape : shape of the target DPU's core
    inputs, outputs : names of the ops whose values it reads and computes -> their locations
    """

    def __init__(self, subgraph: Subgraph) -> None:
        name, fingerprint = subgraph.get_name(), fingerprint_of(subgraph)
        if not subgraph.has_attr("mc_code") or not subgraph.get_attr("mc_code"):
            raise UnsupportedError(f"{name} has no DPU code; the file is not for a real DPU")
        if fingerprint is None:
            raise UnsupportedError(f"{name} has no fingerprint, which is needed to decode its code")
        self.subgraph, self.shape = subgraph, shape_of(fingerprint)
        ops = subgraph.toposort()
        self.inputs = {
            op.get_input_op("input").get_name(): place_of(op.get_output_tensor())
            for op in ops
            if op.get_type() == "upload"
        }
        self.outputs = {
            op.get_name(): place_of(op.get_input_tensor("input"))
            for op in ops
            if op.get_type() == "download"
        }

    @cached_property
    def code(self) -> list[Instruction]:
        """Its decoded instructions."""
        return decode(self.subgraph.get_attr("mc_code"), self.shape.isa)

    @cached_property
    def parameters(self) -> dict[int, Array]:
        """Constant registers, int8, by number; read-only.

        Raises
        ------
        XmodelError
            A register number is invalid.
        """
        found = {}
        for name, values in self.subgraph.get_attr("reg_id_to_parameter_value").items():
            found[_number(name)] = np.frombuffer(values, np.int8)
        return found

    def registers(self) -> dict[int, Array]:
        """Return registers for one run: the parameters, and new ones for data.

        Raises
        ------
        XmodelError
            A register number is invalid, or the registers exceed MAX_BYTES.
        """
        found = dict(self.parameters)
        sizes = {_number(k): int(v) for k, v in self.subgraph.get_attr("reg_id_to_size").items()}
        if not all(0 <= size <= MAX_BYTES for size in sizes.values()) or (
            sum(sizes.values()) > MAX_BYTES
        ):
            total = sum(sizes.values())
            raise XmodelError(f"registers take {total:,} bytes; at most {MAX_BYTES:,} are allowed")
        for register, size in sizes.items():
            if register not in found:
                found[register] = np.zeros(size, np.int8)
        return found

    def run(self, values: dict[str, Array], seed: int | None = None) -> dict[str, Array]:
        """Execute the code for one image.

        Parameters
        ----------
        values : int8 values of the ops in `inputs`, by name
        seed : seed of the instruction order; None for the order of the code

        Returns
        -------
        int8 values of the ops in `outputs`, by name

        Raises
        ------
        IsaError, XmodelError
            The code or the locations of tensors are invalid.
        """
        registers = self.registers()
        for name, place in self.inputs.items():
            place.view(registers)[...] = values[name]
        run(self.code, Machine(self.shape, registers), seed)
        return {name: place.view(registers).copy() for name, place in self.outputs.items()}


def _number(name: str) -> int:
    """Return the number of a register, such as 2 for "REG_2"."""
    text = name.removeprefix("REG_")
    if not text.isdecimal() or int(text) >= REGISTERS:
        raise XmodelError(f"register {name!r} is not one of REG_0 to REG_{REGISTERS - 1}")
    return int(text)


class InstructionEngine:
    """Engine that runs a program by executing the code of its DPU subgraphs.

    Parameters
    ----------
    program : program of a compiled graph, or of one of its subgraphs
    seed : seed of the instruction order; None for the order of the code

    Raises
    ------
    UnsupportedError
        A DPU subgraph has no code, or is for another kind of DPU.
    """

    def __init__(self, program: Program, seed: int | None = None) -> None:
        self.program, self.seed = program, seed
        self._stages = _stages(program)

    def compute(self, feeds: dict[str, Array], keep: set[str]) -> dict[str, Array]:
        """Return the values of the ops named in `keep`, which must leave their subgraph.

        Raises
        ------
        UnsupportedError
            A requested value does not leave its DPU subgraph.
        """
        values: dict[str, Array] = {**self.program.constants, **feeds}
        for part, steps in self._stages:
            if part is None:
                for op in steps:
                    values[op.get_name()] = self.program.run_step(op, values)
            else:
                values.update(_run_batch(part, values, self.seed))
        if inner := sorted(keep - values.keys()):
            raise UnsupportedError(
                f"{inner[0]!r} does not leave its DPU subgraph; the engine instructions returns "
                "only values that do"
            )
        return {name: values[name] for name in keep}


def _run_batch(part: CompiledPart, values: dict[str, Array], seed: int | None) -> dict[str, Array]:
    """Run image by image, since the code is for the batch size in the file."""
    given = {name: values[name] for name in part.inputs}
    sizes = {name: place.dims[0] for name, place in part.inputs.items()}
    count = max((len(array) // sizes[name] for name, array in given.items()), default=1)
    results = [
        part.run({n: a[k * sizes[n] : (k + 1) * sizes[n]] for n, a in given.items()}, seed)
        for k in range(count)
    ]
    return {name: np.concatenate([each[name] for each in results]) for name in part.outputs}


def _stages(program: Program) -> list[tuple[CompiledPart | None, list[Op]]]:
    """Return, per subgraph, the compiled part of a DPU subgraph or None, and the steps."""
    if not program.steps:
        return []
    root = program.steps[0].get_graph().get_root_subgraph()
    if root.is_leaf:
        raise UnsupportedError(f"{root.get_name()} is not compiled: it has no DPU code")
    steps: dict[Subgraph, list[Op]] = {}
    for op in program.steps:
        part = root.find_child_subgraph_by_op(op)
        while part.get_parent() is not root:
            part = part.get_parent()
        steps.setdefault(part, []).append(op)
    return [
        (CompiledPart(part) if device_of(part) == "DPU" else None, steps[part])
        for part in root.toposort_child_subgraph()
        if part in steps
    ]
