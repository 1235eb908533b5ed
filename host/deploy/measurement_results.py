"""Verification and reading of the files of a collected measurement.

They come from a board and are untrusted: links are not followed, sizes are bounded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage.core.errors import MeasureError
from tutelage.core.files import write_file
from tutelage.core.results.run_json import RUN_FILE, RUNNING, run_table
from tutelage.core.results.typed_json import ResultsError
from tutelage.core.text import json_text
from tutelage.host.ssh.received import read_received, sha256_of_received

SUMMARY, SUMS, LOG = "summary.md", "SHA256SUMS", "log"
FILES = (RUN_FILE, SUMMARY, SUMS, LOG, "frames.csv", "power.csv", "condition.csv", "progress.jsonl",
          "pid")  # fmt: skip
_MOST_TEXT = 16 << 20  # bytes of a file that is read as a whole


def summary(folder: Path) -> str:
    """Return the table of a collected measurement, summary.md; raise ReceivedError on faults."""
    return read_received(folder / SUMMARY, _MOST_TEXT).rstrip("\n")


def outcome(folder: Path) -> dict[str, Any]:
    """Return the figures of a collected measurement, run.json.

    Raises
    ------
    MeasureError, ReceivedError
        The measurement ended before there were any figures, with the board's message; or the file
        cannot be read as figures.
    """
    if (folder / RUN_FILE).exists():
        return _figures(folder)
    try:
        lines = read_received(folder / LOG, _MOST_TEXT).split("\n")
    except FileNotFoundError:
        lines = []
    last = next((line for line in reversed(lines) if line.strip()), "its log is empty")
    raise MeasureError(last.removeprefix("measure: "))


def _figures(folder: Path) -> dict[str, Any]:
    path = folder / RUN_FILE
    try:
        return run_table(read_received(path, _MOST_TEXT), str(path))
    except ResultsError as error:
        raise MeasureError(str(error)) from error


def verify(folder: Path) -> None:
    """Verify every file by the board's checksums; without these mark the run as broken off.

    Raises
    ------
    MeasureError, ReceivedError
        A file does not have its checksum, or the list names other files.
    """
    sums = folder / SUMS
    if not sums.exists():
        _mark_broken_off(folder)
        return
    for line in read_received(sums, _MOST_TEXT).splitlines():
        digest, _, name = line.partition("  ")
        if name not in FILES:
            raise MeasureError(f"{sums}: {name[:80]!r} is not a file of a measurement")
        path = folder / name
        try:
            same = sha256_of_received(path) == digest
        except FileNotFoundError:
            same = False
        if not same:
            raise MeasureError(
                f"{path}: does not have the board's checksum: fetch it again with --attach"
            )


def _mark_broken_off(folder: Path) -> None:
    """Record in the figures that the process was killed, or the board lost power."""
    if not (folder / RUN_FILE).exists():
        return
    run = _figures(folder)
    if run["state"] != RUNNING:
        return
    run["state"] = "broken off"
    run["error"] = "the process ended without a message: it was killed, or the board restarted"
    write_file(folder / RUN_FILE, json_text(run, indent=2) + "\n")
    table = summary(folder).replace(", running. ", ", broken off. ", 1) + "\n"
    (folder / SUMMARY).write_text(table, encoding="utf-8")
