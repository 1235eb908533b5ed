"""Cycles of a core for the stages of a network, by rules found in AMD's code.

A network is a sequence of stages (`tutelage.dpu.predict.traffic`): a convolution, or another
operation, with the pools and sums that read its rows on the chip. In the DPU code of AMD's compiler
stages follow one another with little overlap: the first LOAD of a stage, its bias, waits until
everything before it has ended. In a stage of n tiles of rows and g groups of output channels

    start = LOADs of a tile and of a group's weights               not overlapped
    first = (g - 1) * max(compute, LOADs of a group's weights) + compute      of a tile and group
    rest  = (n - 1) * max(compute, LOADs, fused operations)        of a tile
    end   = fused operations of a tile, and the remaining SAVEs
    stage = start + first + rest + end + stage_cycles * (2 if it loads a saved map, else 1)

where `compute` is `array_slack` times the cycles of a convolution (dpu/predict/cycles.py, idle
lanes included), or the cycles of another first operation. Weights of two groups that do not fit
into their banks together are loaded and used in turn. A transfer takes

    LOAD of a weight   max(load_cycles, bytes / load_bytes)
    LOAD of a row      load_cycles + bytes / load_bytes
    SAVE of a row      load_cycles + bytes / save_bytes
    a separate pixel   max(stretch_cycles, bytes / rate)

with the costs of `tutelage.dpu.isa.costs`, which the simulation of code also uses.

With n active cores, the bytes of LOADs and `stage_cycles` take 1 + shared * (n - 1) times as long,
and those of a core beyond the second another `third` times as long: the processor has four HP
ports, which the first two cores occupy (`NEAR_CORES`), so a third core must use another path.
SAVEs are not slowed down (nothing waits for them). The published speeds of one core (KV260), two
(ZCU104) and three (ZCU102) show this. It is not explained by how much the other cores use the
memory: docs/explanation/latency-model.md lists what was tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tutelage.core.fixed_point import Array
from tutelage.dpu.isa.costs import Costs
from tutelage.dpu.predict.traffic import Pixels, Stage

NEAR_CORES = 2
"""Cores served by the processor's four HP ports: AMD's reference design (DPUCZDX8G, prj_config)
connects two cores to HP0 to HP3. How AMD's ZCU102 image connects its third core is not known."""


@dataclass(frozen=True)
class Parameters:
    """Parameters of a core and its board; all but those of the A53 are fitted.

    Attributes
    ----------
    costs : costs of a core's instructions, common to all boards. The layer model uses `load_cycles`
        as an addition to a map's row and as a minimum of a weight's LOAD, and `stage_cycles` per
        stage, and once more if the stage loads a map that an earlier one saved
    shared : fraction by which each other active core slows down LOADs and `stage_cycles` (1: by
        their own time); at most 1, where another core would no longer help with LOADs
    third : additional factor for a core beyond the second
    pixel_ns : time of the A53 per value of the input (resizing, mean, scale, int8), ns
    frame_us : time of the A53 per frame (starting the job, softmax and top 5), us
    """

    costs: Costs
    shared: float
    third: float
    pixel_ns: float
    frame_us: float


_COLUMNS = (
    "computing", "fused", "tiles", "groups", "on_array", "serial", "returned", "parameter_loads",
    "parameter_bytes", "load_rows", "load_bytes", "save_rows", "save_bytes",
)  # fmt: skip
"""Attributes of `Stage` that `Counts` stores as arrays."""


class Counts:
    """The stages of one or several networks as arrays, for fast computation of times."""

    def __init__(self, networks: Iterable[Sequence[Stage]]) -> None:
        listed = list(networks)
        flat = [stage for network in listed for stage in network]
        self.networks = len(listed)
        self.owner = np.repeat(np.arange(len(listed)), [len(network) for network in listed])
        rows = [[getattr(stage, name) for name in _COLUMNS] for stage in flat]
        table = np.array(rows, np.float64).reshape(-1, len(_COLUMNS)).T
        self.of = dict(zip(_COLUMNS, table, strict=True))
        self._loaded = _pixels([stage.load_pixels for stage in flat])
        self._saved = _pixels([stage.save_pixels for stage in flat])

    def computing_cycles(self, given: Parameters) -> Array:
        """Return the cycles in which each stage's first operation computes."""
        slack = np.where(self.of["on_array"] > 0, given.costs.array_slack, 1.0)
        return np.asarray(slack * self.of["computing"])

    def parameter_cycles(self, given: Parameters, cores: int = 1, core: int = 0) -> Array:
        """Return the cycles in which each stage's parameters are loaded."""
        loads = self.of["parameter_loads"]
        moved = self.of["parameter_bytes"] * (_slower(given, cores, core) / given.costs.load_bytes)
        return np.maximum(given.costs.load_cycles * loads, moved)

    def load_cycles(self, given: Parameters, cores: int = 1, core: int = 0) -> Array:
        """Return the cycles in which each stage's maps are loaded."""
        costs = given.costs
        per_byte = _slower(given, cores, core) / costs.load_bytes
        rows, moved = self.of["load_rows"], self.of["load_bytes"]
        apart = self._apart(self._loaded, per_byte, costs)
        return costs.load_cycles * rows + moved * per_byte + apart

    def save_cycles(self, given: Parameters) -> Array:
        """Return the cycles in which each stage's result is saved."""
        costs = given.costs
        rows, moved = self.of["save_rows"], self.of["save_bytes"]
        apart = self._apart(self._saved, 1 / costs.save_bytes, costs)
        return costs.load_cycles * rows + moved / costs.save_bytes + apart

    def start_cycles(self, given: Parameters, cores: int = 1, core: int = 0) -> Array:
        """Return the cycles of each stage that do not overlap with anything."""
        return given.costs.stage_cycles * (1 + self.of["returned"]) * _slower(given, cores, core)

    def stage_cycles(self, given: Parameters, cores: int = 1, core: int = 0) -> Array:
        """Return the cycles of each stage on core `core` of `cores` active ones (module docs)."""
        tiles, groups = self.of["tiles"], self.of["groups"]
        tile = self.computing_cycles(given) / tiles
        load, fused = self.load_cycles(given, cores, core) / tiles, self.of["fused"] / tiles
        save = self.save_cycles(given)
        weights = self.parameter_cycles(given, cores, core) / groups
        group = tile / groups
        in_turn = self.of["serial"] > 0
        pair = np.where(in_turn, group + weights, np.maximum(group, weights))
        first = (groups - 1) * pair + group
        rest = (tiles - 1) * np.maximum(np.maximum(tile, load), fused)
        end = fused + np.maximum(save, rest + save / tiles)  # SAVEs begin after the first tile
        return np.asarray(load + weights + first + end + self.start_cycles(given, cores, core))

    def job_cycles(self, given: Parameters, cores: int = 1, core: int = 0) -> Array:
        """Return the cycles of one job of each network on core `core` of `cores` active ones."""
        return np.bincount(self.owner, self.stage_cycles(given, cores, core), self.networks)

    def jobs_per_cycle(self, given: Parameters, cores: int) -> Array:
        """Return the jobs per cycle of each network with the best number of up to `cores` cores.

        It is inf for networks without stages.
        """
        with np.errstate(divide="ignore"):
            return np.max([self._rate(given, busy) for busy in range(1, cores + 1)], 0)

    def _rate(self, given: Parameters, busy: int) -> Array:
        near = min(busy, NEAR_CORES)
        rate = near / self.job_cycles(given, busy)
        if busy > near:
            rate = rate + (busy - near) / self.job_cycles(given, busy, near)
        return np.asarray(rate)

    def _apart(self, pixels: Array, per_byte: float, costs: Costs) -> Array:
        """Return the cycles of each stage's separate pixels."""
        place, number, each = pixels
        cycles = number * np.maximum(costs.stretch_cycles, each * per_byte)
        return np.bincount(place.astype(int), cycles, len(self.owner))


def _slower(given: Parameters, cores: int, core: int) -> float:
    """Return the factor of a core's LOAD times with `cores` active cores."""
    common = 1 + given.shared * (cores - 1)
    return common if core < NEAR_CORES else common * given.third


def _pixels(lists: Sequence[Sequence[Pixels]]) -> Array:
    """Return indices of the stages, numbers of pixels and bytes per pixel, as three rows."""
    rows = [(stage, *pair) for stage, pairs in enumerate(lists) for pair in pairs]
    return np.array(rows, np.float64).reshape(-1, 3).T
