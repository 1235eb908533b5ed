"""Costs of instructions in addition to the array's own rule; the only source of these figures.

`python -m tutelage.host.latency.fit` fits four of them to AMD's published frame rates (ZCU104,
ZCU102 and KV260, Vitis AI 2.5) and writes them to `costs.toml` in this folder. The simulation of
code (`tutelage.dpu.isa.timing`) and the layer model (`tutelage.dpu.predict.stage_times`) both use
them. They are estimates, only as good as that fit; none was measured on a board.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tutelage.core.errors import DpuError
from tutelage.core.toml_file import read_toml

FITTED_COSTS = Path(__file__).with_name("costs.toml")

FITTED_FIELDS = ("array_slack", "load_bytes", "load_cycles", "stage_cycles")
"""Fields of `Costs` that are fitted; the others are constants in this module."""

SAVE_BYTES = 16.0
"""Bytes that a SAVE moves per cycle: one 128-bit port (PG338). A free fit gives 15 to 16.4."""

STRETCH_CYCLES = 4.0
"""Least cycles per pixel that is not contiguous with its neighbours in the DDR. An assumption: the
published classifiers do not depend on it. The predicted speed of DenseNetX with one thread differs
from the published one by +2 % (0 cycles), -7 % (4) and -16 % (6): 0 to 4 are equally good."""


@dataclass(frozen=True)
class Costs:
    """Costs of a core's instructions, in DPU cycles.

    Attributes
    ----------
    array_slack : ratio of the time of CONVs to the compiler's own `workload_on_arch`
    load_bytes : bytes that LOADs move per cycle; two 128-bit ports allow at most 32 (PG338)
    load_cycles : overhead of each LOAD or SAVE, besides its bytes
    stage_cycles : overhead of the first LOAD of a layer, that of its biases, which the chip waits
        for; also the latency from a SAVE through the DDR to a LOAD that waits for it
    save_bytes, stretch_cycles : `SAVE_BYTES`, `STRETCH_CYCLES`
    word_cycles : cycles per fetched instruction word, for all engines together; unknown, so 0
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
        The file of fitted costs is missing or damaged.
    """
    table = read_toml(FITTED_COSTS)
    try:
        return Costs(**{name: float(table[name]) for name in FITTED_FIELDS})
    except (KeyError, TypeError, ValueError) as error:
        raise DpuError(f"{FITTED_COSTS}: {error!r}") from error
