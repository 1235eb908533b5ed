"""`python -m tutelage.board.overlay` in a tree of files, with a stand-in for pynq."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tutelage.board import runner as dpu
from tutelage.board.overlay import model_fit
from tutelage.board.overlay.__main__ import main
from tutelage.board.overlay.model_fit import ModelFile, check_model, query_fingerprint
from tutelage.board.overlay.site import site_of
from tutelage.core.errors import OverlayError

LINE = "firmware: /usr/lib/dpu.xclbin"
FILES = {"dpu.bit": b"bits", "dpu.hwh": b"<xml/>", "dpu.xclbin": b"xclbin2 of this overlay"}
OWN = 0x101000016010407

PYNQ = """
import json, os
class Overlay:
    def __init__(self, path, **options):
        with open(os.environ["PYNQ_RECORD"], "a") as record:
            record.write(json.dumps([path, options, os.path.exists(path[:-3] + "hwh")]) + "\\n")
        if os.environ.get("PYNQ_FAILS"):
            raise RuntimeError("no device\\nsecond line")
"""


@dataclass
class Board:
    """A board's tree of files, and the calls to pynq."""

    root: Path
    folder: Path
    record: Path

    @property
    def conf(self) -> Path:
        return self.root / "etc" / "vart.conf"

    @property
    def firmware(self) -> Path:
        return self.root / "usr" / "lib" / "dpu.xclbin"

    @property
    def calls(self) -> int:
        return len(self.record.read_text().splitlines()) if self.record.exists() else 0

    def __call__(self, command: str, *more: str) -> int:
        return main([command, str(self.folder), *more], root=self.root)

    def snapshot(self) -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in self.root.rglob("*") if p.is_file()}


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    root, folder, stand_in = tmp_path / "root", tmp_path / "files", tmp_path / "stand_in"
    for path in (root / "etc", root / "usr" / "lib", folder, stand_in):
        path.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    (stand_in / "pynq.py").write_text(PYNQ)
    monkeypatch.syspath_prepend(str(stand_in))
    monkeypatch.delitem(sys.modules, "pynq", raising=False)
    monkeypatch.setenv("PYNQ_RECORD", str(tmp_path / "record"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    made = Board(root, folder, tmp_path / "record")
    made.conf.write_text(f"{LINE}\n")
    return made


def _pin(board: Board, **changes: str) -> None:
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    lines = [f'"{name}" = "{changes.get(name[4:], text)}"' for name, text in sums.items()]
    (board.folder / "sha256.toml").write_text("[files]\n" + "\n".join(lines))


def _program(board: Board, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a stand-in for xdputil on the path."""
    folder = board.root.parent / "bin"
    folder.mkdir()
    (folder / "xdputil").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "xdputil").chmod(0o755)


# -- load -------------------------------------------------------------------------------------


def test_loads_and_installs_and_does_it_again(
    board: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    _pin(board)
    assert board("load") == 0
    out = capsys.readouterr().out
    assert "loaded" in out and "dpu.xclbin: installed" in out and "verified with sha256.toml" in out
    assert board.record.read_text() == f'["{board.folder / "dpu.bit"}", {{}}, true]\n'
    assert board.firmware.read_bytes() == FILES["dpu.xclbin"]
    assert board.firmware.stat().st_mode & 0o777 == 0o644
    before = board.snapshot()
    assert board("load") == 0
    assert "already installed" in capsys.readouterr().out
    assert board.snapshot() == before and board.calls == 2


def test_needs_root(
    board: Board, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    before = board.snapshot()
    assert board("load") == 1
    error = capsys.readouterr().err
    assert "needs root" in error and error.count("\n") == 1
    assert board.snapshot() == before and not board.calls


def test_a_bitstream_that_pynq_refuses(
    board: Board, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYNQ_FAILS", "1")
    board.firmware.write_bytes(b"of before")
    assert board("load") == 1
    error = capsys.readouterr().err
    assert "pynq does not load it: no device second line" in error and error.count("\n") == 1
    assert board.firmware.read_bytes() == b"of before"


def test_without_pynq(
    board: Board, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pynq", None)
    assert board("load") == 1
    assert "pynq cannot be imported" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(FILES))
def test_files_that_are_missing_empty_or_changed(
    board: Board, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = board.folder / name
    for content, words in (
        (b"", "missing or empty"),
        (b"new", "its SHA-256 is not the one in sha256.toml"),
    ):
        _pin(board)
        path.write_bytes(content)
        assert board("load") == 1
        error = capsys.readouterr().err
        assert str(path) in error and words in error and error.count("\n") == 1
    path.unlink()
    assert board("load") == 1
    assert "missing" in capsys.readouterr().err and not board.calls


@pytest.mark.parametrize("text", ["", "x", "files = 3", "[files]\n"])
def test_pins_that_say_nothing(board: Board, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (board.folder / "sha256.toml").write_text(text)
    assert board("load") == 1
    error = capsys.readouterr().err
    assert "sha256.toml" in error and error.count("\n") == 1 and not board.calls


def test_a_directory_that_cannot_be_written(
    board: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    board.firmware.parent.rmdir()
    board.firmware.parent.write_text("a file in the place of a directory")
    assert board("load") == 1
    error = capsys.readouterr().err
    assert "Not a directory" in error and error.count("\n") == 1


# -- vart.conf --------------------------------------------------------------------------------

WRONG = {
    "other": "firmware: /media/sd-mmcblk0p1/dpu.xclbin\n",
    "two": f"{LINE}\n{LINE}\n",
    "more": f"{LINE}\nfirmware: /usr/lib/other.xclbin\n",
    "empty": "",
    "spaced": f" {LINE}\n",
    "no colon": "firmware /usr/lib/dpu.xclbin\n",
    "long": "x" * 200_000,
    "missing": None,
}


@pytest.mark.parametrize("ending", ["", "\n"])
def test_a_right_vart_conf_is_left_alone(board: Board, ending: str) -> None:
    board.conf.write_text(LINE + ending)
    assert board("load", "--fix") == 0
    assert board.conf.read_text() == LINE + ending
    assert [p.name for p in board.conf.parent.iterdir()] == ["vart.conf"]


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_vart_conf_is_refused(
    board: Board, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(board.conf, WRONG[kind])
    before = board.snapshot()
    assert board("load") == 1
    error = capsys.readouterr().err
    assert "vart.conf" in error and "--fix" in error and error.count("\n") == 1
    assert len(error) < 400 and board.snapshot() == before and not board.calls
    assert board("check") == 1
    assert "config     WRONG" in capsys.readouterr().out and board.snapshot() == before


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_vart_conf_is_repaired_and_kept(board: Board, kind: str) -> None:
    text = WRONG[kind]
    for number in range(2):  # an older backup is never overwritten
        _write(board.conf, text)
        assert board("load", "--fix") == 0
        assert board.conf.read_text() == f"{LINE}\n"
        kept = [p.read_text() for p in board.conf.parent.glob("vart.conf.before-tutelage*")]
        assert kept == ([] if text is None else [text] * (number + 1))
    assert board("load", "--fix") == 0
    assert len(list(board.conf.parent.iterdir())) == (1 if text is None else 3)


def _write(path: Path, text: str | None) -> None:
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


def test_a_vart_conf_that_cannot_be_read(board: Board, capsys: pytest.CaptureFixture[str]) -> None:
    board.conf.unlink()
    board.conf.mkdir()
    assert board("load", "--fix") == 1
    error = capsys.readouterr().err
    assert "Is a directory" in error and error.count("\n") == 1 and not board.calls


# -- check ------------------------------------------------------------------------------------


def test_check_reports_everything_and_changes_nothing(
    board: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    before = board.snapshot()
    assert board("check") == 1
    out = capsys.readouterr().out
    assert "not verified, without sha256.toml" in out and "missing; `load` installs it" in out
    assert board.snapshot() == before and not board.calls
    board.firmware.write_bytes(b"another's")
    assert board("check") == 1
    assert "is of another overlay" in capsys.readouterr().out
    assert board("load") == 0 and board("check") == 0
    out = capsys.readouterr().out
    assert "brown-out" in out and "--threads 1" in out and "limit-busy" not in out
    bound = board.root / "sys" / "bus" / "i2c" / "drivers" / "irps5401" / "4-0043"
    bound.mkdir(parents=True)
    assert board("check") == 0
    out = capsys.readouterr().out
    assert "limit-busy: " in out and "unbind" in out


@pytest.mark.parametrize("command", ["check", "load"])
def test_boards_that_nobody_knows(
    board: Board, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert board(command, "--board", "../zcu104") == 2
    error = capsys.readouterr().err
    assert "choose from kv260, " in error and error.count("\n") == 1


def test_as_a_program(board: Board, repo_root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tutelage.board.overlay"]
    for arguments, status in ((["--help"], 0), (["fly", "."], 2), (["check", "/none"], 1)):
        done = subprocess.run(
            [*command, *arguments], cwd=repo_root, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == status and "Traceback" not in done.stderr


# -- the model --------------------------------------------------------------------------------


@pytest.fixture
def fingerprint(monkeypatch: pytest.MonkeyPatch) -> dict[str, int | None]:
    """The DPU that the stand-in for a loaded model was compiled for."""
    compiled_for: dict[str, int | None] = {"is": OWN}

    @dataclass
    class Loaded:
        fingerprint: int | None
        target: str = "some DPU"

    def load(path: Path, plugin: Path | None) -> Loaded:
        if not path.exists():
            raise dpu.ModelError(f"{path}: no such file")
        return Loaded(compiled_for["is"])

    monkeypatch.setattr(dpu, "load", load)
    return compiled_for


def test_models_are_checked_before_anything_is_loaded(
    board: Board, fake_model: Path, fingerprint: dict[str, int | None],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert board("load", "--model", str(fake_model)) == 0
    assert "compiled for this DPU (0x101000016010407)" in capsys.readouterr().out
    assert board("check", "--model", str(fake_model)) == 0
    for number, words in ((0x101000056010407, "the DPU is 0x101000016010407"), (None, "some DPU")):
        fingerprint["is"] = number
        assert board("load", "--model", str(fake_model)) == 1
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1 and board.calls == 1
        assert board("check", "--model", str(fake_model)) == 1
        assert words in capsys.readouterr().out
    assert board("load", "--model", "none.xmodel") == 1
    assert "none.xmodel: no such file" in capsys.readouterr().err and board.calls == 1


def test_an_unknown_dpu_is_reported(
    fake_model: Path, fingerprint: dict[str, int | None], tmp_path: Path
) -> None:
    site = site_of("ultra96v2", tmp_path)
    assert "own fingerprint is not known" in check_model(site, ModelFile(fake_model))
    with pytest.raises(OverlayError, match="the DPU is 0x1"):
        check_model(site, ModelFile(fake_model), queried=1)


@pytest.mark.usefixtures("emulation")
def test_real_models(
    shared_dir: Path, demo_model: Path, emulator_model: Path, repo_root: Path, tmp_path: Path
) -> None:
    from tutelage.board.provider import find_provider

    find_provider.cache_clear()
    site = site_of("zcu104", tmp_path)
    amds = shared_dir / "models" / "mnist_prelu_zcu104_vai25.xmodel"
    plugin = repo_root / "tests" / "dpu" / "plugins.py"
    assert "compiled for this DPU" in check_model(site, ModelFile(amds, plugin))
    assert "compiled for this DPU" in check_model(site, ModelFile(demo_model))
    with pytest.raises(OverlayError, match="TUTELAGE_EMULATOR"):
        check_model(site, ModelFile(emulator_model))


# -- the fingerprint that the DPU reports ----------------------------------------------------


@pytest.mark.parametrize(
    "script, wanted",
    [
        ('echo \'{"DPU Core": [{"fingerprint":"0x101000016010407"}]}\'', OWN),
        ("echo 'Fingerprint: 0x101000056010407,'", 0x101000056010407),
        ("echo 'DPU Fingerprint : nothing'", None),
        ("echo 'fingerprint: 0x1'; exit 3", None),
        ("exit 0", None),
    ],
)
def test_xdputil_is_asked(
    board: Board, monkeypatch: pytest.MonkeyPatch, script: str, wanted: int | None
) -> None:
    assert query_fingerprint() is None
    _program(board, monkeypatch, script)
    assert query_fingerprint() == wanted


def test_xdputil_that_hangs(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_fit, "_QUERY_SECONDS", 0.2)
    _program(board, monkeypatch, "exec /bin/sleep 30")
    assert query_fingerprint() is None


def test_the_dpus_fingerprint_takes_precedence(
    board: Board, fake_model: Path, fingerprint: dict[str, int | None],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    _program(board, monkeypatch, "echo fingerprint: 0x101000056010407")
    assert board("load") == 1
    assert "the files are of another overlay" in capsys.readouterr().err
    assert board("load", "--model", str(fake_model)) == 1
    assert "the DPU is 0x101000056010407" in capsys.readouterr().err
