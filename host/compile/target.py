"""What a model is compiled for: a board, by its profile, or the emulator."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tutelage.core.board_profile import board_names, load_profile
from tutelage.core.errors import FAILED, DpuError, TutelageError
from tutelage.core.fingerprint import EMULATOR_DPU_NAME
from tutelage.dpu.xmodel.graph import Graph

EMULATOR = "emulator"


class CompileError(TutelageError):
    """Compiling failed, or gave what must not be used; one line that says what to do."""

    status = FAILED


class CompileUsageError(TutelageError):
    """Compiling was asked for in a way that cannot work; the text is one line."""


@dataclass(frozen=True)
class Target:
    """A DPU, and how AMD's compiler is called for it.

    Attributes
    ----------
    name : for the reader, e.g. "ZCU104"
    dpu_name : its architecture, as compiled models name it; the emulator has one of its own
    fingerprints : `dpu_fingerprint` of models that it runs -> release of Vitis AI, the one that
        goes with the board's usual image first
    arch, command, images : of AMD's compiler, as in the board's profile; empty for the emulator
    """

    name: str
    dpu_name: str
    fingerprints: dict[int, str]
    arch: str = ""
    command: tuple[str, ...] = ()
    images: dict[str, str] = field(default_factory=dict)

    @property
    def is_emulator(self) -> bool:
        """Whether it is our own emulation, which AMD's compiler does not know."""
        return self.dpu_name == EMULATOR_DPU_NAME


def target_names() -> list[str]:
    """What `load_target` takes."""
    return [*sorted(board_names()), EMULATOR]


def load_target(name: str) -> Target:
    """The target called `name`: "emulator", or a board by its profile's file name.

    Raises
    ------
    CompileUsageError
        There is none of that name, or its profile does not tell how to compile for it.
    """
    if name == EMULATOR:
        return Target(EMULATOR, EMULATOR_DPU_NAME, {})
    if name not in target_names():
        raise CompileUsageError(f"no target {name!r}; there are {', '.join(target_names())}")
    profile = load_profile(name)
    if profile.compiler is None:
        raise CompileUsageError(f"{name}: its profile names no target of AMD's compiler")
    how = profile.compiler
    return Target(
        profile.name, profile.dpu_name, profile.fingerprints, how.arch, how.command, how.images
    )


def compiled_for(path: Path) -> str | None:
    """Return the DPU's name that a compiled model's parts tell; None where the file tells none."""
    try:
        parts = Graph.deserialize(str(path)).get_root_subgraph().toposort_child_subgraph()
    except DpuError:
        return None
    names = (part.get_attr("dpu_name") for part in parts if part.has_attr("dpu_name"))
    return next(map(str, names), None)
