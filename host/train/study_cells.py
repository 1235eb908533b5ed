"""The cells of a study: which runs its file asks for, and from which others each starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tutelage.host.train.config import make_config
from tutelage.host.train.methods import METHODS, has_teacher
from tutelage.host.train.student_kinds import STUDENT_KINDS

# The ablation of the phases: self-studying alone is qat, all three are qkd, between them this.
ABLATED_PHASES = {"qkd without co-studying": ["self-studying", "tutoring"]}


@dataclass(frozen=True)
class StudyCell:
    """One run of the study: its name, its configuration and the runs it starts from."""

    name: str
    config: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    @property
    def settings(self) -> str:
        """A short hash of the whole configuration, defaults too: what changed is done anew.

        Of the weights that a run starts from only the run's name counts, not where it lies.
        """
        table = asdict(make_config(self.config))
        for network in (table["student"], table["teacher"]):
            network["weights"] = Path(network["weights"]).parent.name
        text = json.dumps(table, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def cells_of(spec: Mapping[str, Any], runs: Path) -> Iterator[StudyCell]:
    """Yield the float runs, then seed by seed every bit width and method, then the ablation."""
    main_teacher = next(iter(spec["teachers"]))
    for name, network in spec["teachers"].items():
        yield _float_cell(spec, f"float-teacher-{name}", network, 0, "teacher")
    for seed in spec["seeds"]:
        yield _float_cell(spec, f"float-student-s{seed}", spec["student"], seed, "student")
    for seed in spec["seeds"]:
        for bits in spec["bits"]:
            for method in spec["methods"]:
                yield _cell(spec, runs, method, method, bits, seed, main_teacher)
    if spec.get("ablation"):
        yield from _ablated_cells(spec, runs)


def _ablated_cells(spec: Mapping[str, Any], runs: Path) -> Iterator[StudyCell]:
    """QKD without each of its phases, at other temperatures, and with other teachers."""
    main_teacher, ablation = next(iter(spec["teachers"])), spec["ablation"]
    bits = ablation["bits"]
    for seed in spec["seeds"]:
        for name, phases in ABLATED_PHASES.items():
            yield _cell(spec, runs, name, "qkd", bits, seed, main_teacher, phases=phases)
        for temperature in ablation.get("temperatures", []):
            name = f"qkd, temperature {temperature:g}"
            yield _cell(spec, runs, name, "qkd", bits, seed, main_teacher, temperature)
        for teacher in list(spec["teachers"])[1:]:
            yield _cell(spec, runs, f"qkd, teacher {teacher}", "qkd", bits, seed, teacher)


def _float_cell(
    spec: Mapping[str, Any], name: str, network: dict[str, Any], seed: int, role: str
) -> StudyCell:
    """A float run; `role` is whose, "teacher" or "student"."""
    config = {
        "method": "float", "seed": seed, "student": network,
        "data": spec["teacher_data"] if role == "teacher" else spec["data"],
        "augmentation": spec["float_augmentation"], "training": spec[f"float_{role}"],
    }  # fmt: skip
    return StudyCell(name, config, {"method": "float"})


def _cell(
    spec: Mapping[str, Any], runs: Path, title: str, method: str, bits: list[int], seed: int,
    teacher: str, temperature: float = 0.0, phases: list[str] | None = None,
) -> StudyCell:  # fmt: skip
    weights, activations = bits
    student = f"float-student-s{seed}"
    quantisation: dict[str, Any] = {"weights": weights, "activations": activations}
    if method in STUDENT_KINDS:  # an outside peer: plain QAT
        method, quantisation["quantiser"] = "qat", method
    taught_by_itself = METHODS[method].teaches_itself
    master = student if taught_by_itself else f"float-teacher-{teacher}"
    training = dict(spec["training"])
    if temperature:
        training["temperature"] = temperature
    config: dict[str, Any] = {
        "method": method, "seed": seed, "data": spec["data"], "quantisation": quantisation,
        "augmentation": spec["augmentation"], "training": training,
        "student": {**spec["student"], "weights": str(runs / student / "student.safetensors")},
    }  # fmt: skip
    needs = [student]
    if has_teacher(METHODS[method].phases):
        network = spec["student"] if taught_by_itself else spec["teachers"][teacher]
        file = runs / master / "student.safetensors"
        config["teacher"] = {**network, "weights": str(file)}
        needs.append(master)
    if method == "qkd":
        shares = spec.get("qkd_shares", {})
        config["phases"] = [
            vars(phase) | {"share": float(shares.get(phase.name, phase.share))}
            for phase in METHODS["qkd"].phases
            if phases is None or phase.name in phases
        ]
    facts = {"method": title, "weights": weights, "activations": activations,
             "teacher": master if "teacher" in config else "",
             "temperature": training.get("temperature", "")}  # fmt: skip
    name = title.replace(", ", "-").replace(" ", "-")
    return StudyCell(f"{name}-w{weights}a{activations}-s{seed}", config, facts, tuple(needs))
