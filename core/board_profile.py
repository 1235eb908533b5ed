"""Board profiles: each board's hardware figures, defined once in profiles/<board>.toml.

Only this module knows where the profiles are stored and which keys they have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tutelage.core.errors import DpuError
from tutelage.core.fingerprint import describe
from tutelage.core.toml_file import TomlError, read_toml

PROFILES = Path(__file__).resolve().parent / "profiles"
DEFAULT_BOARD = "zcu104"


class UnknownBoardError(DpuError):
    """No board has a profile of this name; the message, one line, lists the known ones."""


@dataclass(frozen=True)
class RailProfile:
    """A power rail that the board measures.

    Attributes
    ----------
    name : the rail's name, as libsensors reports it on the board
    driver : name of its monitor's driver in hwmon
    address : I2C address of its monitor
    channel : number in the file names that Linux exposes, power<channel>_input
    step_watts : resolution of its power readings, W
    volts : nominal (highest) voltage, V
    max_amps : largest current that the regulator or supply can deliver, A
    meaning : what the rail supplies, "" if unknown
    least_watts : least power it carries while the board runs, W; a lower reading is invalid
    shunt_ohms : shunt resistance of its current monitor, ohms, None if unknown
    """

    name: str
    driver: str
    address: int
    channel: int
    step_watts: float
    volts: float
    max_amps: float
    meaning: str = ""
    least_watts: float = 0.0
    shunt_ohms: float | None = None

    @property
    def max_watts(self) -> float:
        """Largest power that the rail can carry, W."""
        return self.volts * self.max_amps


@dataclass(frozen=True)
class OverlayProfile:
    """The overlay that configures the board's FPGA with the DPU.

    Attributes
    ----------
    release : where it comes from, e.g. "DPU-PYNQ 2.5"
    bitstream, metadata, xclbin : file names
    firmware : where VART expects the xclbin on the board
    config : the file in which VART looks up that path
    fingerprint : fingerprint of the overlay's DPU, None if unknown
    """

    release: str
    bitstream: str
    metadata: str
    xclbin: str
    firmware: str
    config: str
    fingerprint: int | None = None

    @property
    def files(self) -> tuple[str, str, str]:
        """Names of all its files; the metadata needs the bitstream's stem and directory."""
        return self.bitstream, self.metadata, self.xclbin

    @property
    def config_line(self) -> str:
        """The one line that `config` must contain."""
        return f"firmware: {self.firmware}"


@dataclass(frozen=True)
class Hazard:
    """A known problem of a board.

    Attributes
    ----------
    name : short name
    text : what happens, and why
    remedy : what to do
    where : file whose presence indicates the hazard, "" if it is always present
    threads : largest number of threads that avoids it, None if fewer threads do not help
    """

    name: str
    text: str
    remedy: str
    where: str = ""
    threads: int | None = None


@dataclass(frozen=True)
class ImageProfile:
    """The vendor's system image, with known versions.

    Attributes
    ----------
    name : name and versions for messages
    pynq, python, system : versions of PYNQ, Python ("3.10") and Ubuntu ("22.04")
    logins : user@host of the image's default logins
    """

    name: str
    pynq: str
    python: str
    system: str
    logins: tuple[str, ...] = ()


@dataclass(frozen=True)
class CompilerProfile:
    """How AMD's compiler is called for the board's DPU.

    Attributes
    ----------
    arch : path of the compiler's target file in AMD's container
    command : program in AMD's container and the arguments before the compiler's own options
    images : AMD's images that have the compiler -> their release, in the order in which to try them
    """

    arch: str
    command: tuple[str, ...]
    images: dict[str, str]


@dataclass(frozen=True)
class Profile:
    """Hardware and software of one board.

    Attributes
    ----------
    file : path of the profile, for messages
    name : the board's name as its vendor writes it
    dpu_name : DPU architecture, as in the `dpu_name` of compiled models
    dpu_cores : number of DPU cores in the board's usual overlay
    dpu_clock_mhz : their clock, MHz, None if unknown
    fingerprints : `dpu_fingerprint` of compiled models -> the software release it belongs to, the
        release of the board's usual image first
    cpu_cores : cores of its processor, None if unknown
    rails : measurable power rails; empty if the profile lists none
    total_rail : name of the rail that supplies the whole board, None if there is none
    idle_watts : published power of that rail at idle, W; None if unknown
    power_tolerance : largest relative deviation of a power from volts times amperes, of a voltage
        from its nominal value and of the idle power from `idle_watts` before they are doubted
    overlay : the overlay with its DPU, None if the profile has none
    hazards : known problems
    image : the system image that the profile describes, None if it has none
    compiler : how to compile for the board, None if the profile does not say
    limit_c : the highest junction temperature that the chip's maker allows, degrees Celsius
    """

    file: Path
    name: str
    dpu_name: str
    dpu_cores: int
    dpu_clock_mhz: float | None = None
    fingerprints: dict[int, str] = field(default_factory=dict)
    cpu_cores: int | None = None
    rails: tuple[RailProfile, ...] = ()
    total_rail: str | None = None
    idle_watts: float | None = None
    power_tolerance: float = 0.1
    overlay: OverlayProfile | None = None
    hazards: tuple[Hazard, ...] = ()
    image: ImageProfile | None = None
    compiler: CompilerProfile | None = None
    limit_c: float | None = None

    @property
    def total(self) -> RailProfile | None:
        """The rail that supplies the whole board, None if there is none."""
        return next((rail for rail in self.rails if rail.name == self.total_rail), None)


def board_names() -> list[str]:
    """Return the names of the boards that have a profile, the default one first."""
    names = sorted(path.stem for path in PROFILES.glob("*.toml"))
    return sorted(names, key=lambda name: name != DEFAULT_BOARD)


def check_board(board: str) -> None:
    """Verify that a board has a profile, without reading it.

    Raises
    ------
    UnknownBoardError
        There is no such profile.
    """
    if board not in board_names():
        raise UnknownBoardError(
            f"no board {board!r}; choose from {', '.join(sorted(board_names()))}"
        )


def hazards_here(profile: Profile, root: Path = Path("/")) -> list[Hazard]:
    """Return the hazards that apply here: the unconditional ones and those whose file exists."""
    return [
        hazard
        for hazard in profile.hazards
        if not hazard.where or (root / hazard.where.lstrip("/")).exists()
    ]


def thread_hazards(profile: Profile, machine: str | None, threads: int) -> list[Hazard]:
    """Return the hazards that this number of threads triggers.

    Parameters
    ----------
    machine : the board's model as its device tree names it; for another board the list is empty
    threads : number of threads that keep DPU cores busy
    """
    if profile.name not in (machine or ""):
        return []
    return [
        hazard
        for hazard in hazards_here(profile)
        if hazard.threads is not None and threads > hazard.threads
    ]


def thread_advice(profile: Profile, machine: str | None, threads: int) -> list[str]:
    """Return one line of advice for each hazard of `thread_hazards`."""
    return [
        f"{hazard.name}: {hazard.text}; {hazard.remedy}: --threads {hazard.threads}"
        for hazard in thread_hazards(profile, machine, threads)
    ]


@cache
def load_profile(board: str = DEFAULT_BOARD) -> Profile:
    """Return the profile of a board, given its file name without suffix.

    Raises
    ------
    UnknownBoardError
        There is no such profile.
    TomlError
        It is not TOML, lacks a required entry, or has a number out of range.
    """
    check_board(board)
    path = PROFILES / f"{board}.toml"
    try:
        return _profile(path, read_toml(path))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise TomlError(f"{path}: not a board profile: {error!r}") from error


def _profile(path: Path, table: dict[str, Any]) -> Profile:
    dpu = table["dpu"]
    power: dict[str, Any] = table.get("power", {})
    return Profile(
        file=path,
        name=table["name"],
        dpu_name=dpu["name"],
        dpu_cores=_number(dpu["cores"], int),
        dpu_clock_mhz=_number(dpu.get("clock_mhz")),
        fingerprints={int(key, 16): text for key, text in dpu.get("fingerprints", {}).items()},
        cpu_cores=_number(table.get("cpu", {}).get("cores"), int),
        rails=tuple(RailProfile(**rail) for rail in power.get("rails", ())),
        total_rail=power.get("total_rail"),
        idle_watts=_number(power.get("idle_watts")),
        power_tolerance=power.get("tolerance", Profile.power_tolerance),
        overlay=_overlay(table["overlay"]) if "overlay" in table else None,
        hazards=tuple(Hazard(**hazard) for hazard in table.get("hazards", ())),
        image=_image(table["image"]) if "image" in table else None,
        compiler=_compiler(table["compiler"]) if "compiler" in table else None,
        limit_c=table.get("chip", {}).get("limit_c"),
    )


def _number(value: Any, kinds: Any = (int, float)) -> Any:
    """Return the value; raise unless it is None or a finite number above 0."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(f"{value!r} is not a number of the required type")
    if not 0 < value < math.inf:
        raise ValueError(f"{value} is not a finite number above 0")
    return value


def _overlay(table: dict[str, Any]) -> OverlayProfile:
    declared = table.get("fingerprint")
    fingerprint = None if declared is None else int(declared, 16)
    return OverlayProfile(**{**table, "fingerprint": fingerprint})


def _image(table: dict[str, Any]) -> ImageProfile:
    return ImageProfile(**{**table, "logins": tuple(table.get("logins", ()))})


def _compiler(table: dict[str, Any]) -> CompilerProfile:
    images = {image["name"]: image["release"] for image in table["images"]}
    return CompilerProfile(table["arch"], tuple(table["command"]), images)


def describe_target(dpu_name: str, fingerprint: int | None) -> str:
    """Return a readable name of a model's target, such as "ZCU104, Vitis AI 2.x".

    A DPU without a fingerprint, such as the emulator, is named by `dpu_name`; a fingerprint of no
    known board is decoded. Boards with equal DPUs share a fingerprint: the default board's name is
    then returned.
    """
    if fingerprint is None:
        return dpu_name
    for board in board_names():
        profile = load_profile(board)
        if fingerprint in profile.fingerprints:
            return f"{profile.name}, {profile.fingerprints[fingerprint]}"
    return describe(fingerprint)
