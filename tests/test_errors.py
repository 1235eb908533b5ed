"""Errors have one base with an exit status, and code never depends on their names or texts."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tutelage.core.errors import (
    FAILED,
    WRONG_USE,
    DpuError,
    TutelageError,
    XmodelError,
    contradictions,
    error_text,
    first_line,
    one_line,
)
from tutelage.core.messages import run_command

PACKAGES = ("app", "board", "core", "dpu", "host", "tutelage")

INTERNAL = {
    "Absent": "a platform of the comparison, which becomes a row",
    "BanksFull": "planning begins again without a map on the chip",
    "MismatchError": "becomes a ResultsError",
    "NoRoom": "the pipeline tries again",
    "NotShared": "planning begins again with the stage divided",
    "RecordingError": "the page's answer",
    "RowsTooLong": "planning begins again with more strips",
    "RunnerError": "the pipeline takes another runner",
    "Refusal": "the compiler leaves the op to the CPU",
    "_WireError": "becomes an XmodelError",
}
"""Errors that no command reports, and what becomes of them."""


def _errors(repo_root: Path) -> Iterator[tuple[str, set[str]]]:
    """Yield the name and the bases of every error class, recognised by the names of its bases."""
    for package in PACKAGES:
        for path in (repo_root / package).glob("**/*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    bases = {ast.unparse(base) for base in node.bases}
                    if any(base == "Exception" or base.endswith("Error") for base in bases):
                        yield node.name, bases


def test_every_error_that_is_reported_derives_from_the_one_base(repo_root: Path) -> None:
    builtin = {"Exception", "RuntimeError", "ValueError", "OSError"}
    plain = {
        name
        for name, bases in _errors(repo_root)
        if bases & builtin and "TutelageError" not in bases
    }
    assert plain - {"TutelageError"} == set(INTERNAL)


def test_every_error_is_defined_once(repo_root: Path) -> None:
    names = Counter(name for name, _ in _errors(repo_root))
    assert [name for name, count in names.items() if count > 1] == []


def _raise(error: BaseException) -> int:
    raise error


class _FailedError(TutelageError):
    status = FAILED


@pytest.mark.parametrize(
    "error, status, words",
    [
        (TutelageError("no such file\x1b[2J"), WRONG_USE, "no such file\\x1b[2J"),
        (_FailedError("the disk is full"), FAILED, "the disk is full"),
        (_FailedError(""), FAILED, "_FailedError"),
        (OSError(28, "No space left on device"), FAILED, "[Errno 28] No space left on device"),
        (MemoryError(), FAILED, "not enough memory"),
        (KeyboardInterrupt(), FAILED, "interrupted"),
    ],
)
def test_errors_that_end_a_command(
    error: BaseException, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("tutelage", lambda: _raise(error)) == status
    assert capsys.readouterr().err == f"tutelage: {words}\n"


@pytest.mark.parametrize("error", [BrokenPipeError(), ZeroDivisionError(), SystemExit(3)])
def test_errors_that_pass(error: BaseException) -> None:
    with pytest.raises(type(error)):
        run_command("tutelage", lambda: _raise(error))


@pytest.mark.parametrize(
    "error, text, first, one",
    [
        (ValueError("no such file"), "no such file", "no such file", "no such file"),
        (ValueError("\n a\n\tb \n"), "a\n\tb", "a", "a b"),
        (ValueError(), "ValueError", "ValueError", "ValueError"),
        (ValueError(" \n"), "ValueError", "ValueError", "ValueError"),
        ("a reason\nof two lines", "a reason\nof two lines", "a reason", "a reason of two lines"),
    ],
)
def test_the_text_of_an_error(error: object, text: str, first: str, one: str) -> None:
    assert (error_text(error), first_line(error), one_line(error)) == (text, first, one)


def test_a_model_is_named_once() -> None:
    inner, outer = contradictions("net"), contradictions("net")
    words = r"^net: conv needs a network\Z"
    with pytest.raises(XmodelError, match=words) as found, outer, inner:
        raise XmodelError("conv needs a network")
    assert isinstance(found.value, DpuError) and found.value.subject == "net"
