"""What instructions cost beside the array's own rule: the one place of these numbers.

`python -m tutelage.host.latency.fit` fits four of them to AMD's published frame rates (ZCU104,
ZCU102 and KV260, Vitis AI 2.5) and writes them to `costs.toml` here. Both the simulation of code
(`tutelage.dpu.isa.timing`) and the layer model (`tutelage.dpu.predict.stage_times`) take them from
here. They are estimates, as good as that fit; none of them was measured on a board.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tutelage.core.errors import DpuError
from tutelage.core.toml_file import read_toml

FITTED_COSTS = Path(__file__).with_name("costs.toml")

FITTED_FIELDS = ("array_slack", "load_bytes", "load_cycles", "stage_cycles")
"""Fields of `Costs` that are fitted; the others are constants of this module."""

SAVE_BYTES = 16.0
"""Bytes that a SAVE moves in a cycle: one port of 128 bits (PG338). A free fit finds 15 to 16.4."""

STRETCH_CYCLES = 4.0
"""Least cycles of a pixel that is apart from its neighbours in the DDR: assumed, the published
classifiers do not show it. By it DenseNetX is predicted with one thread from +2 % (0 cycles) over
-7 % (4) to -16 % (6) of its published speed: 0 to 4 are equally good."""


@dataclass(frozen=True)
class Costs:
    """Costs of a core's instructions, in DPU cycles.

    Attributes
    ----------
    array_slack : how much longer CONVs take than by the compiler's own `workload_on_arch`
    load_bytes : bytes that LOADs move in a cycle; two ports of 128 bits give 32 at most (PG338)
    load_cycles : of each LOAD or SAVE, besides its bytes
    stage_cycles : of the first LOAD of a layer, that of its biases, for which the chip waits; also
        the latency from a SAVE through the DDR to a LOAD that waits for it
    save_bytes, stretch_cycles : `SAVE_BYTES`, `STRETCH_CYCLES`
    word_cycles : of each instruction word fetched, for all engines together; not known, so 0
    """

    array_slack: float
    load_bytes: float
    load_cycles: float
    stage_cycles: float
    save_bytes: float = SAVE_BYTES
    stretch_cycles: float = STRETCH_CYCLES
    word_cycles: float = 0.0


@cache
def fitted_costs() -> Costs:
    """Return the fitted costs.

    Raises
    ------
    DpuError
        Their file is missing or damaged.
    """
    table = read_toml(FITTED_COSTS)
    try:
        return Costs(**{name: float(table[name]) for name in FITTED_FIELDS})
    except (KeyError, TypeError, ValueError) as error:
        raise DpuError(f"{FITTED_COSTS}: {error!r}") from error
