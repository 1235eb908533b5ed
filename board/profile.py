"""Board profiles: the numbers of each board's hardware, once, in profiles/<board>.toml."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from board.toml_file import read_toml

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
    """

    name: str
    driver: str
    address: int
    channel: int
    step_watts: float
    volts: float
    max_amps: float

    @property
    def max_watts(self) -> float:
        """The most that the rail can carry, W."""
        return self.volts * self.max_amps


@dataclass(frozen=True)
class Profile:
    """What is known of one board.

    Attributes
    ----------
    name : the board's name as its maker writes it
    dpu_name : DPU architecture, as compiled models name it in `dpu_name`
    dpu_cores : number of DPU cores in the board's usual overlay
    dpu_clock_mhz : their clock, MHz
    fingerprints : `dpu_fingerprint` of compiled models -> the software release it belongs to
    rails : the power rails that can be measured; empty where the profile names none
    total_rail : the rail among them that feeds the whole board, None where there is none
    """

    name: str
    dpu_name: str
    dpu_cores: int
    dpu_clock_mhz: float
    fingerprints: dict[int, str]
    rails: tuple[RailProfile, ...] = ()
    total_rail: str | None = None


@cache
def load_profile(board: str = DEFAULT_BOARD) -> Profile:
    """Return the profile of a board, by its file name without suffix.

    Raises
    ------
    TomlError
        There is no such profile, or it is not TOML.
    """
    table = read_toml(PROFILES / f"{board}.toml")
    dpu = table["dpu"]
    power: dict[str, Any] = table.get("power", {})
    return Profile(
        name=table["name"],
        dpu_name=dpu["name"],
        dpu_cores=dpu["cores"],
        dpu_clock_mhz=dpu["clock_mhz"],
        fingerprints={int(key, 16): release for key, release in dpu["fingerprints"].items()},
        rails=tuple(RailProfile(**rail) for rail in power.get("rails", ())),
        total_rail=power.get("total_rail"),
    )


def describe_target(dpu_name: str, fingerprint: int | None) -> str:
    """Return for a reader what a model was compiled for: "ZCU104, Vitis AI 2.x".

    A DPU without fingerprint, such as the emulator, is told by its name; an unknown one by
    its number.
    """
    if fingerprint is None:
        return dpu_name
    for path in sorted(PROFILES.glob("*.toml")):
        profile = load_profile(path.stem)
        if fingerprint in profile.fingerprints:
            return f"{profile.name}, {profile.fingerprints[fingerprint]}"
    return f"an unknown DPU with fingerprint {fingerprint:#x}"
