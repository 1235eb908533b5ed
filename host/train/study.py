"""The study: every method at every bit width with every seed, resumable, unattended.

Each cell is a run of `tutelage train` in a process of its own, as many at a time as there
are cores, each on one thread. What is done stands in study.csv and is not done again; a cell that
was killed goes on from its checkpoint. Cells come seed by seed, so that half a study is a study
with fewer seeds.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core.files import replaced
from tutelage.core.toml_file import to_toml
from tutelage.host.train.config import ConfigError, make_config, read_toml
from tutelage.host.train.methods import METHODS

DEFAULT = Path(__file__).with_name("study.toml")
COLUMNS = (
    "cell", "method", "weights", "activations", "seed", "teacher", "temperature", "accuracy",
    "teacher_accuracy", "float_accuracy", "seconds", "settings",
)  # fmt: skip

# The ablation of the phases: self-studying alone is qat, all three are qkd, between them this.
ABLATED_PHASES = {"qkd without co-studying": ["self-studying", "tutoring"]}


@dataclass(frozen=True)
class Cell:
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


class Study:
    """The cells of a study file and their results below `output`.

    Parameters
    ----------
    spec : the study file's table
    output : directory of study.csv, study.md, study.svg and of the runs
    """

    def __init__(self, spec: Mapping[str, Any], output: Path) -> None:
        self.spec, self.output = spec, output
        self.table = output / "study.csv"
        self.cells = list(_cells(spec, output / "study"))
        for cell in self.cells:
            make_config(cell.config, f"study, cell {cell.name}")

    # -- results -------------------------------------------------------------------------

    def done(self) -> dict[str, dict[str, str]]:
        """The rows of study.csv that belong to the cells as they are now, by name.

        Raises
        ------
        ConfigError
            study.csv is no table of a study.
        """
        if not self.table.exists():
            return {}
        try:
            with self.table.open(newline="", encoding="utf-8") as file:
                rows = {row["cell"]: row for row in csv.DictReader(file)}
        except (KeyError, UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(f"{self.table}: not the table of a study: {error}") from error
        current = {cell.name: cell.settings for cell in self.cells}
        return {
            name: row for name, row in rows.items() if current.get(name, "") == row.get("settings")
        }

    def record(self, cell: Cell, result: Mapping[str, Any]) -> None:
        """Add a cell's result to study.csv, atomically."""
        rows = self.done()
        base = rows.get(f"float-student-s{cell.config['seed']}", {}).get("accuracy", "")
        row = {**cell.facts, "cell": cell.name, "seed": cell.config["seed"], "float_accuracy": base,
               "settings": cell.settings, **result}  # fmt: skip
        rows[cell.name] = {key: _text(row.get(key)) for key in COLUMNS}
        with (
            replaced(self.table) as partial,
            partial.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows[c.name] for c in self.cells if c.name in rows)

    # -- running --------------------------------------------------------------------------

    def run(self, jobs: int, limit: int = 0) -> Iterator[tuple[Cell, dict[str, Any] | str]]:
        """Run what is not done, `jobs` cells at a time; yields each cell with its result.

        A cell that fails gives its error's text; cells that need it are left out.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        done, failed = set(self.done()), set[str]()
        # A float run that is in the table but not on this disk is run again for its weights.
        done -= {
            c.name for c in self.cells if not c.needs and not _weights(c, self.output).exists()
        }
        waiting = [cell for cell in self.cells if cell.name not in done]
        waiting = waiting[:limit] if limit else waiting
        with ThreadPoolExecutor(jobs) as pool:
            running: dict[Future[dict[str, Any]], Cell] = {}
            while waiting or running:
                for cell in [c for c in waiting if set(c.needs) <= done][: jobs - len(running)]:
                    waiting.remove(cell)
                    running[pool.submit(self._train, cell)] = cell
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    cell = running.pop(future)
                    try:
                        result = future.result()
                    except (RuntimeError, OSError) as error:
                        failed.add(cell.name)
                        waiting = [c for c in waiting if not set(c.needs) & failed]
                        yield cell, str(error)
                        continue
                    done.add(cell.name)
                    self.record(cell, result)
                    yield cell, result

    def _train(self, cell: Cell) -> dict[str, Any]:
        """Run one cell in a process of its own, on one thread."""
        folder = self.output / "study" / cell.name
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "config.toml"
        config.write_text(to_toml(cell.config), encoding="utf-8")
        command = [sys.executable, "-m", "tutelage", "train", str(config), "--output", str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        start = time.monotonic()
        done = subprocess.run(
            [*command, "--resume", "--json"], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
            raise RuntimeError(f"{cell.name}: {lines[-1]}")
        result: dict[str, Any] = json.loads(done.stdout)
        return {
            "accuracy": result["accuracy"],
            "teacher_accuracy": result["teacher_accuracy"],
            "seconds": round(time.monotonic() - start, 1),
        }


def read_study(path: Path, output: Path) -> Study:
    """The study of a TOML file.

    Raises
    ------
    ConfigError
        The file cannot be read or a cell's configuration is wrong.
    """
    spec = read_toml(path)
    try:
        return Study(spec, output)
    except ConfigError:  # a ValueError, and told already
        raise
    except (KeyError, TypeError, AttributeError, StopIteration, ValueError) as error:
        raise ConfigError(f"{path}: not a study: {type(error).__name__} {error}") from error


# -- cells ------------------------------------------------------------------------------------


def _weights(cell: Cell, output: Path) -> Path:
    return output / "study" / cell.name / "student.safetensors"


def _cells(spec: Mapping[str, Any], runs: Path) -> Iterator[Cell]:
    """The float runs, then seed by seed every bit width and method, then the ablation."""
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


def _ablated_cells(spec: Mapping[str, Any], runs: Path) -> Iterator[Cell]:
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
) -> Cell:
    """A float run; `role` is whose, "teacher" or "student"."""
    config = {
        "method": "float", "seed": seed, "student": network,
        "data": spec["teacher_data"] if role == "teacher" else spec["data"],
        "augmentation": spec["float_augmentation"], "training": spec[f"float_{role}"],
    }  # fmt: skip
    return Cell(name, config, {"method": "float"})


def _cell(
    spec: Mapping[str, Any], runs: Path, title: str, method: str, bits: list[int], seed: int,
    teacher: str, temperature: float = 0.0, phases: list[str] | None = None,
) -> Cell:  # fmt: skip
    weights, activations = bits
    student = f"float-student-s{seed}"
    quantisation: dict[str, Any] = {"weights": weights, "activations": activations}
    if method == "brevitas":  # the outside peer: plain QAT
        method, quantisation["quantiser"] = "qat", "brevitas"
    # SQAKD is taught by the float network alone.
    master = student if method == "sqakd" else f"float-teacher-{teacher}"
    training = dict(spec["training"])
    if temperature:
        training["temperature"] = temperature
    config: dict[str, Any] = {
        "method": method, "seed": seed, "data": spec["data"], "quantisation": quantisation,
        "augmentation": spec["augmentation"], "training": training,
        "student": {**spec["student"], "weights": str(runs / student / "student.safetensors")},
    }  # fmt: skip
    needs = [student]
    if any(phase.teacher != "none" for phase in METHODS[method]):
        network = spec["student"] if method == "sqakd" else spec["teachers"][teacher]
        file = runs / master / "student.safetensors"
        config["teacher"] = {**network, "weights": str(file)}
        needs.append(master)
    if method == "qkd":
        shares = spec.get("qkd_shares", {})
        config["phases"] = [
            vars(phase) | {"share": float(shares.get(phase.name, phase.share))}
            for phase in METHODS["qkd"]
            if phases is None or phase.name in phases
        ]
    facts = {"method": title, "weights": weights, "activations": activations,
             "teacher": master if "teacher" in config else "",
             "temperature": training.get("temperature", "")}  # fmt: skip
    name = title.replace(", ", "-").replace(" ", "-")
    return Cell(f"{name}-w{weights}a{activations}-s{seed}", config, facts, tuple(needs))


def _text(value: Any) -> str:
    return "" if value is None else str(value)


# -- what comes out ---------------------------------------------------------------------------


def summary(rows: Mapping[str, Mapping[str, str]]) -> dict[tuple[str, str], list[float]]:
    """Accuracies by (method, "W4A4"), one per seed; float runs by their cell's name."""
    found: dict[tuple[str, str], list[float]] = {}
    for name, row in rows.items():
        bits = f"W{row['weights']}A{row['activations']}" if row["weights"] else "float"
        method = name.rpartition("-s")[0] or name if bits == "float" else row["method"]
        method = name if name.startswith("float-teacher") else method
        found.setdefault((method, bits), []).append(float(row["accuracy"]))
    return found


def markdown(rows: Mapping[str, Mapping[str, str]]) -> str:
    """A table of mean and deviation over the seeds, in percent of the test set."""
    found = summary(rows)
    columns = sorted({bits for _, bits in found}, key=lambda b: (b != "float", b))
    heads = " | ".join(f"{bits} [%]" for bits in columns)
    lines = [f"| method | {heads} |", "| --- |" + " --- |" * len(columns)]
    for method in dict.fromkeys(method for method, _ in found):
        cells = [_mean(found.get((method, bits), [])) for bits in columns]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _mean(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread} ({len(values)})"


def plot(rows: Mapping[str, Mapping[str, str]], path: Path) -> None:
    """Write the figure to a file."""
    import matplotlib.pyplot as plt

    drawn = figure(rows)
    drawn.savefig(path)
    plt.close(drawn)


def figure(rows: Mapping[str, Mapping[str, str]]) -> Any:
    """Accuracy over bit width, a line per method, with the float student's as a dashed line."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    found = summary(rows)
    widths = sorted({b for _, b in found if b != "float"}, reverse=True)
    drawn, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    methods = list(dict.fromkeys(method for method, bits in found if bits != "float"))
    low, high = _axis(found)
    axes.set_ylim(low, high)
    for number, method in enumerate(methods):
        points = [(i, found[method, w]) for i, w in enumerate(widths) if (method, w) in found]
        means = [statistics.mean(values) for _, values in points]
        spreads = [statistics.stdev(v) if len(v) > 1 else 0.0 for _, v in points]
        at = [i + 0.05 * (number - len(methods) / 2) for i, _ in points]  # side by side
        line = axes.errorbar(at, means, spreads, marker="o", capsize=3, linewidth=0.8, label=method)
        for x, mean in zip(at, means, strict=True):
            if mean < low:  # as text at the edge, so that the others keep their room
                axes.annotate(f"{method} {mean:.1f} ↓", (x, low), color=line[0].get_color(),
                              fontsize=8, va="bottom")  # fmt: skip
    for (method, bits), values in found.items():
        if bits == "float":
            axes.axhline(statistics.mean(values), linestyle="--", linewidth=0.8, color="grey")
            axes.annotate(method, (0.99, statistics.mean(values)), fontsize=7, color="grey",
                          xycoords=("axes fraction", "data"), ha="right", va="bottom")  # fmt: skip
    axes.set_xticks(range(len(widths)), widths)
    axes.set_ylabel("top-1, % of the test set")
    if methods:
        drawn.legend(fontsize=8, loc="outside right upper")
    return drawn


def _axis(found: Mapping[tuple[str, str], list[float]]) -> tuple[float, float]:
    """Limits that show what was trained; what was only rounded (ptq) can lie far below."""
    trained = [
        value for (method, _), values in found.items() if method != "ptq" for value in values
    ]
    values = trained or [value for values in found.values() for value in values]
    return min(values) - 0.5, max(values) + 0.5
