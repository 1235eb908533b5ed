"""The order of instructions: four engines in parallel, synchronised only by tokens.

There is a counter for each ordered pair of engines. An instruction begins when, for each engine in
its dpdon, the counter from that engine to its own is above 0, and decrements each; when done, it
increments the counters from its own engine to those in its dpdby. At the start, each engine has one
token from itself.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Sequence

from tutelage.dpu.isa.encoding import Instruction
from tutelage.dpu.isa.executor import Settings, execute_at
from tutelage.dpu.isa.formats import ENGINES, Engine, IsaError, engines_of
from tutelage.dpu.isa.machine import Machine


class Tokens:
    """The counters between engines."""

    def __init__(self) -> None:
        self.counts = {(a, b): int(a is b) for a in ENGINES for b in ENGINES}

    def missing(self, instruction: Instruction) -> list[Engine]:
        """Return the engines whose tokens the instruction still needs."""
        own = instruction.engine
        return [e for e in engines_of(instruction.dpdon) if not self.counts[e, own]]

    def take(self, instruction: Instruction) -> None:
        """Begin an instruction: take its tokens."""
        for engine in engines_of(instruction.dpdon):
            self.counts[engine, instruction.engine] -= 1

    def give(self, instruction: Instruction) -> None:
        """End an instruction: give its tokens."""
        for engine in engines_of(instruction.dpdby):
            self.counts[instruction.engine, engine] += 1


def legal_order(code: Sequence[Instruction], seed: int | None = None) -> Iterator[int]:
    """Yield the indices of instructions in an order that the tokens allow.

    Parameters
    ----------
    seed : seed of the choice between ready engines; None for the order of the code

    Raises
    ------
    IsaError
        There is a deadlock, the code's own order is not legal, or tokens are left over at the
        end.
    """
    tokens = Tokens()
    order = _by_seed(code, tokens, seed) if seed is not None else _in_order(code, tokens)
    for place in order:
        tokens.take(code[place])
        yield place
        tokens.give(code[place])
    if tokens.counts != Tokens().counts:
        left = {f"{a.name} to {b.name}": n for (a, b), n in tokens.counts.items() if n != (a is b)}
        raise IsaError(f"the code ends with tokens left over or missing: {left}")


def _in_order(code: Sequence[Instruction], tokens: Tokens) -> Iterator[int]:
    for place, instruction in enumerate(code):
        if missing := tokens.missing(instruction):
            raise IsaError(f"{_waits(place, instruction, missing)} that only later code gives")
        yield place


def _by_seed(code: Sequence[Instruction], tokens: Tokens, seed: int) -> Iterator[int]:
    choose = random.Random(seed)
    queues = {engine: deque[int]() for engine in ENGINES}
    for place, instruction in enumerate(code):
        queues[instruction.engine].append(place)
    left = len(code)
    while left:
        heads = [queue for queue in queues.values() if queue]
        ready = [queue for queue in heads if not tokens.missing(code[queue[0]])]
        if not ready:
            waits = "; ".join(_waits(q[0], code[q[0]], tokens.missing(code[q[0]])) for q in heads)
            raise IsaError(f"deadlock: {waits}")
        yield choose.choice(ready).popleft()
        left -= 1


def _waits(place: int, instruction: Instruction, missing: Sequence[Engine]) -> str:
    names = " and ".join(str(engine.name) for engine in missing)
    return f"instruction {place} ({instruction.name}) waits for a token of {names}"


def run(code: Sequence[Instruction], machine: Machine, seed: int | None = None) -> None:
    """Execute code on a machine, in its own order or, with `seed`, in another legal one.

    Raises
    ------
    IsaError
        As for `legal_order` and `execute`; the message names the instruction.
    """
    settings = Settings()
    for place in legal_order(code, seed):
        execute_at(code, place, machine, settings)
