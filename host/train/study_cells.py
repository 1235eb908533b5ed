"""The cells of a study: which runs its file asks for, and from which others each starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from tutelage.host.train.config import make_config
from tutelage.host.train.methods import METHODS, Phase, has_teacher
from tutelage.host.train.student_kinds import STUDENT_KINDS

WEIGHTS = "student.safetensors"
"""In a run's directory: what other runs start from."""


@dataclass(frozen=True)
class StudyCell:
    """One run of the study: its name, its configuration and the runs it starts from."""

    name: str
    config: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    @property
    def settings(self) -> str:
        """A short hash of the configuration: a cell whose settings changed is run again.

        Defaults are left out, so that an option that is added later changes no cell that does not
        use it. Of the weights that a run starts from only the run's name counts, not its path.
        """
        table = _set_values(make_config(self.config))
        for name in ("student", "teacher"):
            if "weights" in table.get(name, {}):
                table[name]["weights"] = Path(table[name]["weights"]).parent.name
        text = json.dumps(table, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _set_values(config: Any) -> Any:
    """The values of a dataclass that are not their defaults, its dataclasses as dictionaries."""
    if isinstance(config, list):
        return [_set_values(item) for item in config]
    if not is_dataclass(config):
        return config
    found = {}
    for each in fields(config):
        value = getattr(config, each.name)
        made = each.default_factory() if each.default_factory is not MISSING else each.default
        if value != made:
            found[each.name] = _set_values(value)
    return found


def cells_of(spec: Mapping[str, Any], runs: Path) -> Iterator[StudyCell]:
    """Yield the main teacher, then seed by seed the float student, methods and ablation.

    The other teachers come before the first ablation, which needs them.
    """
    main_teacher, *others = spec["teachers"]
    yield _float_teacher(spec, main_teacher)
    for seed in spec["seeds"]:
        yield _float_cell(spec, float_student(seed), spec["student"], seed, "student")
        for bits in spec["bits"]:
            for method in spec["methods"]:
                yield _cell(spec, runs, method, method, bits, seed, main_teacher)
        if seed == spec["seeds"][0]:
            yield from (_float_teacher(spec, teacher) for teacher in others)
        if spec.get("ablation"):
            yield from _ablated_cells(spec, runs, seed)


def float_student(seed: int) -> str:
    """Return the name of the cell that trains a seed's student in float."""
    return f"float-student-s{seed}"


def _ablated_cells(spec: Mapping[str, Any], runs: Path, seed: int) -> Iterator[StudyCell]:
    """QKD without some of its phases, at other temperatures, and with other teachers."""
    main_teacher, *others = spec["teachers"]
    ablation = spec["ablation"]
    bits = ablation["bits"]
    names = [phase.name for phase in METHODS["qkd"].phases]
    for left_out in ablation.get("without", ["co-studying"]):
        if left_out not in names:
            raise ValueError(f"ablation.without: {left_out!r} is none of {', '.join(names)}")
        phases = [name for name in names if name != left_out]
        name = f"qkd without {left_out}"
        yield _cell(spec, runs, name, "qkd", bits, seed, main_teacher, phases=phases)
    for temperature in ablation.get("temperatures", []):
        name = f"qkd, temperature {temperature:g}"
        yield _cell(spec, runs, name, "qkd", bits, seed, main_teacher, temperature)
    for teacher in others:
        yield _cell(spec, runs, f"qkd, teacher {teacher}", "qkd", bits, seed, teacher)


def _float_teacher(spec: Mapping[str, Any], name: str) -> StudyCell:
    return _float_cell(spec, f"float-teacher-{name}", spec["teachers"][name], 0, "teacher")


def _float_cell(
    spec: Mapping[str, Any], name: str, network: dict[str, Any], seed: int, role: str
) -> StudyCell:
    """A float run; `role` is whose, "teacher" or "student"."""
    data = spec["data"]
    config = {
        "method": "float", "seed": seed, "student": network,
        "data": spec.get("teacher_data", data) if role == "teacher" else data,
        "augmentation": spec["float_augmentation"], "training": spec[f"float_{role}"],
    }  # fmt: skip
    return StudyCell(name, config, {"method": "float"})


def _cell(
    spec: Mapping[str, Any], runs: Path, title: str, method: str, bits: list[int], seed: int,
    teacher: str, temperature: float = 0.0, phases: list[str] | None = None,
) -> StudyCell:  # fmt: skip
    weights, activations = bits
    student = float_student(seed)
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
        "student": {**spec["student"], "weights": str(runs / student / WEIGHTS)},
    }  # fmt: skip
    needs = [student]
    if method == "qkd":
        config["phases"] = _qkd_phases(spec, phases)
    if has_teacher(METHODS[method].phases):
        network = spec["student"] if taught_by_itself else spec["teachers"][teacher]
        config["teacher"] = {**network, "weights": str(runs / master / WEIGHTS)}
        needs.append(master)
    facts = {"method": title, "weights": weights, "activations": activations,
             "teacher": master if "teacher" in config else "",
             "temperature": training.get("temperature", "")}  # fmt: skip
    name = title.replace(", ", "-").replace(" ", "-")
    return StudyCell(f"{name}-w{weights}a{activations}-s{seed}", config, facts, tuple(needs))


def _qkd_phases(spec: Mapping[str, Any], names: list[str] | None) -> list[dict[str, Any]]:
    """QKD's phases with the study's shares; only those of some names where these are given."""
    shares = spec.get("qkd_shares", {})

    def with_share(phase: Phase) -> dict[str, Any]:
        return vars(phase) | {"share": float(shares.get(phase.name, phase.share))}

    return [with_share(p) for p in METHODS["qkd"].phases if names is None or p.name in names]
