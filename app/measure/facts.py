"""The head of run.json: machine, versions, model, DPU and clocks of a measurement."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from tutelage.app.measure.plan import MeasurementSettings
from tutelage.app.measure.store import SUMS
from tutelage.app.model import Classifier
from tutelage.app.sources.frames import shown_path
from tutelage.board.condition import ConditionWatch
from tutelage.board.power import Power
from tutelage.board.provider import find_provider
from tutelage.board.realtime import pace_facts
from tutelage.board.system import board_facts
from tutelage.core.board_profile import OverlayProfile, Profile
from tutelage.core.files import sha256_of
from tutelage.core.locations import CODE
from tutelage.core.results.run_json import (
    RUNNING,
    Clocks,
    ImageFacts,
    MachineFacts,
    ModelFacts,
    Pace,
    PowerSource,
    RunResults,
)

_PACKAGES = ("pynq", "pynq-dpu", "psutil")


def first_results(
    settings: MeasurementSettings,
    classifier: Classifier,
    samples: int,
    power: Power,
    profile: Profile,
    watch: ConditionWatch,
) -> RunResults:
    """Return the results of a measurement before its first step.

    Parameters
    ----------
    settings, classifier : the plan and the model
    samples : number of images that are issued in turn
    power, profile, watch : power sampler, board profile, and reader of the machine's state
    """
    network, now = classifier.network, datetime.now(timezone.utc).isoformat(timespec="seconds")
    emulation = find_provider().is_emulation
    facts: dict[str, Any] = board_facts()
    return RunResults(
        state=RUNNING,
        started=settings.started or now,
        machine_clock=now,
        provider=network.provider,
        emulation=emulation,
        realtime=settings.realtime,
        pace=Pace(**pace_facts(settings.realtime)),
        machine=MachineFacts(**facts, packages=_versions(), release=_release()),
        overlay=None if emulation or not profile.overlay else _overlay(profile.overlay),
        clocks=Clocks(watch.governor(), watch.highest_clock_mhz(), profile.dpu_clock_mhz,
                      profile.dpu_cores),
        model=_model(settings, classifier),
        images=ImageFacts(settings.images, samples),
        in_flight=settings.in_flight,
        phases=asdict(settings.phases),
        accepted=list(settings.accepted),
        power=PowerSource(power.source, power.reason, list(power.rails), power.total_rail),
        idle={"before": None, "after": None},
        steps=[],
    )  # fmt: skip


def _model(settings: MeasurementSettings, classifier: Classifier) -> ModelFacts:
    network = classifier.network
    return ModelFacts(
        name=settings.name or classifier.name,
        target=network.target,
        path=shown_path(network.path),
        dpu=network.dpu_name,
        input=list(network.input.dims),
        sha256=_sha256(network.path),
        provenance=classifier.provenance,
    )


def _overlay(overlay: OverlayProfile) -> dict[str, str | None]:
    """Return VART's configuration and the checksum of the DPU's firmware; None if unreadable."""
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
    """Return the name of the deployed release; None if this code is not one."""
    return CODE.name if (CODE / SUMS).is_file() else None
