"""The study: every method at every bit width with every seed, resumable, unattended.

Each cell is a run of `tutelage train` in a process of its own, as many at a time as there
are cores, each on one thread. What is done is in study.csv and is not done again; a cell that
was killed goes on from its checkpoint. Cells come seed by seed, so that half a study is a study
with fewer seeds. Workers on several machines share the cells through a storage of Optuna
(host/train/study_queue.py).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tutelage.core.files import replaced
from tutelage.host.search.storage import Shared
from tutelage.host.search.training_process import TrainingProcesses
from tutelage.host.search.worker import work
from tutelage.host.train.config import ConfigError, make_config, read_toml
from tutelage.host.train.study_cells import WEIGHTS, StudyCell, cells_of, float_student
from tutelage.host.train.study_queue import own_cells, shared_cells
from tutelage.host.train.study_time import seconds_left

DEFAULT = Path(__file__).with_name("study.toml")
JUDGES = {"test": "accuracy", "validation": "validation_accuracy"}
"""The column of study.csv that tables and figures show, by what a study is `judged_by`."""

COLUMNS = (
    "cell", "method", "weights", "activations", "seed", "teacher", "temperature", "accuracy",
    "validation_accuracy", "teacher_accuracy", "float_accuracy", "seconds", "settings",
)  # fmt: skip


class Study:
    """The cells of a study file and their results below `output`.

    Parameters
    ----------
    spec : the study file's table
    output : directory of study.csv, study.md, study.svg and of the runs

    Attributes
    ----------
    judged_by : "test", or "validation" while the protocol is still chosen: which accuracies are
        shown. study.csv has both

    Raises
    ------
    ConfigError
        A cell's configuration is wrong.
    KeyError, TypeError, AttributeError, StopIteration, ValueError
        The table is not that of a study.
    """

    def __init__(self, spec: Mapping[str, Any], output: Path) -> None:
        self.spec, self.output = spec, output
        self.judged_by: str = spec.get("judged_by", "test")
        if self.judged_by not in JUDGES:
            raise ValueError(f"judged_by {self.judged_by!r} is none of {', '.join(JUDGES)}")
        self.table = output / "study.csv"
        self.cells = list(cells_of(spec, output / "study"))
        names = {cell.name for cell in self.cells}
        for cell in self.cells:
            make_config(cell.config, f"study, cell {cell.name}")
            if missing := set(cell.needs) - names:
                raise ValueError(f"cell {cell.name} needs {min(missing)}, which is not a cell")

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

    def record(self, results: Mapping[str, Mapping[str, Any]]) -> None:
        """Add results to study.csv, atomically.

        Parameters
        ----------
        results : by cells' names, see `TrainingProcesses.run`
        """
        rows = self.done()
        for cell in self.cells:
            if cell.name in results:
                seed = cell.config["seed"]
                base = float_student(seed)
                known: Mapping[str, Any] = results.get(base, rows.get(base, {}))
                row = {**cell.facts, "cell": cell.name, "seed": seed, "settings": cell.settings,
                       "float_accuracy": known.get("accuracy") if cell.needs else None,
                       **results[cell.name]}  # fmt: skip
                rows[cell.name] = {key: _text(row.get(key)) for key in COLUMNS}
        with (
            replaced(self.table) as partial,
            partial.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows[c.name] for c in self.cells if c.name in rows)

    # -- running --------------------------------------------------------------------------

    def run(
        self, jobs: int, limit: int = 0, shared: Shared | None = None
    ) -> Iterator[tuple[StudyCell, dict[str, Any] | str]]:
        """Run what is not done, `jobs` cells at a time; yields each cell with its result.

        A cell that fails gives its error's text; cells that need it are left out.

        Parameters
        ----------
        shared : the storage where other workers take cells too; None where this is the only one
        """
        self.output.mkdir(parents=True, exist_ok=True)
        done = set(self.done())
        # A float run that is in the table but not on this disk is run again for its weights.
        done -= {c.name for c in self.cells if not c.needs and not self.weights(c.name).exists()}
        runs = TrainingProcesses()

        def train(cell: StudyCell) -> dict[str, Any]:
            return runs.run(cell.name, cell.config, self.output / "study" / cell.name)

        with shared_cells(self, done, shared, runs) if shared else own_cells(self, done) as cells:
            yield from work(cells, train, jobs, limit, runs.end_all)

    def weights(self, cell: str) -> Path:
        """Return where the weights of a cell's run are, by its name."""
        return self.output / "study" / cell / WEIGHTS

    def seconds_left(self, jobs: int) -> float | None:
        """Return about how long the cells that are not done take, see `study_time`."""
        return seconds_left(self.cells, self.done(), self.spec.get("seconds", {}), jobs)

    def judged(self, rows: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
        """Return rows of study.csv with the accuracy that the study is judged by; those that lack
        it are left out."""
        column = JUDGES[self.judged_by]
        return {
            name: {**row, "accuracy": row[column]} for name, row in rows.items() if row.get(column)
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


def _text(value: Any) -> str:
    return "" if value is None else str(value)
