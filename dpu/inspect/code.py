"""Analysis of a compiled file's DPU code, layer by layer: traced, executed and timed.

    for part in analyse(graph):
        part.layers                  # a `LayerCode` per layer of the code
        part.facts()                 # everything, for JSON

Instructions do not name layers or tensors: `tutelage.dpu.isa.attribution` finds them by
executing the code. Times are simulated (`tutelage.dpu.isa.timing`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tutelage.core.errors import UnsupportedError
from tutelage.core.fingerprint import device_of
from tutelage.dpu.engine.instructions import CompiledPart, place_of
from tutelage.dpu.isa.attribution import NOTHING, Attribution, Lifetime, Node, attribute
from tutelage.dpu.isa.encoding import Instruction
from tutelage.dpu.isa.machine import Machine
from tutelage.dpu.isa.timing import Timeline, array_cycles, bytes_moved, simulate, stretches
from tutelage.dpu.ops.registry import type_of
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op
from tutelage.dpu.xmodel.subgraph import Subgraph

MAX_FOLLOWED = 1 << 29
"""Most bytes of registers whose contents are traced, which takes two more bytes each."""


def compiled_parts(graph: Graph) -> list[CompiledPart]:
    """Return the DPU subgraphs of a file, in execution order.

    Raises
    ------
    UnsupportedError
        There are none, or one has no code or code of an unknown DPU.
    """
    children = graph.get_root_subgraph().toposort_child_subgraph()
    parts = [CompiledPart(child) for child in children if device_of(child) == "DPU"]
    if not parts:
        raise UnsupportedError("has no DPU code: no part of it is compiled for a DPU")
    return parts


def nodes_of(subgraph: Subgraph) -> list[Node]:
    """Return the layers, inputs and constants of a DPU subgraph, in topological order.

    Ops without instructions (reshapes, concats, copies out of the DPU) are skipped: their inputs
    take their place.
    """
    kept = [op for op in subgraph.toposort() if not _is_looked_through(op, subgraph)]
    numbers = {op.get_name(): number for number, op in enumerate(kept)}
    sources: dict[str, frozenset[int]] = {}
    for op in subgraph.toposort():
        read = [s for ops in op.get_input_ops().values() for s in ops if subgraph.has_op(s)]
        found = [
            {numbers[s.get_name()]} if s.get_name() in numbers else sources[s.get_name()]
            for s in read
        ]
        sources[op.get_name()] = frozenset[int]().union(*found)
    return [
        Node(
            op.get_name(),
            sources[op.get_name()],
            _reader(op, subgraph, numbers),
            None if _is_computed(op, subgraph) else _bytes_of(op),
        )
        for op in kept
    ]


def _is_computed(op: Op, subgraph: Subgraph) -> bool:
    """Return whether the op's value is computed from other ops of the subgraph."""
    return any(subgraph.has_op(s) for ops in op.get_input_ops().values() for s in ops)


def _is_looked_through(op: Op, subgraph: Subgraph) -> bool:
    kind = type_of(op)
    return kind.free or (kind.transparent and _is_computed(op, subgraph))


def _reader(op: Op, subgraph: Subgraph, numbers: dict[str, int]) -> int:
    """Return the layer that a constant belongs to; NOTHING for other ops."""
    if type_of(op).source != "constant":
        return NOTHING
    readers = (numbers.get(r.get_name()) for r in op.get_fanout_ops() if subgraph.has_op(r))
    return next((number for number in readers if number is not None), NOTHING)


def _bytes_of(op: Op) -> tuple[int, int, int] | None:
    """Return register and byte range of an op's value, or None."""
    try:
        place = place_of(op.get_output_tensor())
    except UnsupportedError:
        return None
    return place.register, place.offset, place.end


@dataclass
class LayerCode:
    """A layer's part of the code.

    Attributes
    ----------
    name : name of its op; "" for instructions of no layer
    instructions : counts by instruction name
    parameter_bytes, map_bytes, saved_bytes : bytes that LOADs and SAVEs move
    stretches : number of separate blocks in the DDR that they access
    array_cycles, misc_cycles : cycles in which the array, and MISC, compute
    begin, end : simulated cycles
    waits : simulated idle cycles of engines before its instructions, by (engine, engine whose
        token it waited for)
    first, last : indices of its instructions in the code
    """

    name: str
    first: int
    last: int = 0
    instructions: Counter[str] = field(default_factory=Counter)
    parameter_bytes: int = 0
    map_bytes: int = 0
    saved_bytes: int = 0
    stretches: int = 0
    array_cycles: int = 0
    misc_cycles: int = 0
    begin: float = math.inf
    end: float = 0.0
    waits: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def main_wait(self) -> tuple[str, str, float] | None:
        """The longest wait: engine, engine that it waited for, cycles; None if there is none.

        Waits of CONV and MISC take precedence, since LOAD and SAVE are often idle anyway.
        """
        computing = [(pair, n) for pair, n in self.waits.items() if pair[0] in ("CONV", "MISC")]
        found = max(computing or self.waits.items(), key=lambda item: item[1], default=None)
        return found and (*found[0], found[1])

    def facts(self) -> dict[str, Any]:
        """Return the attributes for JSON."""
        return {
            "name": self.name,
            "first": self.first,
            "last": self.last,
            "instructions": dict(self.instructions),
            "parameter_bytes": self.parameter_bytes,
            "map_bytes": self.map_bytes,
            "saved_bytes": self.saved_bytes,
            "stretches": self.stretches,
            "array_cycles": self.array_cycles,
            "misc_cycles": self.misc_cycles,
            "begin": round(self.begin, 1),
            "end": round(self.end, 1),
            "waits": [
                {"engine": own, "for": other, "cycles": round(cycles, 1)}
                for (own, other), cycles in sorted(self.waits.items(), key=lambda item: -item[1])
            ],
        }


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor is stored, and when.

    Attributes
    ----------
    name : name of the op
    kind : "input", "constant" or "layer"
    bytes : register and byte range in the DDR; None if it is never there
    chip, ddr : first and last instruction at which it is in banks, and in the DDR; None if it never
        is
    """

    name: str
    kind: str
    bytes: tuple[int, int, int] | None
    chip: tuple[int, int] | None
    ddr: tuple[int, int] | None


@dataclass(frozen=True)
class PartCode:
    """The code of a DPU subgraph, traced and timed.

    Attributes
    ----------
    part : subgraph with code
    nodes : its layers, inputs and constants
    attribution : nodes that each instruction serves
    timeline : begin and end of each instruction
    """

    part: CompiledPart
    nodes: list[Node]
    attribution: Attribution
    timeline: Timeline

    @property
    def code(self) -> list[Instruction]:
        """Instructions of the subgraph."""
        return self.part.code

    @property
    def title(self) -> str:
        """Name of the subgraph, its instruction set and its number of instructions."""
        shape = self.part.shape
        return f"{self.part.subgraph.get_name()}: {shape.isa.name}, {len(self.code):,} instructions"

    @cached_property
    def layers(self) -> list[LayerCode]:
        """The layers, in the order of their first instruction."""
        found: dict[int, LayerCode] = {}
        inits: dict[str, Instruction] = {}
        for place, instruction in enumerate(self.code):
            number = self.attribution.layers[place]
            layer = found.setdefault(number, LayerCode(self.name_of(number), place))
            if instruction.name.endswith("INIT"):
                inits[instruction.name] = instruction
            self._count(layer, place, array_cycles(instruction, inits))
        for layer in found.values():  # INITs alone take no time
            layer.begin = min(layer.begin, float(self.timeline.begins[layer.last]))
        return list(found.values())

    def _count(self, layer: LayerCode, place: int, cycles: int) -> None:
        instruction, timeline = self.code[place], self.timeline
        layer.last = place
        layer.instructions[instruction.name] += 1
        layer.stretches += stretches(instruction)
        moved = bytes_moved(instruction)
        if instruction.name == "SAVE":
            layer.saved_bytes += moved
        elif instruction.name == "LOAD" and instruction.bank_id < self.part.shape.map_banks:
            layer.map_bytes += moved
        else:
            layer.parameter_bytes += moved
        if instruction.name == "CONV":
            layer.array_cycles += cycles
        else:
            layer.misc_cycles += cycles
        begin, end = float(timeline.begins[place]), float(timeline.ends[place])
        if end > begin or instruction.name == "END":  # an INIT takes no time
            layer.begin, layer.end = min(layer.begin, begin), max(layer.end, end)
        other = int(timeline.waited_for[place])
        if other >= 0 and timeline.waits[place] > 0:
            pair = str(instruction.engine.name), str(self.code[other].engine.name)
            layer.waits[pair] = layer.waits.get(pair, 0.0) + float(timeline.waits[place])

    def name_of(self, number: int) -> str:
        """Return the name of a node; "" for NOTHING."""
        return "" if number == NOTHING else self.nodes[number].name

    @cached_property
    def places(self) -> list[TensorPlace]:
        """The location of each tensor that the code accesses."""
        return [
            self._place(self.nodes[number], life)
            for number, life in sorted(self.attribution.lifetimes.items())
        ]

    def _place(self, node: Node, life: Lifetime) -> TensorPlace:
        kind = "constant" if node.reader != NOTHING else "layer" if node.sources else "input"
        return TensorPlace(node.name, kind, node.place or life.bytes, life.chip, life.ddr)

    def cycles_of(self, span: tuple[int, int] | None) -> list[float] | None:
        """Return the simulated begin of one instruction and end of another, [cycles, cycles]."""
        if span is None:
            return None
        begins, ends = self.timeline.begins, self.timeline.ends
        return [round(float(begins[span[0]]), 1), round(float(ends[span[1]]), 1)]

    def facts(self) -> dict[str, Any]:
        """Return everything except the instructions, for JSON."""
        busy = self.timeline.busy
        return {
            "name": self.part.subgraph.get_name(),
            "isa": self.part.shape.isa.name,
            "instructions": len(self.code),
            "cycles": round(self.timeline.cycles, 1),
            "busy_cycles": {str(e.name): round(cycles, 1) for e, cycles in busy.items()},
            "layers": [layer.facts() for layer in self.layers],
            "tensors": [
                {
                    "name": tensor.name,
                    "kind": tensor.kind,
                    "register": tensor.bytes and tensor.bytes[0],
                    "bytes": tensor.bytes and list(tensor.bytes[1:]),
                    "on_chip": tensor.chip and list(tensor.chip),
                    "on_chip_cycles": self.cycles_of(tensor.chip),
                    "in_ddr": tensor.ddr and list(tensor.ddr),
                    "in_ddr_cycles": self.cycles_of(tensor.ddr),
                }
                for tensor in self.places
            ],
        }

    def instruction_facts(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Return the instructions at `places`, for JSON."""
        return [
            {
                "place": place,
                "instruction": self.code[place].name,
                "fields": self.code[place].values,
                "layer": self.name_of(self.attribution.layers[place]),
                "reads": [self.name_of(number) for number in self.attribution.reads[place]],
                "begin": round(float(self.timeline.begins[place]), 1),
                "end": round(float(self.timeline.ends[place]), 1),
            }
            for place in places
        ]

    def comment(self, place: int) -> str:
        """Return a comment for an instruction: layer, tensors, banks or bytes."""
        instruction = self.code[place]
        own, read = self.attribution.layers[place], self.attribution.reads[place]
        words = [self.name_of(own)]
        others = [self.name_of(number) for number in read if number != own]
        if others:
            words.append("reads " + ", ".join(others[:4]) + (", ..." if len(others) > 4 else ""))
        words.append(_where(instruction, self.part))
        return "; ".join(filter(None, words))


def _where(i: Instruction, part: CompiledPart) -> str:
    """Return source and target: bytes and bank of a LOAD or SAVE, else the banks."""
    name = part.shape.bank_name
    if i.name in ("LOAD", "SAVE"):
        jump = i.jump_read if i.name == "LOAD" else i.jump_write
        last = i.ddr_addr + (i.length - 1) * jump + i.channel
        ddr, bank = f"REG_{i.reg_id}[{i.ddr_addr}:{last}]", f"{name(i.bank_id)}[{i.bank_addr}]"
        return f"{ddr} to {bank}" if i.name == "LOAD" else f"{bank} to {ddr}"
    values = i.values
    ends = [
        f"{name(values[f'bank_id_{end}'])}[{values[f'bank_addr_{end}']}]"
        for end in ("in", "out")
        if f"bank_id_{end}" in values
    ]
    return " to ".join(ends)


def analyse(graph: Graph) -> list[PartCode]:
    """Trace and time the code of each DPU subgraph; takes a few seconds for a large network.

    Raises
    ------
    DpuError
        The file has no code, or the code is invalid.
    """
    return [analyse_part(part) for part in compiled_parts(graph)]


def analyse_part(part: CompiledPart) -> PartCode:
    """Trace and time the code of a subgraph.

    Raises
    ------
    DpuError
        Its code is invalid, or its registers are too large.
    """
    timeline = simulate(part.code, part.shape)
    registers = part.registers()
    size = sum(map(len, registers.values()))
    if size > MAX_FOLLOWED:
        raise UnsupportedError(
            f"{part.subgraph.get_name()}: registers take {size:,} bytes; at most {MAX_FOLLOWED:,} "
            "can be traced"
        )
    nodes = nodes_of(part.subgraph)
    return PartCode(
        part, nodes, attribute(part.code, Machine(part.shape, registers), nodes), timeline
    )
