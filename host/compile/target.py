"""What a model is compiled for: a board, by its profile, or the emulator."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from tutelage.core.board_profile import board_names, load_profile
from tutelage.core.errors import FAILED, DpuError, TutelageError
from tutelage.core.files import read_bounded
from tutelage.core.fingerprint import EMULATOR_DPU_NAME, describe, dpu_name
from tutelage.dpu.xmodel.graph import Graph

EMULATOR = "emulator"

MAX_ARCH = 1 << 16
"""Most bytes of an arch.json."""


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

    @property
    def fingerprint(self) -> int:
        """The one that code is made for.

        Raises
        ------
        CompileUsageError
            None is known.
        """
        if not self.fingerprints:
            raise CompileUsageError(
                f"the fingerprint of the {self.name}'s DPU is not known: give the number with "
                "--target, or the board's arch.json with --arch"
            )
        return next(iter(self.fingerprints))

    def with_arch(self, path: Path) -> Target:
        """Return the target with the fingerprint that an arch.json has.

        Raises
        ------
        CompileUsageError
            The file has none.
        """
        try:
            number = json.loads(read_bounded(path, MAX_ARCH))["fingerprint"]
            fingerprint = int(str(number), 0)
        except (OSError, DpuError, ValueError, LookupError, TypeError) as error:
            raise CompileUsageError(f"{path}: no arch.json with a fingerprint: {error}") from error
        return replace(self, dpu_name=dpu_name(fingerprint), fingerprints={fingerprint: str(path)})


def target_names() -> list[str]:
    """What `load_target` takes."""
    return [*sorted(board_names()), EMULATOR]


def load_target(name: str) -> Target:
    """The target called `name`: "emulator", a board by its profile's file name, or a fingerprint.

    Raises
    ------
    CompileUsageError
        There is none of that name.
    """
    if name == EMULATOR:
        return Target(EMULATOR, EMULATOR_DPU_NAME, {})
    if name.startswith("0x"):
        return _by_fingerprint(name)
    if name not in target_names():
        known = ", ".join([*target_names(), "a fingerprint such as 0x101000016010407"])
        raise CompileUsageError(f"no target {name!r}; there are {known}")
    profile = load_profile(name)
    target = Target(profile.name, profile.dpu_name, profile.fingerprints)
    if profile.compiler is None:
        return target
    how = profile.compiler
    return replace(target, arch=how.arch, command=how.command, images=how.images)


def _by_fingerprint(text: str) -> Target:
    try:
        number = int(text, 16)
    except ValueError:
        raise CompileUsageError(f"--target {text}: not a hexadecimal number") from None
    return Target(describe(number), dpu_name(number), {number: ""})


def compiled_for(path: Path) -> str | None:
    """Return the DPU's name that a compiled model's parts tell; None where the file tells none."""
    try:
        parts = Graph.deserialize(str(path)).get_root_subgraph().toposort_child_subgraph()
    except DpuError:
        return None
    names = (part.get_attr("dpu_name") for part in parts if part.has_attr("dpu_name"))
    return next(map(str, names), None)
