"""What figures are taken with: machine, versions, model, DPU, clocks; the head of run.json."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from tutelage.app.measure.plan import Setting
from tutelage.app.measure.store import SUMS
from tutelage.app.model import Classifier
from tutelage.app.sources.frames import shown_path
from tutelage.board.condition import ConditionWatch
from tutelage.board.power.sampler import Power
from tutelage.board.provider import find_provider
from tutelage.board.realtime import pace_facts
from tutelage.board.system import board_facts
from tutelage.core.board_profile import OverlayProfile, Profile
from tutelage.core.files import sha256_of
from tutelage.core.locations import CODE

_PACKAGES = ("pynq", "pynq-dpu", "psutil")


def first_figures(
    setting: Setting,
    classifier: Classifier,
    samples: int,
    power: Power,
    profile: Profile,
    watch: ConditionWatch,
) -> dict[str, Any]:
    """Return run.json of a measurement that has measured nothing yet."""
    network, now = classifier.network, datetime.now(timezone.utc).isoformat(timespec="seconds")
    emulation = find_provider().is_emulation
    return {
        "state": "running",
        "error": None,
        "started": setting.started or now,
        "machine_clock": now,
        "seconds": None,
        "provider": network.provider,
        "emulation": emulation,
        "realtime": setting.realtime,
        "pace": pace_facts(setting.realtime),
        "machine": {**board_facts(), "packages": _versions(), "release": _release()},
        "overlay": None if emulation or not profile.overlay else _overlay(profile.overlay),
        "clocks": {
            "governor": watch.governor(),
            "highest_mhz": watch.highest_clock_mhz(),
            "dpu_nominal_mhz": profile.dpu_clock_mhz,
            "dpu_cores": profile.dpu_cores,
        },
        "model": {
            "name": setting.name or classifier.name,
            "path": shown_path(network.path),
            "target": network.target,
            "dpu": network.dpu_name,
            "input": list(network.input.dims),
            "sha256": _sha256(network.path),
            "provenance": classifier.provenance,
        },
        "images": {"source": setting.images, "count": samples},
        "in_flight": setting.in_flight,
        "phases": asdict(setting.phases),
        "accepted": list(setting.accepted),
        "power": {
            "source": power.source,
            "reason": power.reason,
            "rails": list(power.rails),
            "total_rail": power.total_rail,
            "doubts": [],
        },
        "idle": {"before": None, "after": None},
        "steps": [],
        "notes": [],
    }


def _overlay(overlay: OverlayProfile) -> dict[str, str | None]:
    """Return VART's configuration and what the DPU's firmware is, as far as they can be read."""
    try:
        config = Path(overlay.config).read_text(errors="replace").strip()
    except OSError:
        config = None
    return {"config": config, "xclbin_sha256": _sha256(Path(overlay.firmware))}


def _sha256(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _release() -> str | None:
    """Return the name of the deployed release, None where this is none."""
    return CODE.name if (CODE / SUMS).is_file() else None
