"""Board profiles: the numbers of each board's hardware, once, in profiles/<board>.toml.

This module alone knows where the profiles are and which keys they have.
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
    """No board has a profile of this name; the text is one line that lists the known ones."""


@dataclass(frozen=True)
class RailProfile:
    """A power rail that the board measures.

    Attributes
    ----------
    name : the rail's name, as libsensors has it on the board
    driver, address, channel : where Linux shows it: hwmon's name, I2C address, power<channel>_input
    step_watts : resolution of its power readings, W
    volts : nominal (highest) voltage, V
    max_amps : the most that the regulator or the supply can give, A
    meaning : what it feeds, "" where that is not known
    least_watts : what it carries at least while the board runs, W; less is no reading of it
    shunt_ohms : the resistance that its monitor measures the current by, None where not known
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
        """The most that the rail can carry, W."""
        return self.volts * self.max_amps


@dataclass(frozen=True)
class OverlayProfile:
    """The overlay that puts the DPU into the board's FPGA.

    Attributes
    ----------
    release : where it comes from, e.g. "DPU-PYNQ 2.5"
    bitstream, metadata, xclbin : file names
    firmware : where VART expects the xclbin on the board
    config : the file that tells VART so
    fingerprint : of the overlay's DPU, None where it is not known
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
        """All its files; the metadata must have the bitstream's name and lie beside it."""
        return self.bitstream, self.metadata, self.xclbin

    @property
    def config_line(self) -> str:
        """The one line that `config` must have."""
        return f"firmware: {self.firmware}"


@dataclass(frozen=True)
class Hazard:
    """What is known to go wrong on a board.

    Attributes
    ----------
    name : short name
    text : what happens, and why
    remedy : what to do
    where : file that is there while the hazard is, "" where it is always
    threads : most threads with which it is avoided, None where fewer threads do not help
    """

    name: str
    text: str
    remedy: str
    where: str = ""
    threads: int | None = None


@dataclass(frozen=True)
class ImageProfile:
    """The maker's image of the system, whose versions are known.

    Attributes
    ----------
    name : for the reader
    pynq, python, system : its versions of PYNQ, Python ("3.10") and Ubuntu ("22.04")
    logins : user@host by which the image is reached as delivered
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
    arch : the compiler's target file in AMD's container
    command : program in AMD's container, with what comes before the compiler's own options
    images : AMD's images that have the compiler -> their release, in the order of trying
    """

    arch: str
    command: tuple[str, ...]
    images: dict[str, str]


@dataclass(frozen=True)
class Profile:
    """What is known of one board.

    Attributes
    ----------
    file : the profile, for messages
    name : the board's name as its maker writes it
    dpu_name : DPU architecture, as compiled models name it in `dpu_name`
    dpu_cores : number of DPU cores in the board's usual overlay
    dpu_clock_mhz : their clock, MHz, None where it is not known
    fingerprints : `dpu_fingerprint` of compiled models -> the software release it belongs to, that
        of the board's usual image first
    cpu_cores : cores of its processor, None where not known
    rails : the power rails that can be measured; empty where the profile names none
    total_rail : the rail among them that feeds the whole board, None where there is none
    idle_watts : what that rail carries at rest, W, as published; None where it is not known
    power_tolerance : share by which a power may differ from volts times amperes, a voltage from
        its nominal value, and the power at rest from `idle_watts`, before they are doubted
    overlay : the overlay with its DPU, None where the profile names none
    hazards : what is known to go wrong
    image : the image that all of this is written for, None where the profile names none
    compiler : None where the profile does not tell how to compile for it
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
        """The rail that feeds the whole board, None where there is none."""
        return next((rail for rail in self.rails if rail.name == self.total_rail), None)


def board_names() -> list[str]:
    """The boards that have a profile, the usual one first."""
    names = sorted(path.stem for path in PROFILES.glob("*.toml"))
    return sorted(names, key=lambda name: name != DEFAULT_BOARD)


def check_board(board: str) -> None:
    """Verify that a board has a profile, which is not read.

    Raises
    ------
    UnknownBoardError
        It has none.
    """
    if board not in board_names():
        raise UnknownBoardError(f"no board {board!r}; there are {', '.join(sorted(board_names()))}")


def hazards_here(profile: Profile, root: Path = Path("/")) -> list[Hazard]:
    """Return what can go wrong here: hazards that are always there, and those whose file is."""
    return [
        hazard
        for hazard in profile.hazards
        if not hazard.where or (root / hazard.where.lstrip("/")).exists()
    ]


def thread_hazards(profile: Profile, machine: str | None, threads: int) -> list[Hazard]:
    """Return the hazards that so many threads bring about.

    Parameters
    ----------
    machine : the model that the device tree names; on another board nothing is known
    threads : that keep DPU cores busy
    """
    if profile.name not in (machine or ""):
        return []
    return [
        hazard
        for hazard in hazards_here(profile)
        if hazard.threads is not None and threads > hazard.threads
    ]


def thread_advice(profile: Profile, machine: str | None, threads: int) -> list[str]:
    """Return a line for each of `thread_hazards`."""
    return [
        f"{hazard.name}: {hazard.text}; {hazard.remedy}: --threads {hazard.threads}"
        for hazard in thread_hazards(profile, machine, threads)
    ]


@cache
def load_profile(board: str = DEFAULT_BOARD) -> Profile:
    """Return the profile of a board, by its file name without suffix.

    Raises
    ------
    UnknownBoardError
        There is no such profile.
    TomlError
        It is not TOML, an entry that every profile needs is missing, or a number makes no sense.
    """
    check_board(board)
    path = PROFILES / f"{board}.toml"
    try:
        return _profile(path, read_toml(path))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise TomlError(f"{path}: not a board's profile: {error!r}") from error


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
    """Verify that a value is a finite number above 0, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(f"{value!r} is not a number as it is needed there")
    if not 0 < value < math.inf:
        raise ValueError(f"{value} where a number above 0 is needed")
    return value


def _overlay(table: dict[str, Any]) -> OverlayProfile:
    told = table.get("fingerprint")
    return OverlayProfile(**{**table, "fingerprint": None if told is None else int(told, 16)})


def _image(table: dict[str, Any]) -> ImageProfile:
    return ImageProfile(**{**table, "logins": tuple(table.get("logins", ()))})


def _compiler(table: dict[str, Any]) -> CompilerProfile:
    images = {image["name"]: image["release"] for image in table["images"]}
    return CompilerProfile(table["arch"], tuple(table["command"]), images)


def describe_target(dpu_name: str, fingerprint: int | None) -> str:
    """Return for a reader what a model was compiled for: "ZCU104, Vitis AI 2.x".

    A DPU without fingerprint, such as the emulator, goes by the name in the file; one of no board
    by what its fingerprint says. Boards with equal DPUs share a fingerprint: the usual board's name
    is then given.
    """
    if fingerprint is None:
        return dpu_name
    for board in board_names():
        profile = load_profile(board)
        if fingerprint in profile.fingerprints:
            return f"{profile.name}, {profile.fingerprints[fingerprint]}"
    return describe(fingerprint)
