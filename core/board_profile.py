"""Board profiles: the numbers of each board's hardware, once, in profiles/<board>.toml."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tutelage.core.fingerprint import describe
from tutelage.core.toml_file import TomlError, read_toml

PROFILES = Path(__file__).resolve().parent / "profiles"
DEFAULT_BOARD = "zcu104"


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
class Profile:
    """What is known of one board.

    Attributes
    ----------
    name : the board's name as its maker writes it
    dpu_name : DPU architecture, as compiled models name it in `dpu_name`
    dpu_cores : number of DPU cores in the board's usual overlay
    dpu_clock_mhz : their clock, MHz, None where it is not known
    fingerprints : `dpu_fingerprint` of compiled models -> the software release it belongs to
    rails : the power rails that can be measured; empty where the profile names none
    total_rail : the rail among them that feeds the whole board, None where there is none
    idle_watts : what that rail carries at rest, W, as published; None where it is not known
    power_tolerance : share by which a power may differ from volts times amperes, a voltage from
        its nominal value, and the power at rest from `idle_watts`, before they are doubted
    overlay : the overlay with its DPU, None where the profile names none
    hazards : what is known to go wrong
    limit_c : the highest junction temperature that the chip's maker allows, degrees Celsius
    """

    name: str
    dpu_name: str
    dpu_cores: int
    dpu_clock_mhz: float | None
    fingerprints: dict[int, str]
    rails: tuple[RailProfile, ...] = ()
    total_rail: str | None = None
    idle_watts: float | None = None
    power_tolerance: float = 0.1
    overlay: OverlayProfile | None = None
    hazards: tuple[Hazard, ...] = ()
    limit_c: float | None = None


def board_names() -> list[str]:
    """The boards that have a profile, the usual one first."""
    names = sorted(path.stem for path in PROFILES.glob("*.toml"))
    return sorted(names, key=lambda name: name != DEFAULT_BOARD)


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
    TomlError
        There is no such profile, it is not TOML, or what every profile must tell is missing.
    """
    path = PROFILES / f"{board}.toml"
    try:
        return _profile(read_toml(path))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise TomlError(f"{path}: not a board's profile: {error!r}") from error


def _profile(table: dict[str, Any]) -> Profile:
    dpu = table["dpu"]
    power: dict[str, Any] = table.get("power", {})
    return Profile(
        name=table["name"],
        dpu_name=dpu["name"],
        dpu_cores=dpu["cores"],
        dpu_clock_mhz=dpu.get("clock_mhz"),
        fingerprints={int(key, 16): text for key, text in dpu.get("fingerprints", {}).items()},
        rails=tuple(RailProfile(**rail) for rail in power.get("rails", ())),
        total_rail=power.get("total_rail"),
        idle_watts=power.get("idle_watts"),
        power_tolerance=power.get("tolerance", Profile.power_tolerance),
        overlay=_overlay(table["overlay"]) if "overlay" in table else None,
        hazards=tuple(Hazard(**hazard) for hazard in table.get("hazards", ())),
        limit_c=table.get("chip", {}).get("limit_c"),
    )


def _overlay(table: dict[str, Any]) -> OverlayProfile:
    told = table.get("fingerprint")
    return OverlayProfile(**{**table, "fingerprint": None if told is None else int(told, 16)})


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
