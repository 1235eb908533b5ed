"""A compromised board against the workstation that deploys to it and collects from it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="host/ needs typer, which is not installed")

from tests.stand_in_board import HOME, StandInBoard, why_not
from tests.stand_in_board.deployable import make_model
from tests.stand_in_board.image import PYNQ_VENV
from tutelage.__main__ import main
from tutelage.core.errors import MeasureError
from tutelage.host.deploy import measurement as measuring
from tutelage.host.deploy.measurement_progress import MeasurementProgress
from tutelage.host.deploy.measurement_results import verify
from tutelage.host.deploy.release import Parts, ReleaseError, gather, seal
from tutelage.host.ssh.errors import RemoteError
from tutelage.host.ssh.received import ReceivedError, read_received, sha256_of_received
from tutelage.host.ssh.remote import Remote
from tutelage.host.ssh.transfer import fetch

_REASON = why_not()
needs_board = pytest.mark.skipif(_REASON is not None, reason=_REASON or "")

NAME = "20260101T000000Z-abcd"
OWN = "a file of the workstation's, running. It has a password.\n"
RUN = {"state": "running", "error": "", "steps": []}


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInBoard]:
    with StandInBoard(tmp_path_factory.mktemp("board")) as board:
        yield board


@pytest.fixture
def measured(board: StandInBoard) -> Path:
    """The directory of an interrupted measurement on the board."""
    folder = board.tutelage / "measurements" / NAME
    board.run(f"rm -rf tutelage; mkdir -p tutelage/measurements/{NAME}")
    (folder / "run.json").write_text(json.dumps(RUN))
    (folder / "summary.md").write_text("| table |, running. \n")
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own"
    path.write_text(OWN)
    return path


def _attach(board: StandInBoard, results: Path) -> int:
    return main(["measure", board.host, "--ssh-config", str(board.ssh_config), "--output",
                 str(results), "--attach", "--id", NAME])  # fmt: skip


@needs_board
@pytest.mark.parametrize("linked", ["summary.md", "run.json", "log", "SHA256SUMS"])
def test_a_link_for_a_result_is_not_followed(
    board: StandInBoard, measured: Path, own: Path, tmp_path: Path, linked: str, capsys: Any
) -> None:
    (measured / linked).unlink(missing_ok=True)
    (measured / linked).symlink_to(own)
    assert _attach(board, tmp_path / "results") == 1
    printed = capsys.readouterr()
    assert "password" not in printed.out + printed.err
    assert f"{linked} is not a regular file" in printed.err.splitlines()[-1]
    assert own.read_text() == OWN
    assert not list((tmp_path / "results/zcu104").glob("2*"))


@needs_board
def test_a_link_that_an_older_fetch_left_is_removed(
    board: StandInBoard, measured: Path, own: Path, tmp_path: Path, capsys: Any
) -> None:
    """It existed, and rsync wrote the new file beside it; or the board sends nothing for it."""
    partial = tmp_path / f"results/zcu104/.{NAME}.partial"
    partial.mkdir(parents=True)
    (partial / "run.json").symlink_to(own)
    (partial / "elsewhere").symlink_to("/")
    assert _attach(board, tmp_path / "results") == 1
    assert "the measurement is broken off" in capsys.readouterr().err
    assert own.read_text() == OWN
    assert not (tmp_path / f"results/zcu104/{NAME}/elsewhere").is_symlink()


@needs_board
def test_only_a_measurements_files_are_fetched(
    board: StandInBoard, measured: Path, tmp_path: Path, capsys: Any
) -> None:
    (measured / "evil.sh").write_text("echo")
    (measured / "deep").mkdir()
    (measured / "deep/run.json").write_text("{}")
    assert _attach(board, tmp_path) == 1
    assert {path.name for path in (tmp_path / f"zcu104/{NAME}").iterdir()} == {
        "run.json", "summary.md"}  # fmt: skip
    remote = Remote(board.host, board.ssh_config)
    (measured / "log").mkdir()
    with pytest.raises(RemoteError, match="sent files that were not requested"):
        fetch(remote, f"tutelage/measurements/{NAME}", tmp_path / "copy", ["log"], 1000)
    assert not (tmp_path / "copy").exists()
    (measured / "frames.csv").write_bytes(bytes(2000))
    fetch(remote, f"tutelage/measurements/{NAME}", tmp_path / "copy", ["frames.csv"], 1000)
    assert not list((tmp_path / "copy").iterdir())  # larger than requested


@needs_board
def test_an_rsync_that_sends_links_all_the_same(
    board: StandInBoard, measured: Path, own: Path, tmp_path: Path, capsys: Any
) -> None:
    """The program on the other side is the board's own, and may send unrequested files."""
    place = board.root / "usr/local/bin/rsync"
    place.write_text('#!/bin/sh\nexec /usr/bin/rsync "$@" --links --copy-unsafe-links\n')
    place.chmod(0o755)
    (measured / "summary.md").unlink()
    (measured / "summary.md").symlink_to(own)
    try:
        assert _attach(board, tmp_path / "results") == 1
    finally:
        place.unlink()
    printed = capsys.readouterr()
    assert "password" not in printed.out + printed.err and own.read_text() == OWN


@needs_board
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "not a measured run"),
        ('{"state": 1}', "not a measured run"),
        ("{" * 100000, "not a measured run"),
        ('{"state": "refused"}', "the measurement was refused: None"),
    ],
    ids=["list", "number", "deep", "short"],
)
def test_figures_that_are_none(
    board: StandInBoard, measured: Path, tmp_path: Path, text: str, says: str, capsys: Any
) -> None:
    (measured / "run.json").write_text(text)
    assert _attach(board, tmp_path) == 1
    assert says in capsys.readouterr().err


def test_a_run_that_was_broken_off_is_marked_whatever_it_contains(tmp_path: Path) -> None:
    (tmp_path / "summary.md").write_text("")
    for text in ("\\ud800", "\\u0000\\n\\u202e"):
        (tmp_path / "run.json").write_text(f'{{"state": "running", "error": "{text}"}}')
        verify(tmp_path)
        run = json.loads((tmp_path / "run.json").read_bytes())
        assert run["state"] == "broken off"
    deep = "[" * 500 + "]" * 500
    (tmp_path / "run.json").write_text(f'{{"state": "running", "deep": {deep}}}')
    with pytest.raises(MeasureError, match="nested too deeply"):
        verify(tmp_path)


@needs_board
@pytest.mark.parametrize("name", ["../own", "..", "", "a\0b", "a" * 300])
def test_checksums_of_other_files(
    board: StandInBoard, measured: Path, tmp_path: Path, name: str, capsys: Any
) -> None:
    (measured / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
    assert _attach(board, tmp_path) == 1
    assert "is not a file of a measurement" in capsys.readouterr().err.splitlines()[-1]


def test_progress_that_is_none() -> None:
    """Any line is shown or left out; none ends the watching."""
    messages: list[str] = []
    progress = MeasurementProgress(messages.append)
    end = {"event": "end", "at": 1, "state": "done", "error": None}
    step = {"event": "step", "at": 1, "fps": 1, "watts": None, "latency_ms": None, "concerns": []}
    for line in (
        "", "[]", "1", "{", "[" * 100000, '{"event": "end"}', json.dumps({**end, "at": "1"}),
        json.dumps({**end, "at": None}), json.dumps({**step, "fps": "x"}),
        json.dumps(step).replace('"fps": 1', f'"fps": {"9" * 400}'),
        json.dumps(step).replace('"fps": 1', f'"fps": {"9" * 5000}'),
        json.dumps({"event": "plan", "at": 1, "steps": 7, "seconds": 1}),
    ):  # fmt: skip
        progress.take(line)
    assert not messages
    progress.take(json.dumps(end))
    assert messages == ["      1 s  done"]


@needs_board
@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("yes", "printed more than 16,777,216 bytes"),
        ("echo '[1, 2]'", "the answer to the check is not that of board/check.py"),
        ('echo \'{"python": "3.10"}\'', "the answer to the check is not that of board/check.py"),
        ("head -c 100000 /dev/zero | tr '\\0' [", "the answer to the check is not JSON"),
    ],
    ids=["endless", "list", "incomplete", "deep"],
)
def test_an_answer_that_is_none(
    board: StandInBoard, tmp_path: Path, script: str, says: str, capsys: Any
) -> None:
    python = board.root / PYNQ_VENV / "bin/python3"
    target = python.readlink()
    python.unlink()
    python.write_text(f"#!/bin/sh\ncat > /dev/null\n{script}\n")
    python.chmod(0o755)
    try:
        assert main(["deploy", board.host, "--ssh-config", str(board.ssh_config), "--model",
                     str(make_model(tmp_path / "mine"))]) == 1  # fmt: skip
    finally:
        python.unlink()
        python.symlink_to(target)
    err = capsys.readouterr().err
    assert says in err and len(err.splitlines()) == 1


@needs_board
def test_a_name_that_is_none_is_not_taken(board: StandInBoard, measured: Path) -> None:
    (measured.parent / "20260101T000000Z-abcd; touch pwned").mkdir()
    found = measuring.listing(board.host, board.ssh_config)
    assert not (board.root / HOME / "pwned").exists()
    assert (NAME, "ended") in found


# -- gathering --------------------------------------------------------------------------------


def test_a_model_takes_nothing_from_elsewhere(tmp_path: Path) -> None:
    secret = tmp_path / "id_ed25519"
    secret.write_text("key")
    (tmp_path / "elsewhere").mkdir()

    def gathered(name: str, make: Callable[[Path], object]) -> Path:
        model = make_model(tmp_path / name)
        make(model)
        stage = tmp_path / f"{name}.stage"
        stage.mkdir()
        gather(stage, Parts("zcu104", model))
        return stage / "model"

    outward: dict[str, Callable[[Path], object]] = {
        "file": lambda model: (model / "notes").symlink_to(secret),
        "upward": lambda model: (model / "notes").symlink_to("../id_ed25519"),
        "folder": lambda model: (model / "more").symlink_to(tmp_path / "elsewhere"),
        "deep": lambda model: (model / "images/9.png").symlink_to(secret),
        "device": lambda model: (model / "notes").symlink_to("/dev/zero"),
        "around": lambda model: (model / "again").symlink_to("."),
        "broken": lambda model: (model / "notes").symlink_to("nowhere"),
        "loop": lambda model: (model / "notes").symlink_to("notes"),
        "pipe": lambda model: os.mkfifo(model / "notes"),
    }
    for name, make in outward.items():
        with pytest.raises(ReleaseError) as refused:
            gathered(name, make)
        assert str(tmp_path / name) in str(refused.value) and "\n" not in str(refused.value)

    stage = gathered("inside", lambda model: (model / "best.xmodel").symlink_to("model.xmodel"))
    copy = stage / "best.xmodel"
    assert copy.is_file() and not copy.is_symlink()
    model = tmp_path / "linked"
    model.symlink_to(tmp_path / "inside")  # the user's own choice
    (tmp_path / "stage").mkdir()
    gather(tmp_path / "stage", Parts("zcu104", model))
    assert (tmp_path / "stage/model/model.xmodel").is_file()


@pytest.mark.parametrize("name", [b"a\nb", b"\xff\xfe", b"a\x1b[2J", b"deep\n/file"])
def test_a_model_has_no_names_that_a_list_of_checksums_has_not(tmp_path: Path, name: bytes) -> None:
    model = make_model(tmp_path / "mine")
    path = Path(os.fsdecode(os.fsencode(model) + b"/images/" + name))
    path.parent.mkdir(exist_ok=True)
    path.touch()
    (tmp_path / "stage").mkdir()
    gather(tmp_path / "stage", Parts("zcu104", model))
    with pytest.raises(ReleaseError, match=r"^'model/images/.*': .*: rename the file$"):
        seal(tmp_path / "stage")


def test_received_files_are_read_without_following_links(tmp_path: Path) -> None:
    plain, link, pipe = (tmp_path / name for name in ("plain", "link", "pipe"))
    plain.write_text("text")
    link.symlink_to(plain)
    os.mkfifo(pipe)
    assert read_received(plain, 4) == "text"
    with pytest.raises(ReceivedError, match="more than the limit of 3 bytes"):
        read_received(plain, 3)
    for path in (link, pipe, tmp_path):
        with pytest.raises(ReceivedError, match=str(path)):
            read_received(path, 10)
        with pytest.raises(ReceivedError):
            sha256_of_received(path)
    plain.write_bytes(b"\xff")
    with pytest.raises(ReceivedError, match="UTF-8"):
        read_received(plain, 4)
