"""Which accuracies the tables and figures of a study show, and its file study.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tutelage.core.files import write_file
from tutelage.core.results.typed_json import ResultsError, read_results

JUDGES = {"test": "accuracy", "validation": "validation_accuracy"}
"""The column of study.csv that tables and figures show, by what a study is `judged_by`."""

_FILE = "study.json"


@dataclass(frozen=True)
class _Content:
    judged_by: str


def write_judge(folder: Path, judged_by: str) -> None:
    """Write study.json into the directory of study.csv."""
    write_file(folder / _FILE, json.dumps(asdict(_Content(judged_by))) + "\n")


def read_judge(folder: Path) -> str:
    """Return what a study is judged by; "test" without study.json, as in older versions.

    Raises
    ------
    ResultsError
        The file cannot be used.
    """
    path = folder / _FILE
    if not path.exists():
        return "test"
    judge = read_results(_Content, path, "written by a study").judged_by
    if judge not in JUDGES:
        raise ResultsError(f"{path}: judged_by {judge!r} is not one of {', '.join(JUDGES)}")
    return judge


def judged(rows: Mapping[str, Mapping[str, str]], judged_by: str) -> dict[str, dict[str, str]]:
    """Return rows of study.csv, with the accuracy that `judged_by` selects as "accuracy".

    Rows that lack it are left out.
    """
    column = JUDGES[judged_by]
    return {name: {**row, "accuracy": row[column]} for name, row in rows.items() if row.get(column)}
