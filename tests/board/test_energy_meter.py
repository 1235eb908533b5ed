"""The energy of a `with` block, as `tutelage.Power` gives it."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest

from tutelage.board.power import energy_meter
from tutelage.board.power.energy_meter import EnergyMeter
from tutelage.board.power.sampler import PowerError, open_power


@pytest.fixture
def counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The energy counter (microjoules) of a processor of our own."""
    zone = tmp_path / "class" / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    for name, text in (("name", "package-0"), ("energy_uj", "0"), ("max_energy_range_uj", "9" * 9)):
        (zone / name).write_text(f"{text}\n")
    monkeypatch.setattr(energy_meter, "open_power", partial(open_power, sysfs=tmp_path))
    return zone / "energy_uj"


def test_the_energy_of_a_block(counter: Path) -> None:
    with EnergyMeter() as power:
        time.sleep(0.2)
        counter.write_text("3000000\n")
        time.sleep(0.2)
        so_far = power.energy
    assert so_far is not None and so_far > 2.5
    assert power.energy is not None and power.watts is not None
    # Read at 50 Hz: the window's ends lie within samples.
    assert power.energy == pytest.approx(3, rel=0.05)
    assert power.watts == pytest.approx(power.energy / power.seconds, rel=0.05)
    assert power.seconds >= 0.4
    assert power.total is not None and power.rails == {"package-0": power.total}
    assert power.source == "rapl" and "package-0" in power.reason
    before = power.energy, power.seconds
    counter.write_text("9000000\n")
    assert (power.energy, power.seconds) == before
    with pytest.raises(PowerError, match="make another one"), power:
        pass


def test_nothing_to_measure_with() -> None:
    with EnergyMeter("none") as power:
        pass
    assert (power.energy, power.watts, power.total, power.rails) == (None, None, None, {})
    assert power.source == "none" and "not measured" in power.reason
    with pytest.raises(PowerError, match="no power source 'sun'"):
        EnergyMeter("sun")
