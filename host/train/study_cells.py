"""Cells of a study: its runs, and the runs whose weights each of them starts from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.host.train.config import Config, make_config
from tutelage.host.train.config_table import check_keys
from tutelage.host.train.methods import METHODS, Phase, has_teacher
from tutelage.host.train.run_identity import WEIGHTS, identity
from tutelage.host.train.student_kinds import STUDENT_KINDS

STUDY_KEYS = (
    "methods", "bits", "seeds", "judged_by", "data", "teacher_data", "student", "float_student",
    "float_teacher", "float_augmentation", "training", "augmentation", "teachers", "qkd_shares",
    "at", "seconds", "ablation", "variants",
)  # fmt: skip
ABLATION_KEYS = ("bits", "seeds", "without", "temperatures")
VARIANT_KEYS = ("method", "teacher", "bits", "seeds", "start")
"""Keys of a variant besides the tables of a run that it changes."""

_WITHOUT, _TEMPERATURE, _TEACHER = "qkd without ", "qkd, temperature ", "qkd, teacher "
"""Beginnings of the titles of the ablation's rows."""

_CHANGED_DEFAULTS = (("quantisation", "joined"), ("training", "threshold_lr"))
"""Tables and keys whose defaults have changed, so that hashes include their values."""

_VARIANT_TABLES = tuple(f.name for f in fields(Config) if f.name not in (*VARIANT_KEYS, "seed"))


@dataclass(frozen=True)
class StudyCell:
    """One run of the study.

    Attributes
    ----------
    name : unique in the study
    config : tables of the run's configuration
    facts : columns of study.csv that are known before the run
    needs : names of the cells that it starts from
    settings : short hash of the configuration and of the settings of the cells in `needs`; a cell
        whose hash has changed is run again. "" until `with_settings`
    """

    name: str
    config: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    settings: str = ""


def with_settings(cells: Sequence[StudyCell]) -> list[StudyCell]:
    """Return all cells of a study with their `settings`."""
    by_name = {cell.name: cell for cell in cells}

    @cache
    def settings(name: str) -> str:
        cell = by_name[name]
        return _hash(make_config(cell.config), [settings(need) for need in cell.needs])

    return [replace(cell, settings=settings(cell.name)) for cell in cells]


def _hash(config: Config, needs: list[str]) -> str:
    """Return the hash of a configuration and of the settings of the cells that it starts from.

    Defaults are left out, so that an option that is added later does not change cells that do not
    use it. Of the paths of runs' weights only the run's name is included.
    """
    table = _set_values(identity(config))
    for name, key in _CHANGED_DEFAULTS:  # a float network uses none of them
        if config.quantises:
            table.setdefault(name, {})[key] = getattr(getattr(config, name), key)
        else:
            table.get(name, {}).pop(key, None)
    if needs:
        table["needs"] = needs
    text = json.dumps(table, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _set_values(config: Any) -> Any:
    """Return the values of a dataclass that differ from their defaults, nested ones as dicts."""
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


class _Way(NamedTuple):
    """A way to train, which is a row of the study's table: a method or a variant of one.

    Attributes
    ----------
    title : name of the row
    method : of the run, or the name of a quantiser to compare with
    teacher : name in `[teachers]`
    tables : tables of the configuration to merge into those of the study
    phases : names of QKD's phases to keep; None for all
    start : title of the way whose student with the next higher number of bits this one starts from,
        possibly its own; "" for the float student
    """

    title: str
    method: str
    teacher: str
    tables: Mapping[str, Any] = {}
    phases: list[str] | None = None
    start: str = ""


def check_study_keys(spec: Mapping[str, Any], where: str) -> None:
    """Raise ConfigError for a key of a study that is not known and would have no effect.

    `make_config` checks the keys of the tables of runs.

    Parameters
    ----------
    spec : table of the study's TOML file
    where : the place that error messages begin with, such as the file's name
    """
    methods = [name for name in (*METHODS, *STUDENT_KINDS) if name != "float"]
    phases = [phase.name for phase in METHODS["qkd"].phases]
    check_keys(spec, STUDY_KEYS, where)
    check_keys(spec.get("ablation", {}), ABLATION_KEYS, f"{where}: ablation")
    check_keys(spec.get("qkd_shares", {}), phases, f"{where}: qkd_shares")
    check_keys(spec.get("seconds", {}), ("float-teacher", "float-student", *methods),
               f"{where}: seconds")  # fmt: skip
    variants = spec.get("variants", {})
    check_keys(variants, variants, f"{where}: variants")  # titles are free
    widths = [spec["bits"], *(table.get("bits", []) for table in variants.values())]
    check_keys(spec.get("at", {}), [_bits_text(*bits) for width in widths for bits in width],
               f"{where}: at")  # fmt: skip
    for bits, table in spec.get("at", {}).items():
        check_keys(table, _VARIANT_TABLES, f"{where}: at.{bits}")
    for title, table in variants.items():
        check_keys(table, (*VARIANT_KEYS, *_VARIANT_TABLES), f"{where}: variants.{title!r}")


def cells_of(spec: Mapping[str, Any], runs: Path) -> Iterator[StudyCell]:
    """Yield the main teacher, then for each seed the float student, methods, ablation and variants.

    A study without teachers has only methods that need none. The other teachers come before the
    first cell that can need them, and each variant after the cells that it starts from.

    Parameters
    ----------
    spec : table of the study's TOML file
    runs : directory of the runs

    Raises
    ------
    KeyError, TypeError, AttributeError, ValueError
        The table is not a valid study.
    """
    main_teacher, *others = _teachers(spec)
    if main_teacher:
        yield _float_teacher(spec, main_teacher)
    for seed in spec["seeds"]:
        yield _float_cell(spec, float_student(seed), spec["student"], seed, "student")
        for bits in spec["bits"]:
            for method in spec["methods"]:
                yield _cell(spec, runs, _Way(method, method, main_teacher), bits, seed)
        if seed == spec["seeds"][0]:
            yield from (_float_teacher(spec, teacher) for teacher in others)
        ablation = spec.get("ablation", {})
        for way in _ablated(spec) if seed in _seeds_of(ablation, spec, "ablation") else ():
            yield _cell(spec, runs, way, ablation["bits"], seed)
        for way, table in _variants(spec):
            if seed in _seeds_of(table, spec, f"variants.{way.title!r}"):
                for bits in sorted(table.get("bits", spec["bits"]), reverse=True):
                    yield _cell(spec, runs, way, bits, seed)


def _teachers(spec: Mapping[str, Any]) -> list[str]:
    """Return the names of the teachers, the main one first; [""] if there are none."""
    return list(spec.get("teachers", {})) or [""]


def _seeds_of(table: Mapping[str, Any], spec: Mapping[str, Any], where: str) -> list[int]:
    """Return the seeds of the ablation's or a variant's table; an empty list for an empty table.

    Raises
    ------
    ValueError
        A seed is not one of the study's, of which there are float students.
    """
    seeds = list(table.get("seeds", spec["seeds"])) if table else []
    for seed in seeds:
        if seed not in spec["seeds"]:
            known = ", ".join(map(str, spec["seeds"]))
            raise ValueError(f"{where}: seed {seed} is not one of the study's seeds: {known}")
    return seeds


def float_student(seed: int) -> str:
    """Return the name of the cell that trains the float student of a seed."""
    return f"float-student-s{seed}"


def _ablated(spec: Mapping[str, Any]) -> Iterator[_Way]:
    """Yield QKD without some of its phases, at other temperatures, and with other teachers."""
    main_teacher, *others = _teachers(spec)
    ablation = spec["ablation"]
    names = [phase.name for phase in METHODS["qkd"].phases]
    for left_out in ablation.get("without", ["co-studying"]):
        if left_out not in names:
            raise ValueError(f"ablation.without: {left_out!r} is not one of {', '.join(names)}")
        phases = [name for name in names if name != left_out]
        yield _Way(f"{_WITHOUT}{left_out}", "qkd", main_teacher, phases=phases)
    for temperature in ablation.get("temperatures", []):
        changed = {"training": {"temperature": temperature}}
        yield _Way(f"{_TEMPERATURE}{temperature:g}", "qkd", main_teacher, changed)
    for teacher in others:
        yield _Way(f"{_TEACHER}{teacher}", "qkd", teacher)


def is_ablated(title: str) -> bool:
    """Return whether a row's title is one of the ablation's."""
    return title.startswith((_WITHOUT, _TEMPERATURE, _TEACHER))


def _variants(spec: Mapping[str, Any]) -> Iterator[tuple[_Way, Mapping[str, Any]]]:
    """Yield the ways of `[variants]` with their tables."""
    for title, table in spec.get("variants", {}).items():
        tables = {key: value for key, value in table.items() if key not in VARIANT_KEYS}
        teacher = table.get("teacher", _teachers(spec)[0])
        start = table.get("start", "")
        yield _Way(title, table["method"], teacher, tables, start=start), table


def _float_teacher(spec: Mapping[str, Any], name: str) -> StudyCell:
    return _float_cell(spec, f"float-teacher-{name}", spec["teachers"][name], 0, "teacher")


def _float_cell(
    spec: Mapping[str, Any], name: str, network: dict[str, Any], seed: int, role: str
) -> StudyCell:
    """Return a float run of the "teacher" or the "student"."""
    data = spec["data"]
    config = {
        "method": "float", "seed": seed, "student": network,
        "data": spec.get("teacher_data", data) if role == "teacher" else data,
        "augmentation": spec["float_augmentation"], "training": spec[f"float_{role}"],
    }  # fmt: skip
    return StudyCell(name, config, {"method": "float"})


def _cell(spec: Mapping[str, Any], runs: Path, way: _Way, bits: list[int], seed: int) -> StudyCell:
    weights, activations = bits
    method, student = way.method, float_student(seed)
    quantisation: dict[str, Any] = {"weights": weights, "activations": activations}
    if method in STUDENT_KINDS:  # another quantiser, to compare with: plain QAT
        method, quantisation["quantiser"] = "qat", method
    taught_by_itself = METHODS[method].teaches_itself
    master = student if taught_by_itself else f"float-teacher-{way.teacher}"
    config: dict[str, Any] = {
        "method": method, "seed": seed, "data": spec["data"], "quantisation": quantisation,
        "augmentation": spec["augmentation"], "training": spec["training"],
        "student": dict(spec["student"]),
    }  # fmt: skip
    at_these_bits = spec.get("at", {}).get(_bits_text(weights, activations), {})
    for name, table in (*at_these_bits.items(), *way.tables.items()):
        config[name] = {**config.get(name, {}), **table} if isinstance(table, dict) else table
    wider = _wider(spec, way, bits) if way.start else None
    start = _name(*wider, seed) if wider else student
    place, key = ("quantisation", "start") if wider else ("student", "weights")
    config[place][key] = str(runs / start / WEIGHTS)
    needs = [start]
    if method == "qkd":
        config.setdefault("phases", _qkd_phases(spec, way.phases))
    if has_teacher(METHODS[method].phases):
        if not taught_by_itself and not way.teacher:
            raise ValueError(f"{way.title!r} needs a teacher: add [teachers.NAME]")
        network = spec["student"] if taught_by_itself else spec["teachers"][way.teacher]
        config["teacher"] = {**network, "weights": str(runs / master / WEIGHTS)}
        needs.append(master)
    facts = {"method": way.title, "weights": weights, "activations": activations,
             "teacher": master if "teacher" in config else "",
             "temperature": config["training"].get("temperature", "")}  # fmt: skip
    return StudyCell(_name(way.title, bits, seed), config, facts, tuple(needs))


def _bits_text(weights: int, activations: int) -> str:
    return f"W{weights}A{activations}"


def _name(title: str, bits: list[int], seed: int) -> str:
    weights, activations = bits
    words = title.replace(", ", "-").replace(" ", "-")
    return f"{words}-w{weights}a{activations}-s{seed}"


def _wider(spec: Mapping[str, Any], way: _Way, bits: list[int]) -> tuple[str, list[int]] | None:
    """Return title and bits of the student that a way starts from: the next higher in the study.

    A variant that starts from itself starts at its highest bit width from its method's student.

    Raises
    ------
    ValueError
        The study has no method or variant of that title.
    """
    for start in dict.fromkeys([way.start, way.method] if way.start == way.title else [way.start]):
        rows = [spec] if start in spec["methods"] else []
        rows += [table for title, table in spec.get("variants", {}).items() if title == start]
        if not rows:
            raise ValueError(f"start {start!r} is neither a method nor a variant of this study")
        widths = [width for row in rows for width in row.get("bits", spec["bits"])]
        if wider := [other for other in widths if other > bits]:
            return start, min(wider)
    return None


def _qkd_phases(spec: Mapping[str, Any], names: list[str] | None) -> list[dict[str, Any]]:
    """Return QKD's phases with the study's shares, limited to some names if these are given."""
    shares = spec.get("qkd_shares", {})

    def with_share(phase: Phase) -> dict[str, Any]:
        return vars(phase) | {"share": float(shares.get(phase.name, phase.share))}

    return [with_share(p) for p in METHODS["qkd"].phases if names is None or p.name in names]
