"""Every command of the documentation, run in reading order."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

pytest.importorskip("torch", reason="the documentation's commands need PyTorch")

from tests.app.rtsp import free_port, rtsp_server
from tests.docs.conftest import BOARD_MODEL, PAGES, ROOT, Reader
from tests.docs.markdown import Block, Command, blocks, commands
from tests.docs.walk import ELSEWHERE, GATE, NO_OUTPUT, SHOWN, STEPS, Output, Step
from tests.fake_camera.camera import FakeCamera
from tests.stand_in_board import why_not


def _all() -> list[Command]:
    """Return all commands once; sentences may name a command without its options."""
    found: dict[str, Command] = {}
    for page in PAGES:
        for command in commands(page, ROOT):
            found.setdefault(command.text, command)
    shown = list(found.values())
    return [c for c in shown
            if not (c.inline and any(o.text.startswith(c.text + " ") for o in shown))]  # fmt: skip


def _belongs(command: Command, table: dict[str, str]) -> str | None:
    """Return the table's entry for a command: the same, or one that it extends with options."""
    text = command.text + " "
    return next((value for key, value in table.items() if text.startswith(key + " ")), None)


WALKED = [c for c in _all() if _belongs(c, GATE) is None and _belongs(c, ELSEWHERE) is None]


def test_commands_not_walked_run_elsewhere() -> None:
    gate = (ROOT / ".ci/run").read_text()
    for command in _all():
        if words := _belongs(command, GATE):
            assert words in gate, command
        elif path := _belongs(command, ELSEWHERE):
            assert (ROOT / path).exists(), command


def test_the_tables_name_no_command_that_is_gone() -> None:
    shown = {command.text for command in _all()}
    assert set(STEPS) <= shown
    for entry in (*GATE, *ELSEWHERE):
        assert any(f"{text} ".startswith(f"{entry} ") for text in shown), entry


def test_every_output_is_compared() -> None:
    for block in (b for page in PAGES for b in blocks(page) if b.is_output):
        found = [start for start in (*SHOWN, *NO_OUTPUT) if _begins(block, start)]
        assert len(found) == 1, block


@pytest.fixture(scope="module")
def words(reader: Reader) -> Iterator[dict[str, str]]:
    """The values of the tables' {words}, with a camera and an RTSP server running meanwhile."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        camera = stack.enter_context(FakeCamera(reader.folder.parent / "camera"))
        reader.environment.update({k: camera.environment()[k] for k in ("LD_PRELOAD", "FAKE_V4L2")})
        stack.enter_context(rtsp_server(port))
        board, results = reader.folder.parent / "stand-in", reader.folder / "results"
        yield {"rtsp": f"rtsp://127.0.0.1:{port}/live", "board": str(board),
               "results": str(results)}  # fmt: skip


@pytest.fixture(scope="module")
def board(reader: Reader, words: dict[str, str]) -> Iterator[None]:
    """The stand-in board, started as the documentation says."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    (text,) = (c.text for c in WALKED if "tests.stand_in_board" in c.text)
    process = reader.start(text.replace("sudo ", "").replace("/tmp/board", words["board"]))
    try:
        assert process.stdout is not None
        assert "board0 is up" in process.stdout.readline()
        yield
    finally:
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 0


@pytest.mark.docs
@pytest.mark.parametrize("command", WALKED, ids=str)
def test_a_command(
    command: Command, reader: Reader, words: dict[str, str], request: pytest.FixtureRequest
) -> None:
    step = STEPS.get(command.text, Step())
    needs_amds = {"board.xmodel", "code.s"} & set(command.text.split())
    if needs_amds and not (ROOT.parent / BOARD_MODEL).exists():
        pytest.skip("needs ../shared (AMD's example models)")
    if step.board:
        request.getfixturevalue("board")
    text = f"{command.text} {step.more}".strip()
    for shown, put_in in step.puts_in:
        assert shown in text
        text = text.replace(shown, put_in)
    if step.before:
        status, printed = _run(reader, _filled(step.before, words), Step())
        assert status == 0, printed
    text = _filled(text, words)
    status, printed = _run(reader, text, step)
    reader.done[command.text] = printed
    if not (step.absent and status == 0):  # else the machine has it
        assert status == step.status, f"{text}\n{printed}"
        assert step.shows in printed, f"{text}\n{printed}"
    assert "Traceback (most recent call last)" not in printed, f"{text}\n{printed}"


def _filled(text: str, words: dict[str, str]) -> str:
    for name, value in words.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _run(reader: Reader, text: str, step: Step) -> tuple[int, str]:
    """Return exit status and output of a command line, ended by Ctrl-C if necessary."""
    process = reader.start(text)
    try:
        if step.until:
            _wait_for(step.until, process)
            os.killpg(process.pid, signal.SIGINT)
        printed, _ = process.communicate(timeout=step.seconds)
        return process.returncode, printed
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _wait_for(url: str, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError:  # it answers and requires a token
            return
        except OSError:
            assert time.monotonic() < end, f"{url} does not answer"
            time.sleep(0.2)


@pytest.mark.docs
@pytest.mark.parametrize("start", SHOWN)
def test_an_output_equals_its_commands(start: str, reader: Reader) -> None:
    """The words of each shown line appear in order in one line of the output.

    A shown table may omit columns. Numbers that depend on the machine may have any value.
    """
    output = SHOWN[start]
    shown = [line for page in PAGES for b in blocks(page) if b.is_output and _begins(b, start)
             for line in b.lines]  # fmt: skip
    if output.command not in reader.done:
        pytest.skip("its command was not run")
    printed = [_words(line, output) for line in reader.done[output.command].splitlines()]
    for line in filter(str.strip, shown):
        wanted = _words(line, output)
        assert any(_within(wanted, words) for words in printed), line


def _begins(block: Block, start: str) -> bool:
    return " ".join(block.lines[0].split()).startswith(start)


def _words(line: str, output: Output) -> list[str]:
    return (re.sub(r"\d[\d.,]*", "0", line) if output.numbers_differ else line).split()


def _within(wanted: list[str], words: list[str]) -> bool:
    rest = iter(words)
    return all(word in rest for word in wanted)
