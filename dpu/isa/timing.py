"""Simulate the time of code: four engines in parallel, with the cost of each instruction.

    timeline = simulate(code, shape)
    timeline.cycles                      # of the whole program
    timeline.busy[Engine.CONV]           # cycles in which the array computes

The order is exact: it follows the tokens. The array's cycles are those of the compiler's own
`workload_on_arch`. The costs of transfers are estimates: `tutelage.dpu.isa.costs` gives the source
of each number. Data written by a SAVE can be loaded only `stage_cycles` later, when its token to a
LOAD arrives; this costs nothing if the LOAD engine is busy meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tutelage.core.fixed_point import Array
from tutelage.dpu.isa.costs import Costs, fitted_costs
from tutelage.dpu.isa.encoding import Instruction
from tutelage.dpu.isa.formats import ENGINES, Engine, IsaError, engines_of
from tutelage.dpu.isa.machine import Shape
from tutelage.dpu.isa.program import legal_order


@dataclass(frozen=True)
class Timeline:
    """Begin and end of each instruction.

    Attributes
    ----------
    code : the simulated code
    begins, ends : cycles, float64 [instruction]
    waits : cycles that the engine was idle before it, for tokens of other engines or for its fetch
    waited_for : index of the instruction that it waited for last; -1 for none
    """

    code: Sequence[Instruction]
    begins: Array
    ends: Array
    waits: Array
    waited_for: Array

    @property
    def cycles(self) -> float:
        """Cycles of the whole program."""
        return float(self.ends.max(initial=0))

    @property
    def busy(self) -> dict[Engine, float]:
        """Busy cycles of each engine."""
        engines = np.array([int(i.engine) for i in self.code])
        lengths = self.ends - self.begins
        return {engine: float(lengths[engines == engine].sum()) for engine in ENGINES}


def simulate(code: Sequence[Instruction], shape: Shape, costs: Costs | None = None) -> Timeline:
    """Simulate code on one core, without other traffic on the DDR.

    Parameters
    ----------
    shape : shape of the DPU's core
    costs : None for the fitted ones

    Raises
    ------
    IsaError
        The code's own order is not legal, or an INIT is missing.
    """
    deque(legal_order(code), maxlen=0)
    given = costs or fitted_costs()
    lengths = _lengths(code, shape, given)
    fetched = np.cumsum([i.form.words * given.word_cycles for i in code])
    tokens = {(a, b): deque([(0.0, -1)] if a is b else []) for a in ENGINES for b in ENGINES}
    free, last = dict.fromkeys(ENGINES, 0.0), dict.fromkeys(ENGINES, 0.0)
    begins, ends, waits = (np.zeros(len(code)) for _ in range(3))
    waited_for = np.full(len(code), -1)
    for place, instruction in enumerate(code):
        own = instruction.engine
        ready, giver = float(fetched[place]), -1
        takes = engines_of(instruction.dpdon)
        for engine in takes:
            time, producer = tokens[engine, own].popleft()
            if time > ready:
                ready, giver = time, producer
        # The second of two paired SAVEs has no token, since it uses the other port.
        begin = max(ready, free[own] if own in takes else last[own])
        last[own] = begin
        begins[place], ends[place] = begin, begin + lengths[place]
        waits[place], waited_for[place] = max(0.0, begin - free[own]), giver
        free[own] = max(free[own], ends[place])
        for engine in engines_of(instruction.dpdby):
            through = own is Engine.SAVE and engine is Engine.LOAD
            latency = given.stage_cycles if through else 0.0
            tokens[own, engine].append((free[own] + latency, place))
    return Timeline(code, begins, ends, waits, waited_for)


def _lengths(code: Sequence[Instruction], shape: Shape, costs: Costs) -> list[float]:
    """Return the cycles of each instruction; 0 for INITs."""
    found = []
    inits: dict[str, Instruction] = {}
    for instruction in code:
        if instruction.name.endswith("INIT"):
            inits[instruction.name] = instruction
        found.append(_length(instruction, inits, shape, costs))
    return found


def _length(i: Instruction, inits: dict[str, Instruction], shape: Shape, costs: Costs) -> float:
    if i.name not in ("LOAD", "SAVE"):
        slack = costs.array_slack if i.name == "CONV" else 1.0
        return slack * array_cycles(i, inits)
    rate = costs.load_bytes if i.name == "LOAD" else costs.save_bytes
    count = stretches(i)
    apart = count * costs.stretch_cycles if count > 1 else 0.0
    cycles = costs.load_cycles + max(bytes_moved(i) / rate, apart)
    starts = i.name == "LOAD" and i.bank_id == shape.bias_bank
    return cycles + costs.stage_cycles if starts else cycles


def stretches(i: Instruction) -> int:
    """Return the number of separate DDR blocks that a LOAD or SAVE accesses; 0 for others."""
    if i.name not in ("LOAD", "SAVE"):
        return 0
    jump = i.jump_read if i.name == "LOAD" else i.jump_write
    return 1 if jump <= i.channel else int(i.length)


def bytes_moved(i: Instruction) -> int:
    """Return the bytes that a LOAD or SAVE moves between the DDR and a bank; 0 for others."""
    return i.length * i.channel if i.name in ("LOAD", "SAVE") else 0


def array_cycles(i: Instruction, inits: dict[str, Instruction]) -> int:
    """Return the cycles in which CONV or MISC computes an instruction; 0 for other instructions.

    CONV processes its rows and output channels in parallel: one cycle per column, tap and group
    of input channels. MISC is assumed to do the same for its rows.

    Parameters
    ----------
    inits : current INITs, by name
    """
    if i.name == "CONV":
        init = _init(inits, "CONVINIT")
        return i.length * init.kernel_h * init.kernel_w * i.channel_group
    if i.name == "ALU":
        init = _init(inits, "ALUINIT")
        return init.length * init.kernel_h * init.kernel_w * init.channel_group
    if i.name == "POOL":
        init = _init(inits, "POOLINIT")
        kernel = init.kernel_h * init.kernel_w
        if init.pool_type == 2:
            kernel = i.global_kernel_h * i.global_kernel_w
        return i.length * kernel * i.channel_group
    if i.name == "DPTWISE":
        init = _init(inits, "DWINIT")
        return i.length * init.kernel_h * init.kernel_w * i.channel_group
    return i.length * i.channel_group * i.num if i.name == "ELEW" else 0


def _init(inits: dict[str, Instruction], name: str) -> Instruction:
    try:
        return inits[name]
    except KeyError:
        raise IsaError(f"there is no preceding {name}") from None
