"""Compilation of DPU subgraphs to instructions and the attributes that VART reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tutelage.core.errors import UnsupportedError
from tutelage.core.fingerprint import describe, dpu_name
from tutelage.core.fixed_point import Array
from tutelage.dpu.compiler.board.emit import emit
from tutelage.dpu.compiler.board.memory import (
    CONSTANTS,
    INPUTS,
    OUTPUTS,
    WORKSPACE,
    place_stores,
)
from tutelage.dpu.compiler.board.network import View
from tutelage.dpu.compiler.board.parameters import Parameters
from tutelage.dpu.compiler.board.plan import plan_network
from tutelage.dpu.compiler.board.stages import Plan
from tutelage.dpu.compiler.board.stores import network_of
from tutelage.dpu.engine.program import build_program
from tutelage.dpu.isa.encoding import Instruction, encode
from tutelage.dpu.isa.formats import ISA1
from tutelage.dpu.isa.machine import Machine, shape_of
from tutelage.dpu.isa.timing import Timeline, array_cycles, simulate
from tutelage.dpu.isa.tokens import set_tokens
from tutelage.dpu.ops.engine_layers import ConvLayer
from tutelage.dpu.ops.limits import BANK_DEPTH
from tutelage.dpu.xmodel.subgraph import Subgraph


@dataclass(frozen=True)
class Part:
    """A compiled DPU subgraph.

    Attributes
    ----------
    plan : locations of maps and order of computation
    code : its instructions
    nodes : number of each instruction's node
    parameters : contents of the constant register
    sizes : size of each other register, bytes
    """

    plan: Plan
    code: list[Instruction]
    nodes: list[int]
    parameters: bytes
    sizes: dict[int, int]

    @cached_property
    def timeline(self) -> Timeline:
        """Simulated times of its instructions."""
        return simulate(self.code, self.plan.shape)


def compile_part(subgraph: Subgraph, fingerprint: int, room: int = BANK_DEPTH) -> Part:
    """Compile a DPU subgraph.

    Parameters
    ----------
    fingerprint : fingerprint of the DPU
    room : as for `plan_network`

    Raises
    ------
    Refusal
        One of its ops has no instructions, or does not fit the chip.
    UnsupportedError
        The DPU is unknown, or has another instruction set than ISA1.
    """
    shape = shape_of(fingerprint)
    if shape.isa is not ISA1:
        raise UnsupportedError(
            f"{describe(fingerprint)} has {shape.isa.name}; only ISA1 is supported"
        )
    constants = build_program(subgraph.get_graph(), subgraph).constants
    network = network_of(subgraph, constants)
    plan = plan_network(network, shape, room)
    parameters = _parameters(subgraph, constants)
    sizes = place_stores(plan, parameters)
    code = emit(plan, parameters)
    data = bytes(parameters.data)
    lengths = {CONSTANTS: len(data), **sizes}
    registers = {register: np.zeros(size, np.int8) for register, size in lengths.items()}
    set_tokens(code.instructions, Machine(shape, registers))
    return Part(plan, code.instructions, code.nodes, data, sizes)


def _parameters(subgraph: Subgraph, constants: dict[str, Array]) -> Parameters:
    """Return the constants as laid out in the file; others that the code needs are appended."""
    data = subgraph.get_attr("reg_id_to_parameter_value").get("REG_0", b"")
    parameters = Parameters(bytearray(data))
    for op in subgraph.toposort():  # in a fixed order, since the last of equal constants is used
        tensor = op.get_output_tensor()
        if op.get_name() in constants and tensor.has_attr("ddr_addr"):
            parameters.know(constants[op.get_name()], int(tensor.get_attr("ddr_addr")))
    return parameters


def seal(subgraph: Subgraph, part: Part, fingerprint: int) -> None:
    """Set the attributes that VART reads of a DPU subgraph: code, registers, tensor locations."""
    sizes = {CONSTANTS: len(part.parameters), **part.sizes}
    kept = {register: size for register, size in sizes.items() if size}
    attrs: dict[str, Any] = {
        "dpu_name": dpu_name(fingerprint),
        "mc_code": encode(part.code),
        "mc_code_preload": b"",
        "reg_id_to_parameter_value": {"REG_0": part.parameters},
        "reg_id_to_size": _by_register(kept),
        "reg_id_to_context_type": _by_register({r: _USES[r][0] for r in kept}),
        "reg_id_to_context_type_v2": _by_register({r: _USES[r][1] for r in kept}),
        "reg_id_to_hw_segment": _by_register({r: _USES[r][2] for r in kept}),
        "runner": {"run": "libvart-dpu-runner.so"},
        "debug_mode": "function",
        "if_prefetch": False,
    }
    for name, value in attrs.items():
        subgraph.set_attr(name, value)
    numbers = {"dpu_fingerprint": fingerprint, **_work(part)}
    for name, number in numbers.items():
        subgraph.set_attr(name, number, "uint64_value")
    _place_tensors(subgraph, part)


_USES = {
    CONSTANTS: ("CONST", "CONST", "W0"),
    WORKSPACE: ("DATA", "WORKSPACE", "D0"),
    INPUTS: ("DATA", "INTERFACE", "D0"),
    OUTPUTS: ("DATA", "INTERFACE", "D0"),
}
"""Context types, old and new, and memory segment of each register, as in AMD's files."""


def _work(part: Part) -> dict[str, int]:
    """Return the operations of the convolutions, without and with the array's idle lanes.

    VART only displays them.
    """
    layers = [node.layer for node in part.plan.network.nodes]
    convolutions = [layer for layer in layers if isinstance(layer, ConvLayer)]
    inits: dict[str, Instruction] = {}
    cycles = 0
    for i in part.code:
        if i.name.endswith("INIT"):
            inits[i.name] = i
        cycles += array_cycles(i, inits) if i.name == "CONV" else 0
    return {
        "workload": sum(2 * math.prod(c.output) * c.weights.size for c in convolutions),
        "workload_on_arch": cycles * part.plan.shape.array.operations,
    }


def _by_register(values: dict[int, Any]) -> dict[str, Any]:
    return {f"REG_{register}": value for register, value in values.items()}


def _place_tensors(subgraph: Subgraph, part: Part) -> None:
    """Set the location of each tensor: in the DDR (location 1), or only on the chip (0)."""
    network = part.plan.network
    for op in subgraph.get_ops():
        view = network.views.get(op.get_name())
        if view is not None and part.plan.in_ddr(view.store):
            _place(op.get_output_tensor(), view)
        elif view is not None:
            _set(op.get_output_tensor(), WORKSPACE, 0, 0)
        elif op.get_output_tensor().has_attr("ddr_addr"):
            op.get_output_tensor().set_attr("location", 1)
    for op in subgraph.get_ops():
        if op.get_name() in network.outputs:
            store, tensor = network.outputs[op.get_name()], op.get_input_tensor("input")
            _set(tensor, store.register, store.offset, 1)
            dims = list(tensor.dims)
            tensor.set_attr("stride", [math.prod(dims[n + 1 :]) for n in range(len(dims))])


def _place(tensor: Any, view: View) -> None:
    """Set a map's location, with its strides in bytes if it may be part of a larger map."""
    _set(tensor, view.store.register, view.store.offset + view.first, 1)
    dims = list(tensor.dims)
    if dims == [1, view.height, view.width, view.channels]:
        size = view.height * view.row_stride
        tensor.set_attr("stride", [size, view.row_stride, view.pixel_stride, 1])


def _set(tensor: Any, register: int, offset: int, location: int) -> None:
    tensor.set_attr("reg_id", register)
    tensor.set_attr("ddr_addr", offset)
    tensor.set_attr("location", location)
