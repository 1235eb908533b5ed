"""Compiles DPU subgraphs: from their ops to instructions and what VART reads beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.core.fingerprint import dpu_name
from tutelage.core.fixed_point import Array
from tutelage.dpu.compiler.board.emit import CONSTANTS, INPUTS, OUTPUTS, WORKSPACE, Emitter
from tutelage.dpu.compiler.board.memory import place_stores
from tutelage.dpu.compiler.board.network import Store, network_of
from tutelage.dpu.compiler.board.parameters import Parameters
from tutelage.dpu.compiler.board.plan import Plan, plan_network
from tutelage.dpu.engine.program import build_program
from tutelage.dpu.isa.encoding import Instruction, encode
from tutelage.dpu.isa.machine import Machine, shape_of
from tutelage.dpu.isa.tokens import set_tokens
from tutelage.dpu.ops.limits import BANK_DEPTH
from tutelage.dpu.xmodel.subgraph import Subgraph


@dataclass(frozen=True)
class Part:
    """A compiled DPU subgraph.

    Attributes
    ----------
    plan : what is where
    code : its instructions
    nodes : number of the node of each instruction
    parameters : bytes of the register of constants
    sizes : bytes of the other registers
    """

    plan: Plan
    code: list[Instruction]
    nodes: list[int]
    parameters: bytes
    sizes: dict[int, int]


def compile_part(subgraph: Subgraph, fingerprint: int, room: int = BANK_DEPTH) -> Part:
    """Compile a DPU subgraph.

    Parameters
    ----------
    fingerprint : of the DPU
    room : as of `plan_network`

    Raises
    ------
    Refusal
        An op of it has no instructions, or does not fit the chip.
    UnsupportedError
        The DPU is not known.
    """
    shape = shape_of(fingerprint)
    constants = build_program(subgraph.get_graph(), subgraph).constants
    network = network_of(subgraph, constants)
    plan = plan_network(network, shape, room)
    parameters = _parameters(subgraph, constants)
    sizes = place_stores(plan, parameters)
    emitter = Emitter(plan, parameters)
    code = emitter.emit()
    data = bytes(emitter.parameters.data)
    lengths = {CONSTANTS: len(data), **sizes}
    registers = {register: np.zeros(size, np.int8) for register, size in lengths.items()}
    set_tokens(code, Machine(shape, registers))
    return Part(plan, code, emitter.nodes, data, sizes)


def _parameters(subgraph: Subgraph, constants: dict[str, Array]) -> Parameters:
    """The constants where the file has them; what the code needs otherwise comes behind them."""
    data = subgraph.get_attr("reg_id_to_parameter_value").get("REG_0", b"")
    parameters = Parameters(bytearray(data))
    for op in subgraph.get_ops():
        tensor = op.get_output_tensor()
        if op.get_name() in constants and tensor.has_attr("ddr_addr"):
            parameters.know(constants[op.get_name()], int(tensor.get_attr("ddr_addr")))
    return parameters


def seal(subgraph: Subgraph, part: Part, fingerprint: int) -> None:
    """Write what VART reads of a DPU subgraph into it: code, registers, places of tensors."""
    sizes = {CONSTANTS: len(part.parameters), **part.sizes}
    uses = {CONSTANTS: "CONST", WORKSPACE: "DATA", INPUTS: "DATA", OUTPUTS: "DATA"}
    kept = {register: size for register, size in sizes.items() if size}
    attrs: dict[str, Any] = {
        "dpu_name": dpu_name(fingerprint),
        "mc_code": encode(part.code),
        "reg_id_to_parameter_value": {"REG_0": part.parameters},
        "reg_id_to_size": _by_register(kept),
        "reg_id_to_context_type": _by_register({r: uses[r] for r in kept}),
        "runner": {"run": "libvart-dpu-runner.so"},
    }
    for name, value in attrs.items():
        subgraph.set_attr(name, value)
    subgraph.set_attr("dpu_fingerprint", fingerprint, "uint64_value")
    _place_tensors(subgraph, part)


def _by_register(values: dict[int, Any]) -> dict[str, Any]:
    return {f"REG_{register}": value for register, value in values.items()}


def _place_tensors(subgraph: Subgraph, part: Part) -> None:
    network = part.plan.network
    for op in subgraph.get_ops():
        name = op.get_name()
        if name in network.inputs:
            _place(op.get_output_tensor(), network.inputs[name])
        if name in network.outputs:
            _place(op.get_input_tensor("input"), network.outputs[name])


def _place(tensor: Any, store: Store) -> None:
    tensor.set_attr("reg_id", store.register)
    tensor.set_attr("ddr_addr", store.offset)
    tensor.set_attr("location", 1)
