"""The study: every method at every bit width with every seed, resumable, unattended.

Each cell is a run of `tutelage train` in a process of its own, as many at a time as there
are cores, each on one thread. What is done is in study.csv and is not done again; a cell that
was killed goes on from its checkpoint. Cells come seed by seed, so that half a study is a study
with fewer seeds.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from tutelage.core.files import replaced
from tutelage.core.toml_file import to_toml
from tutelage.host.train.config import ConfigError, make_config, read_toml
from tutelage.host.train.study_cells import StudyCell, cells_of

DEFAULT = Path(__file__).with_name("study.toml")
COLUMNS = (
    "cell", "method", "weights", "activations", "seed", "teacher", "temperature", "accuracy",
    "teacher_accuracy", "float_accuracy", "seconds", "settings",
)  # fmt: skip


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
        self.cells = list(cells_of(spec, output / "study"))
        for cell in self.cells:
            make_config(cell.config, f"study, cell {cell.name}")

    # -- results -------------------------------------------------------------------------

    def done(self) -> dict[str, dict[str, str]]:
        """Return the rows of study.csv that belong to the cells as they are now, by name.

        Raises
        ------
        ConfigError
            study.csv is not a table of a study.
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

    def record(self, cell: StudyCell, result: Mapping[str, Any]) -> None:
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

    def run(self, jobs: int, limit: int = 0) -> Iterator[tuple[StudyCell, dict[str, Any] | str]]:
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
            running: dict[Future[dict[str, Any]], StudyCell] = {}
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

    def _train(self, cell: StudyCell) -> dict[str, Any]:
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
    """Return the study of a TOML file.

    Raises
    ------
    ConfigError
        The file cannot be read or a cell's configuration is wrong.
    """
    spec = read_toml(path)
    try:
        return Study(spec, output)
    except ConfigError:  # a ValueError that has its text already
        raise
    except (KeyError, TypeError, AttributeError, StopIteration, ValueError) as error:
        raise ConfigError(f"{path}: not a study: {type(error).__name__} {error}") from error


def _weights(cell: StudyCell, output: Path) -> Path:
    return output / "study" / cell.name / "student.safetensors"


def _text(value: Any) -> str:
    return "" if value is None else str(value)
