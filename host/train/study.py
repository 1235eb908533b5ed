"""The study: every method at every bit width with every seed; resumable.

Each cell is a run of `tutelage train` in a separate process; by default as many run at a time as
there are cores, each with one thread. The results of finished cells are in study.csv, and these
cells are not run again; a cell that was killed continues from its checkpoint. The cells are ordered
by seed, so that an unfinished study is a study with fewer seeds. Workers on several machines share
the cells through an Optuna storage (host/train/study_queue.py).
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tutelage.core.commands import PROGRAM
from tutelage.core.files import replaced, write_file
from tutelage.core.messages import say
from tutelage.core.text import counted
from tutelage.host.search.storage import Shared
from tutelage.host.search.worker import work
from tutelage.host.train.config import Config, ConfigError, make_config, read_toml
from tutelage.host.train.run_identity import WEIGHTS
from tutelage.host.train.study_cells import (
    STUDY_KEYS,
    StudyCell,
    cells_of,
    check_study_keys,
    float_student,
    with_settings,
)
from tutelage.host.train.study_judge import JUDGES, judged, write_judge
from tutelage.host.train.study_queue import own_cells, shared_cells
from tutelage.host.train.study_time import seconds_left
from tutelage.host.train.training_process import TrainingProcesses

DEFAULT = Path(__file__).with_name("study.toml")
COLUMNS = (
    "cell", "method", "weights", "activations", "seed", "teacher", "temperature", "accuracy",
    "validation_accuracy", "teacher_accuracy", "float_accuracy", "seconds", "settings",
)  # fmt: skip


class Study:
    """The cells of a study file and their results below `output`.

    Parameters
    ----------
    spec : table of the study's TOML file
    output : directory for study.csv, study.json, study.md, study.svg and the runs

    Attributes
    ----------
    judged_by : which accuracies tables and figures show: "test", or "validation" while the protocol
        is still being chosen. study.csv has both

    Raises
    ------
    ConfigError
        A cell's configuration is wrong.
    KeyError, TypeError, AttributeError, StopIteration, ValueError
        The table is not a valid study.
    """

    def __init__(self, spec: Mapping[str, Any], output: Path) -> None:
        self.spec, self.output = spec, output
        self.judged_by: str = spec.get("judged_by", "test")
        if self.judged_by not in JUDGES:
            raise ValueError(f"judged_by {self.judged_by!r} is not one of {', '.join(JUDGES)}")
        self.table = output / "study.csv"
        cells = list(cells_of(spec, output / "study"))
        _check_unique(cells)
        configs = {c.name: make_config(c.config, f"study, cell {c.name}") for c in cells}
        for cell in cells:
            if missing := set(cell.needs) - configs.keys():
                raise ValueError(f"cell {cell.name} needs {min(missing)}, which is not a cell")
            if self.judged_by == "validation":
                _check_held_out(cell, configs)
        self.cells = with_settings(cells)

    # -- results -------------------------------------------------------------------------

    def done(self) -> dict[str, dict[str, str]]:
        """Return the rows of study.csv whose cells have the current settings, by name.

        Raises
        ------
        ConfigError
            study.csv cannot be read as the table of a study.
        """
        current = {cell.name: cell.settings for cell in self.cells}
        return {
            name: row
            for name, row in self._rows().items()
            if current.get(name, "") == row.get("settings")
        }

    def _rows(self) -> dict[str, dict[str, str]]:
        if not self.table.exists():
            return {}
        try:
            with self.table.open(newline="", encoding="utf-8") as file:
                return {row["cell"]: row for row in csv.DictReader(file)}
        except (KeyError, UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(f"{self.table}: not the table of a study: {error}") from error

    def record(self, results: Mapping[str, Mapping[str, Any]]) -> None:
        """Add results to study.csv, atomically.

        Rows that are not of the current cells are removed; study.csv.old then has the old table.

        Parameters
        ----------
        results : results of `TrainingProcesses.run` by the cells' names
        """
        rows = self.done()
        if others := len(self._rows()) - len(rows):
            self._keep_old(others)
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

    def _keep_old(self, others: int) -> None:
        old = self.table.with_name(f"{self.table.name}.old")
        write_file(old, self.table.read_bytes())
        rows = counted(others, "row")
        say(PROGRAM, f"{self.table}: removed {rows} of other cells or settings; {old} has them")

    # -- running --------------------------------------------------------------------------

    def run(
        self, jobs: int, limit: int = 0, shared: Shared | None = None
    ) -> Iterator[tuple[StudyCell, dict[str, Any] | str]]:
        """Run the remaining cells; yield each with its result.

        The result of a cell that fails is the text of its error; cells that need it are left out.

        Parameters
        ----------
        jobs : number of cells to run at a time
        limit : most cells to run; 0 for all
        shared : storage through which other workers take cells too; None without other workers
        """
        self.output.mkdir(parents=True, exist_ok=True)
        write_judge(self.output, self.judged_by)
        done = set(self.done()) - self.repeated()
        runs = TrainingProcesses(jobs)

        def train(cell: StudyCell) -> dict[str, Any]:
            return runs.run(cell.name, cell.config, self.output / "study" / cell.name)

        with shared_cells(self, done, shared, runs) if shared else own_cells(self, done) as cells:
            yield from work(cells, train, jobs, limit, runs.end_all)

    def repeated(self) -> set[str]:
        """Return the names of the finished cells that are run again for their weights.

        These are not on this disk, and a cell that is still to be run starts from them.
        """
        cells, done = {cell.name: cell for cell in self.cells}, set(self.done())
        waiting = [cell for cell in self.cells if cell.name not in done]
        repeated = set[str]()
        while waiting:
            for name in waiting.pop().needs:
                if name in done - repeated and not self.weights(name).exists():
                    repeated.add(name)
                    waiting.append(cells[name])
        return repeated

    def weights(self, cell: str) -> Path:
        """Return the path of the weights of a cell, by its name."""
        return self.output / "study" / cell / WEIGHTS

    def seconds_left(self, jobs: int) -> float | None:
        """Return an estimate of the remaining time, s, see `study_time`; None if unknown."""
        expected = self.spec.get("seconds", {})
        return seconds_left(self.cells, self.done(), self.repeated(), expected, jobs)

    def judged(self, rows: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
        """Return rows of study.csv as `study_judge.judged` does."""
        return judged(rows, self.judged_by)


def read_study(path: Path, output: Path) -> Study:
    """Read a study from a TOML file.

    Raises
    ------
    ConfigError
        The file cannot be read, a key is unknown, or a cell's configuration is wrong.
    """
    spec = read_toml(path)
    try:
        check_study_keys(spec, str(path))
        return Study(spec, output)
    except ConfigError:  # a ValueError whose text is complete
        raise
    except (KeyError, TypeError, AttributeError, StopIteration, ValueError) as error:
        is_missing = isinstance(error, KeyError) and error.args[0] in STUDY_KEYS
        reason = f"{error.args[0]} is missing" if is_missing else f"{type(error).__name__} {error}"
        raise ConfigError(f"{path}: not a study: {reason}") from error


def _check_held_out(cell: StudyCell, configs: Mapping[str, Config]) -> None:
    """Raise ValueError unless a cell has images that neither it nor its parents are trained on."""
    config = configs[cell.name]
    if not config.data.validates:
        raise ValueError(
            f'judged_by is "validation", but cell {cell.name} has no validation images: '
            "give [data] validation, in [teacher_data] too if there is one"
        )
    for name in cell.needs:
        parent = configs[name]
        same = parent.data.path == config.data.path
        if same and _held_out(parent) != _held_out(config):
            raise ValueError(
                f'judged_by is "validation", but {name} is trained on images by which '
                f"{cell.name} is judged: give [data] a validation_seed of 0 or more, and "
                "[teacher_data] the same limit, validation and validation_seed"
            )


def _held_out(config: Config) -> tuple[Any, ...]:
    """Return what the choice of held-out images depends on."""
    data = config.data
    if isinstance(data.validation, str):
        return (data.validation,)
    return data.limit, data.validation, config.validation_seed


def _check_unique(cells: Iterable[StudyCell]) -> None:
    counts = Counter(cell.name for cell in cells)
    if name := next((name for name, count in counts.items() if count > 1), ""):
        raise ValueError(
            f"two cells have the name {name}: give each seed and bit width once, and variants "
            "other titles or bits (in names, spaces and commas become hyphens)"
        )


def _text(value: Any) -> str:
    return "" if value is None else str(value)
