"""Targets of compilation: boards, by their profiles, and the emulator."""

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
    """Compilation failed, or its result must not be used; one line that says what to do."""

    status = FAILED


class CompileUsageError(TutelageError):
    """The model or an option of the compilation cannot be used; the text is one line."""


@dataclass(frozen=True)
class Target:
    """A DPU, and how to call AMD's compiler for it.

    Attributes
    ----------
    name : for the reader, such as "ZCU104"
    dpu_name : its architecture, as compiled models name it; the emulator has its own
    fingerprints : `dpu_fingerprint` of models that it runs -> release of Vitis AI; first that of
        the board's usual image
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
        """Whether it is the emulation, which AMD's compiler does not support."""
        return self.dpu_name == EMULATOR_DPU_NAME

    @property
    def fingerprint(self) -> int:
        """Fingerprint that code is generated for.

        Raises
        ------
        CompileUsageError
            The DPU's fingerprint is not known.
        """
        if not self.fingerprints:
            raise CompileUsageError(
                f"the fingerprint of the {self.name}'s DPU is not known: give the number with "
                "--target, or the board's arch.json with --arch"
            )
        return next(iter(self.fingerprints))

    def with_arch(self, path: Path) -> Target:
        """Return the target with the fingerprint of an arch.json.

        Raises
        ------
        CompileUsageError
            The file cannot be read, or has no fingerprint.
        """
        try:
            number = json.loads(read_bounded(path, MAX_ARCH))["fingerprint"]
            fingerprint = int(str(number), 0)
        except (OSError, DpuError, ValueError, LookupError, TypeError) as error:
            raise CompileUsageError(
                f"{path}: not an arch.json with a fingerprint: {error}"
            ) from error
        return replace(self, dpu_name=dpu_name(fingerprint), fingerprints={fingerprint: str(path)})


def target_names() -> list[str]:
    """Return the names that `load_target` accepts, except fingerprints."""
    return [*sorted(board_names()), EMULATOR]


def load_target(name: str) -> Target:
    """Return a target by its name: "emulator", that of a board's profile, or a fingerprint.

    Raises
    ------
    CompileUsageError
        There is no target of that name.
    """
    if name == EMULATOR:
        return Target(EMULATOR, EMULATOR_DPU_NAME, {})
    if name.startswith("0x"):
        return _by_fingerprint(name)
    if name not in target_names():
        known = ", ".join([*target_names(), "a fingerprint such as 0x101000016010407"])
        raise CompileUsageError(f"no target {name!r}; known are {known}")
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
    """Return the name of the DPU that a model is compiled for; None if the file has none."""
    try:
        parts = Graph.deserialize(str(path)).get_root_subgraph().toposort_child_subgraph()
    except DpuError:
        return None
    names = (part.get_attr("dpu_name") for part in parts if part.has_attr("dpu_name"))
    return next(map(str, names), None)
