"""Allocation of stores in the DDR's registers."""

from __future__ import annotations

from tutelage.dpu.compiler.board.network import Store
from tutelage.dpu.compiler.board.parameters import Parameters
from tutelage.dpu.compiler.board.stages import Plan

CONSTANTS, WORKSPACE, INPUTS, OUTPUTS = range(4)
"""Numbers of the DPU's registers, as assigned by AMD's compiler (measured on its files)."""

MARGIN = 64
"""Free bytes around an input, since LOADs of an augmented first layer extend beyond it."""

ALIGNMENT = 64
"""Alignment of stores, bytes."""


def place_stores(plan: Plan, parameters: Parameters) -> dict[int, int]:
    """Assign register and offset to every store in the DDR; return the sizes of the registers.

    Inputs and outputs have their own registers. The others share the workspace: a store may reuse
    the memory of one that is no longer read.
    """
    for store, values in plan.network.constants.items():
        store.register, store.offset = CONSTANTS, parameters.add(values)
    network, sizes = plan.network, dict.fromkeys((WORKSPACE, INPUTS, OUTPUTS), 0)
    for register, stores in ((INPUTS, network.inputs), (OUTPUTS, network.outputs)):
        end = 0
        for store in dict.fromkeys(stores.values()):
            margin = MARGIN if register == INPUTS else 0
            store.register, store.offset = register, _aligned(end + margin)
            end = store.offset + store.size + margin
        sizes[register] = end
    stage_of = [number for number, stage in enumerate(plan.stages) for _ in stage.nodes]
    placed: list[tuple[Store, int, int]] = []
    for store in network.stores:
        if store.register in (CONSTANTS, INPUTS, OUTPUTS) or not plan.in_ddr(store):
            continue
        first, last = _lifetime(plan, store, stage_of)
        others = [s for s, f, t in placed if not (t < first or last < f)]
        store.register, store.offset = WORKSPACE, _gap(others, store.size)
        placed.append((store, first, last))
        sizes[WORKSPACE] = max(sizes[WORKSPACE], store.offset + store.size)
    return sizes


def _lifetime(plan: Plan, store: Store, stage_of: list[int]) -> tuple[int, int]:
    """Return the first stage that writes a store and the last one that reads it."""
    writers = plan.network.writers[store]
    readers = [place for place, _ in plan.network.readers[store]]
    return stage_of[min(writers)], stage_of[max([*readers, *writers])]


def _gap(others: list[Store], size: int) -> int:
    """Return the first offset with room between other stores."""
    start = 0
    for other in sorted(others, key=lambda store: store.offset):
        if start + size <= other.offset:
            break
        start = max(start, _aligned(other.offset + other.size))
    return start


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
