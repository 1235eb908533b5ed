"""Damaged DPU code: decoding, execution, tracing and timing, and damaged assembly."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.fuzz import models
from tests.fuzz.byte_edits import EDITS, edited
from tests.fuzz.harness import fuzz, one_line, run_main, scratch
from tutelage.__main__ import main
from tutelage.core.errors import DpuError
from tutelage.dpu.isa.assembly import assemble, disassemble
from tutelage.dpu.isa.attribution import Node, attribute
from tutelage.dpu.isa.encoding import Instruction, decode, encode
from tutelage.dpu.isa.formats import ISAS, IsaError
from tutelage.dpu.isa.machine import Machine, Shape, shape_of
from tutelage.dpu.isa.program import run
from tutelage.dpu.isa.races import run_checked
from tutelage.dpu.isa.timing import simulate

_FINGERPRINTS = {0: 0x1000020F6014407, 1: 0x101000016010407}
_SHAPES = {isa: shape_of(number) for isa, number in _FINGERPRINTS.items()}
_SIZE = 1 << 16
"""Bytes of each register."""

_SMALL = ("corpus/mnist_prelu_zcu104_vai14.xmodel", "mnist_prelu_zcu104_vai25.xmodel")
"""Real files of AMD's, of ISA0 and of ISA1, where they are beside the repository."""


@functools.cache
def _bases(isa: int) -> tuple[bytes, ...]:
    """Code to damage: each instruction once, and the layers of a real file."""
    every = [Instruction(form) for form in ISAS[isa].formats if form.name != "END"]
    for instruction in every:
        instruction.__dict__.update(dpdon=int(instruction.engine), dpdby=int(instruction.engine))
    inits = [i for i in every if i.name.endswith("INIT")]
    others = [i for i in every if not i.name.endswith("INIT")]
    end = Instruction(ISAS[isa].by_name["END"], dpdon=2, dpdby=2)
    return (encode([*inits, *others, end]), *_real(isa))


def _real(isa: int) -> tuple[bytes, ...]:
    from tutelage.dpu.xmodel.graph import Graph

    path = models.SHARED / _SMALL[isa]
    if not path.exists():
        return ()
    root = Graph.deserialize(path).get_root_subgraph()
    return tuple(p.get_attr("mc_code") for p in root.get_children() if p.has_attr("mc_code"))


_FIELD = st.tuples(
    st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True),
    st.sampled_from(["lowest", "highest"]) | st.floats(0, 1, exclude_max=True),
)  # fmt: skip
_CASES = st.tuples(st.sampled_from([0, 1]), st.integers(0, 3), st.lists(_FIELD, max_size=5))


def _damaged(case: Any) -> tuple[list[Instruction], Shape]:
    """Code with changed valid values of fields, which still decodes."""
    isa, number, edits = case
    bases = _bases(isa)
    code = decode(bases[number % len(bases)], ISAS[isa])
    for place, which, value in edits:
        instruction = code[int(place * len(code))]
        fields = instruction.form.fields
        field = fields[int(which * len(fields))]
        if isinstance(value, str):
            value = getattr(field, value)
        else:
            value = field.lowest + int(value * (field.highest - field.lowest + 1))
        instruction.__dict__[field.name] = value
    return decode(encode(code), ISAS[isa]), _SHAPES[isa]


def _machine(shape: Shape) -> Machine:
    return Machine(shape, {number: np.ones(_SIZE, np.int8) for number in range(4)})


@fuzz(st.tuples(_CASES, st.none() | st.integers(0, 9)), 50)
def test_code_fields(case: Any) -> None:
    """Real code with changed fields runs in some order, is timed and traced, or is refused."""
    edits, seed = case
    code, shape = _damaged(edits)
    nodes = [Node("x", place=(2, 0, _SIZE)), Node("y", frozenset([0]))]
    for step in (
        lambda: run(code, _machine(shape), seed),
        lambda: run_checked(code, _machine(shape)),
        lambda: simulate(code, shape),
        lambda: attribute(code, _machine(shape), nodes),
    ):
        try:
            step()
        except IsaError as error:
            one_line(error)


@fuzz(st.tuples(st.sampled_from([0, 1]), st.integers(0, 3), EDITS), 80)
def test_code_bytes(case: Any) -> None:
    """Code with changed bytes decodes and encodes to the same, or is refused."""
    isa, number, edits = case
    bases = _bases(isa)
    data = edited(bases[number % len(bases)], edits)
    try:
        code = decode(data, ISAS[isa])
    except IsaError as error:
        one_line(error)
        return
    assert encode(code) == data
    try:
        run(code, _machine(_SHAPES[isa]))
    except IsaError as error:
        one_line(error)


@fuzz(st.tuples(st.sampled_from([0, 1]), EDITS), 60)
def test_assembly(case: Any) -> None:
    """Assembly with changed text."""
    isa, edits = case
    text = "\n".join(disassemble(decode(_bases(isa)[0], ISAS[isa]), ["a layer"])).encode()
    path = scratch() / "damaged.s"
    path.write_bytes(edited(text, edits))
    run_main(main, "asm", path, "-o", scratch() / "code.bin", "--isa", f"isa{isa}")
    try:
        assemble(path.read_text(errors="replace").split("\n"), ISAS[isa])
    except DpuError as error:
        one_line(error)
