"""Options from dataclasses, and options with several values."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest

typer = pytest.importorskip("typer", reason="the command line needs Typer")

from tutelage.core.commands import COMMANDS, Command  # noqa: E402
from tutelage.core.errors import TutelageError  # noqa: E402
from tutelage.host.cli import boards  # noqa: E402
from tutelage.host.cli import command as commands  # noqa: E402
from tutelage.host.cli.command import SEVERAL, command, repeated, run  # noqa: E402
from tutelage.host.cli.output_file import WriteError, write_file  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class Group:
    """Options shared by commands."""

    board: Annotated[str, typer.Option(help="the board")] = "zcu104"


@dataclass(frozen=True, kw_only=True)
class Options(Group):
    """Options of the command of these tests."""

    model: Annotated[Path, typer.Argument(metavar="X.xmodel")]
    mean: Annotated[list[float], SEVERAL, typer.Option(metavar="M...")] = field(
        default_factory=list
    )
    images: Annotated[list[str], SEVERAL, typer.Option()] = field(default_factory=list)
    warm_up: Annotated[float, typer.Option(min=0.1)] = 5.0
    ops: Annotated[bool, typer.Option("--ops")] = False


given: list[Options] = []


@pytest.fixture(autouse=True)
def _command(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    given.clear()
    monkeypatch.setitem(COMMANDS, "show", Command("Show a model.", __name__, "pc"))
    monkeypatch.setattr(commands, "_ENTRIES", dict(commands._ENTRIES))
    monkeypatch.setattr(commands, "import_module", lambda name: None)

    @command("show", "net.xmodel", "net.xmodel --ops")
    def show(options: Options) -> int:
        """Not shown.

        More of it.
        """
        given.append(options)
        return 1

    yield


def test_fields_become_options() -> None:
    assert run("show", ["net.xmodel"]) == 1
    assert given == [Options(model=Path("net.xmodel"))]
    assert run("show", ["--ops", "--board", "kv260", "--warm-up", "2", "a"]) == 1
    assert given[1] == Options(model=Path("a"), board="kv260", warm_up=2.0, ops=True)


def test_several_values_and_repeated_ones() -> None:
    for arguments in (
        ["--mean", "1", "-2.5", "net", "--images", "a", "b"],
        ["net", "--mean", "1", "--mean", "-2.5", "--images", "a", "--images", "b"],
        ["net", "--images", "a", "b", "--mean", "1", "-2.5"],
        ["--images", "a", "b", "--mean=1", "--mean", "-2.5", "--", "net"],
    ):
        assert run("show", arguments) == 1
        assert given.pop() == Options(model=Path("net"), mean=[1.0, -2.5], images=["a", "b"])


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "Missing argument 'X.xmodel'"),
        (["a", "b"], "unexpected extra argument"),
        (["a", "--fly"], "No such option: --fly"),
        (["a", "--mean", "one"], "--mean"),
        (["a", "--mean"], "--mean"),
        (["a", "--warm-up", "0"], "--warm-up"),
    ],
)
def test_wrong_use_is_one_line_with_the_way_to_help(arguments: list[str], words: str) -> None:
    with pytest.raises(TutelageError) as found:
        run("show", arguments)
    text = str(found.value)
    assert words in text and text.endswith("; see tutelage show --help") and "\n" not in text


def test_help_has_the_tables_line_more_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", ["--help"]) == 0 and not given
    out = capsys.readouterr().out
    assert "Usage: tutelage show" in out and "Show a model." in out and "More of it." in out
    assert "Not shown" not in out
    assert "  Examples:\n    tutelage show net.xmodel\n    tutelage show net.xmodel --ops\n" in out
    assert out.index("--mean") < out.index("--ops") < out.index("--board"), "groups come last"


@pytest.mark.parametrize(
    "arguments, wanted",
    [
        ("--mean 1 2 x", "--mean 1 --mean 2 x"),
        ("x --mean 1 2", "x --mean 1 --mean 2"),
        ("--images a b --ops c", "--images a --images b --ops c"),
        ("--images - -- --images a b", "--images - -- --images a b"),
        ("--mean --ops 1", "--mean --ops 1"),
        ("--mean -1 -2 --images a", "--mean -1 --mean -2 --images a"),
        ("--mean 1 --mean 2 3", "--mean 1 --mean 2 --mean 3"),
    ],
)
def test_repeated(arguments: str, wanted: str) -> None:
    several = {"--mean": float, "--images": str}
    assert repeated(arguments.split(), several) == wanted.split()


def test_an_output_does_not_follow_a_planted_link(tmp_path: Path) -> None:
    """Others may be able to write to the directory, such as /tmp."""
    (tmp_path / "own").write_text("kept")
    (tmp_path / f".net.svg.{os.getpid()}").symlink_to("own")
    write_file(tmp_path / "net.svg", b"drawing")
    assert (tmp_path / "own").read_text() == "kept"
    assert (tmp_path / "net.svg").read_bytes() == b"drawing"
    with pytest.raises(WriteError, match=r"none/net\.svg: cannot write: No such file"):
        write_file(tmp_path / "none/net.svg", b"")


def test_nohup_is_respected() -> None:
    before, passed = signal.signal(signal.SIGHUP, signal.SIG_IGN), list[str]()
    try:
        with pytest.raises(KeyboardInterrupt), boards._ended_like_ctrl_c():
            os.kill(os.getpid(), signal.SIGHUP)
            passed.append("SIGHUP")
            os.kill(os.getpid(), signal.SIGTERM)
            passed.append("SIGTERM")
        assert passed == ["SIGHUP"]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with pytest.raises(KeyboardInterrupt), boards._ended_like_ctrl_c():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
