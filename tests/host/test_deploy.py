"""`python -m host deploy` and `rollback` on stand-in boards: real sshd, rsync, network, disk.

No real board was seen: vart and xir are those of tests/fake_board.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="host/ needs typer, which is not installed")

from host import deploy as deploying
from host import remote, service
from host.__main__ import main
from host.board_check import disk_findings, findings_of, profile_of
from host.deploy import Plan, Report, deploy, rollback
from host.release import Packages, ReleaseError
from host.target import compiled_for
from tests.host.stand_ins import vai_c_xir
from tests.stand_in_board import StandInBoard, why_not
from tests.stand_in_board.deployable import make_model, make_wheel

ROOT = Path(__file__).resolve().parent.parent.parent
_REASON = why_not()
needs_board = pytest.mark.skipif(_REASON is not None, reason=_REASON or "")


def _quiet(text: str) -> None:
    """Takes what a user would be told."""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real wheel of what the stand-in lacks, so that no test needs a package index."""
    folder = tmp_path_factory.mktemp("wheels")
    make_wheel("psutil", folder)
    return folder


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(base))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "mine")


@pytest.fixture
def board(tmp_path: Path) -> Iterator[StandInBoard]:
    with StandInBoard(tmp_path) as board:
        yield board


@pytest.fixture
def go(board: StandInBoard, model: Path, wheels: Path) -> Callable[..., Report]:
    """Deploy `model` to `board`; keyword arguments are Plan's."""

    def run(**changes: Any) -> Report:
        plan = Plan("zcu104", model, wheels, board.ssh_config, **changes)
        return deploy([board.host], plan, _quiet)[0]

    return run


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut network is seen sooner, at both ends."""
    options = [o.replace("Interval=5", "Interval=2") for o in remote.SSH_OPTIONS]
    monkeypatch.setattr(remote, "SSH_OPTIONS", options)
    monkeypatch.setattr(remote, "LOCK_SECONDS", 6)


def _wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def _wait_for_partial(board: StandInBoard, count: int = 1) -> None:
    """Wait until so many runs have begun to copy."""
    pattern = "releases/.*.partial/app/classify.py"
    _wait_for(lambda: len(list(board.tutelage.glob(pattern))) >= count)


def _releases(board: StandInBoard) -> set[str]:
    """All that lies among the releases on a board, broken-off ones too."""
    return {path.name for path in (board.tutelage / "releases").iterdir()}


def _fatten(model: Path, megabytes: int) -> None:
    (model / "weights.bin").write_bytes(os.urandom(megabytes << 20))


@needs_board
def test_deploy_twice_change_and_roll_back(
    board: StandInBoard, go: Callable[..., Report], model: Path
) -> None:
    notes = model / "notes.txt"
    notes.write_text("old")
    os.utime(notes, (1, 1))
    first = go()
    assert (first.state, first.error) == ("deployed", "")
    assert first.smoke == "3 frames classified on DPU (vart from /usr/lib/python3/site-packages)"
    assert any("brown-out" in text for text in first.warnings)
    current = board.tutelage / "current"
    assert str(current.readlink()) == f"releases/{first.release}"
    code = "import psutil, starlette, numpy, pynq; print(psutil.__file__, numpy.__file__)"
    told = board.run(f"cd tutelage/current && .venv/bin/python -c '{code}'")
    assert "current/packages/psutil" in told.replace(first.release, "current")
    assert "/usr/local/share/pynq-venv" in told or "/opt/site" in told

    again = go()
    assert (again.state, again.release, again.sent_bytes) == ("unchanged", first.release, 0)

    notes.write_text("new")
    os.utime(notes, (1, 1))  # of the same size and time as the one before
    second = go()
    assert second.state == "deployed" and second.previous == first.release, second.error
    assert second.sent_bytes < 200_000  # what the release before has is linked, not sent
    inode = [(board.tutelage / "releases" / r.release / "app/classify.py").stat().st_ino
             for r in (first, second)]  # fmt: skip
    assert inode[0] == inode[1]

    back = rollback([board.host], board.ssh_config)[0]
    assert (back.state, back.release) == ("rolled back", first.release)
    assert str(current.readlink()) == f"releases/{first.release}"
    assert go().release == second.release
    assert str(current.readlink()) == f"releases/{second.release}"

    (model / "images" / "0.png").write_bytes(b"no image")
    failed = go()
    assert failed.state == "failed" and "smoke test" in failed.error
    assert str(current.readlink()) == f"releases/{second.release}"
    assert _releases(board) == {first.release, second.release}


def _stand_in_systemctl(board: StandInBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes down what it is called for; restart starts something in the current release.

    While /down is there, or what is started is the release that /down names, it does not stay up.
    """
    monkeypatch.setattr(service, "SETTLE_SECONDS", 0.2)
    systemctl = board.root / "usr/local/bin/systemctl"
    systemctl.write_text(
        """#!/bin/sh
echo "$@" >> /calls
release=$(basename $(readlink /proc/$(cat /main 2>/dev/null)/cwd) 2>/dev/null)
case $1 in
is-active)
    case $release in
    "") echo inactive; exit 3 ;;
    $(cat /down 2>/dev/null)) echo failed; exit 3 ;;
    *) echo active ;;
    esac ;;
show) cat /main 2>/dev/null ;;
disable) kill $(cat /main); rm /main ;;
restart)
    kill $(cat /main 2>/dev/null) 2>/dev/null
    cd /home/board/tutelage/current && { sleep 1000 > /dev/null 2>&1 & echo $! > /main; } ;;
esac
"""
    )
    systemctl.chmod(0o755)


def _served(board: StandInBoard) -> str:
    """The release that the service runs."""
    return board.run("basename $(readlink /proc/$(cat /main)/cwd)").strip()


@needs_board
def test_a_service_that_does_not_stay_up_is_what_was_before(
    board: StandInBoard, go: Callable[..., Report], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stand_in_systemctl(board, monkeypatch)
    unit, current = board.root / "etc/systemd/system/tutelage.service", board.tutelage / "current"
    (board.root / "down").write_text("*")
    failed = go(service="--camera")
    assert failed.state == "failed" and failed.error.startswith("service: it does not stay up")
    assert not current.is_symlink() and not list(unit.parent.glob("tutelage*"))
    (board.root / "down").unlink()

    first = go(service="--camera --web '0.0.0.0:80'")
    assert first.state == "deployed", first.error
    text = unit.read_text()
    assert 'current/.venv/bin/python" "app/classify.py" "--model" "model" "--camera"' in text
    assert "enable tutelage" in (board.root / "calls").read_text()
    (model / "notes.txt").write_text("new")
    (board.root / "down").write_text("*")
    for arguments in ("--camera", ""):  # another unit, and the one that is there
        failed = go(service=arguments)
        assert failed.state == "failed" and failed.error.startswith("service: it does not stay up")
        assert current.readlink().name == _served(board) == first.release
        assert [p.name for p in unit.parent.glob("tutelage*")] == [unit.name]
        assert unit.read_text() == text


@pytest.mark.full_board
@needs_board
def test_the_service_of_an_unchanged_release_is_set_right(
    board: StandInBoard, go: Callable[..., Report], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stand_in_systemctl(board, monkeypatch)
    first = go()
    unit = board.root / "etc/systemd/system/tutelage.service"
    assert first.state == "deployed" and not unit.exists()
    assert go(service="--camera").state == "service restarted" and "--camera" in unit.read_text()
    for arguments in ("--camera", ""):
        assert go(service=arguments).state == "unchanged"
    (model / "notes.txt").write_text("new")
    second = go()
    assert second.state == "deployed" and _served(board) == second.release
    # As a run that was broken off between the switch and the restart leaves it.
    old = "kill $(cat /main); cd tutelage/$(readlink tutelage/previous) && { sleep 1000 "
    old += "> /dev/null 2>&1 & echo $! > /main; }"
    board.run(old)
    (board.root / "down").write_text(second.release)
    failed = go()
    assert failed.state == "failed" and failed.error.startswith("service: "), failed
    assert (board.tutelage / "current").readlink().name == _served(board) == first.release
    (board.root / "down").unlink()
    assert go().state == "deployed"
    board.run(old)
    assert go().state == "service restarted" and _served(board) == second.release
    assert go().state == "unchanged"


@needs_board
def test_after_a_cut_network_and_a_full_disk_a_deployment_goes_on(
    board: StandInBoard, go: Callable[..., Report], model: Path, soon: None
) -> None:
    first = go()
    _fatten(model, 8)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(go, bandwidth=2000)
        _wait_for_partial(board)
        time.sleep(2)
        board.cut()
        cut = running.result(timeout=60)
        board.mend()
        assert cut.state == "failed" and cut.error
        assert str((board.tutelage / "current").readlink()) == f"releases/{first.release}"

        running = pool.submit(go, bandwidth=2000)
        _wait_for_partial(board, 2)
        filler = board.fill_disk()
        full = running.result(timeout=60)
    assert full.state == "failed" and "disk is full" in full.error, full.error
    assert str((board.tutelage / "current").readlink()) == f"releases/{first.release}"
    assert len(list((board.tutelage / "releases").glob("[0-9a-f]*"))) == 1
    early = go()
    assert early.state == "failed" and early.error.startswith("disk: ")

    filler.unlink()
    second = go()
    assert second.state == "deployed", second.error
    assert 0 < second.sent_bytes < 7 << 20  # of 8 MB: a part was there
    assert str((board.tutelage / "current").readlink()) == f"releases/{second.release}"
    assert not list(board.tutelage.glob("releases/.*"))


@pytest.mark.full_board
@needs_board
def test_a_release_that_fails_is_not_gone_back_to(
    board: StandInBoard, go: Callable[..., Report], model: Path
) -> None:
    first = go()
    (model / "notes.txt").write_text("new")
    second = go()
    broken = board.tutelage / "releases" / first.release / "app/classify.py"
    text = broken.read_text()
    broken.unlink()  # it is linked into the other release too
    broken.write_text("raise SystemExit('broken')\n")
    back = rollback([board.host], board.ssh_config)[0]
    assert back.state == "failed" and "broken" in back.error
    assert str((board.tutelage / "current").readlink()) == f"releases/{second.release}"
    assert rollback([board.host], board.ssh_config, force=True)[0].state == "rolled back"
    assert str((board.tutelage / "current").readlink()) == f"releases/{first.release}"
    broken.write_text(text)


@pytest.mark.full_board
@needs_board
def test_old_releases_go_but_none_that_is_measured(
    board: StandInBoard, go: Callable[..., Report], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploying, "KEPT", 1)  # the current one, and the one before anyway
    names = []
    for number in range(4):
        (model / "notes.txt").write_text(str(number))
        names.append(go().release)
        if number == 0:
            held = (board.tutelage / "releases" / names[0] / "SHA256SUMS").open()
            fcntl.flock(held, fcntl.LOCK_SH)
    assert _releases(board) == {names[0], *names[-2:]}
    held.close()
    (model / "notes.txt").write_text("last")
    assert _releases(board) - {names[0], names[2]} == {names[3]}
    assert go().previous == names[3]
    assert len(_releases(board)) == 2


@pytest.mark.full_board
@needs_board
@pytest.mark.parametrize("stage", ["venv", "smoke", "switch"])
def test_a_host_that_is_killed_leaves_nothing_half(
    board: StandInBoard, go: Callable[..., Report], model: Path, wheels: Path, stage: str
) -> None:
    first = go()
    (model / "notes.txt").write_text("new")
    code = (
        "import os, signal, sys\n"
        "from host import deploy, remote\n"
        "sh = remote.Remote.sh\n"
        "word = {'venv': ' -m venv ', 'smoke': 'classify.py', 'switch': '.current'}[sys.argv[1]]\n"
        "def killed(self, command, *rest, **more):\n"
        "    if word in command:\n"
        "        import subprocess, time\n"
        "        subprocess.Popen(self.ssh(command), stdin=subprocess.DEVNULL,\n"
        "                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "        time.sleep(0.3)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return sh(self, command, *rest, **more)\n"
        "remote.Remote.sh = killed\n"
        "from host.__main__ import main\n"
        "main(sys.argv[2:])\n"
    )
    arguments = ["deploy", board.host, "--ssh-config", str(board.ssh_config), "--model",
                 str(model), "--wheels", str(wheels)]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, stage, *arguments], cwd=ROOT)
    assert done.returncode == -9
    time.sleep(1)  # what was begun on the board may go on
    current = (board.tutelage / "current").readlink().name
    assert current == first.release or stage == "switch"
    assert (board.tutelage / "releases" / current / ".venv/bin/python").is_symlink()
    second = go()
    assert second.state == ("unchanged" if current != first.release else "deployed")
    assert _releases(board) == {first.release, second.release}


@pytest.mark.full_board
@needs_board
def test_a_second_deployment_waits_for_the_first(
    board: StandInBoard, go: Callable[..., Report], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fatten(model, 4)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(go, bandwidth=2000)
        _wait_for_partial(board)
        assert go().state == "unchanged"
        first = slow.result()
        assert first.state == "deployed", first.error

        (model / "notes.txt").write_text("new")
        slow = pool.submit(go, bandwidth=2000)
        _wait_for_partial(board)
        (model / "notes.txt").write_text("newer")
        newer = go()
    assert (slow.result().state, newer.state) == ("deployed", "deployed"), newer.error
    assert newer.previous == slow.result().release
    board.run("cd tutelage/current && sha256sum -c --quiet SHA256SUMS")
    assert _releases(board) == {first.release, newer.previous, newer.release}

    monkeypatch.setattr(remote, "LOCK_WAIT_SECONDS", 1)
    with (board.tutelage / ".lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        busy = go()
    assert (busy.state, busy.error) == ("failed", "somebody else holds tutelage/.lock")


@pytest.mark.full_board
@needs_board
def test_a_network_that_is_cut_in_the_smoke_test(
    board: StandInBoard, go: Callable[..., Report], model: Path, soon: None
) -> None:
    first = go()
    vart = board.root / "usr/lib/python3/site-packages/vart.py"
    quick = vart.read_text()
    vart.write_text(quick.replace("Runner.created += 1", "time.sleep(8)"))
    (model / "notes.txt").write_text("new")
    with ThreadPoolExecutor() as pool:
        running = pool.submit(go)
        _wait_for(lambda: any(board.tutelage.glob("releases/.*.partial/.smoke")))
        board.cut()
        cut = running.result(timeout=60)
        away = go()
        board.mend()
    assert (cut.state, cut.error, away.state) == ("failed", "the connection broke", "failed")
    assert "No route to host" in away.error or "timed out" in away.error
    print(f"a board that is away is told of after {away.seconds:.1f} s")
    assert (board.tutelage / "current").readlink().name == first.release
    vart.write_text(quick)
    (model / "notes.txt").write_text("newer")  # another release than the broken-off one
    second = go()
    assert second.state == "deployed", second.error
    assert _releases(board) == {first.release, second.release}


@pytest.mark.full_board
@needs_board
def test_make_deploys_and_rolls_back(
    board: StandInBoard, model: Path, wheels: Path, tmp_path: Path
) -> None:
    """With the configuration of a user who has the board in ~/.ssh/config."""
    more = f"ARGS=--ssh-config {board.ssh_config}"
    python = f"PYTHON={sys.executable}"
    variables = [f"HOST={board.host}", "BOARD=zcu104", python]
    deployed = ["make", "deploy", *variables, f"MODEL={model}", f"{more} --wheels {wheels}"]
    for text in ("", "new"):
        (model / "notes.txt").write_text(text)
        done = subprocess.run(deployed, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and ": deployed: " in done.stdout, done.stderr
    start = time.monotonic()
    done = subprocess.run(deployed, cwd=ROOT, capture_output=True, text=True)
    assert ": unchanged: " in done.stdout and " 0 bytes sent" in done.stdout
    print(f"a second deployment takes {time.monotonic() - start:.1f} s")
    done = subprocess.run(["make", "rollback", *variables, more], cwd=ROOT,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0 and ": rolled back: " in done.stdout, done.stderr


@needs_board
def test_a_wrong_or_unknown_host_key_is_refused(
    board: StandInBoard, go: Callable[..., Report]
) -> None:
    address = board.known_hosts.read_text().split()[0]
    key = ROOT.joinpath(board.ssh_config.parent / "client_key.pub").read_text()
    for text in (f"{address} {key}", ""):
        board.known_hosts.write_text(text)
        report = go()
        assert report.state == "failed" and "Host key verification failed" in report.error
    assert not board.tutelage.exists()


@needs_board
def test_several_boards_each_with_its_report(
    board: StandInBoard, tmp_path: Path, model: Path, wheels: Path, capsys: Any
) -> None:
    with StandInBoard(tmp_path, 1) as other:
        config = tmp_path / "both"
        config.write_text(board.ssh_config.read_text() + other.ssh_config.read_text())
        arguments = ["--ssh-config", str(config), "--model", str(model), "--wheels", str(wheels)]
        (other.root / "etc/vart.conf").write_text("firmware: /other\n")
        assert main(["deploy", board.host, other.host, *arguments]) == 1
        out, err = capsys.readouterr()
        assert f"{board.host}: deployed" in out and f"{other.host}: failed: config: " in err
        assert main(["deploy", other.host, *arguments, "--accept", "config"]) == 0
        assert "imports only" in capsys.readouterr().out
        assert main(["rollback", other.host, "--ssh-config", str(config)]) == 1
        assert "no release before this one" in capsys.readouterr().err
        shutil.rmtree(other.tutelage)
        assert main(["rollback", other.host, "--ssh-config", str(config)]) == 1
        assert "nothing was deployed there" in capsys.readouterr().err


def test_wrong_use_and_dry_run(capsys: Any, model: Path) -> None:
    assert main(["deploy", "-oProxyCommand=x"]) == 2
    assert main(["deploy", "a b"]) == 2
    assert main(["deploy", "host", "--model", "/nowhere"]) == 2
    assert main(["deploy", "host", "--model", str(model), "--board", "none"]) == 2
    capsys.readouterr()
    if shutil.which("rsync") is None or shutil.which("ssh") is None:
        pytest.skip("needs ssh and rsync")
    assert main(["deploy", "user@host", "--model", str(model), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "rsync" in out and "user@host" in out and "StrictHostKeyChecking" not in out


FACTS: dict[str, Any] = {
    "model": "ZynqMP ZCU104 RevC", "python": "3.10.4", "rsync": True, "flock": True,
    "home": "/home/xilinx", "clock_off": 0.5, "config": "firmware: /usr/lib/dpu.xclbin",
    "fingerprint": 0x101000016010407, "paths": {}, "image": "PynqLinux, based on Ubuntu 22.04",
    "modules": {**dict.fromkeys(("numpy", "cv2", "vart", "xir"), ""), "pynq": "3.0.1"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, ""),
        ({"model": "Ultra96"}, "model"),
        ({"model": None}, "model"),
        ({"python": "3.8.2"}, "python"),
        ({"rsync": False}, "rsync"),
        ({"flock": False}, "flock"),
        ({"clock_off": -9e8}, "clock"),
        ({"config": None}, "config"),
        ({"fingerprint": 7}, "fingerprint"),
        ({"modules": {**FACTS["modules"], "vart": None}}, "vart"),
    ],
)
def test_what_speaks_against_a_board(changes: dict[str, Any], name: str) -> None:
    found = findings_of({**FACTS, **changes}, profile_of("zcu104"))
    assert [f.name for f in found if f.fatal] == ([name] if name else [])


def test_the_disk_must_take_a_release_and_its_venv() -> None:
    assert [f.name for f in disk_findings(40 << 20, 8 << 20)] == ["disk"]
    assert not list(disk_findings(50 << 20, 8 << 20))


@pytest.mark.parametrize(
    "changes",
    [
        {"image": "Debian"},
        {"image": None},
        {"python": "3.12.1"},
        {"modules": {**FACTS["modules"], "pynq": "3.1.1"}},
    ],
)
def test_an_image_that_is_not_known_is_told(changes: dict[str, Any]) -> None:
    found = findings_of({**FACTS, **changes}, profile_of("zcu104"))
    assert [f.text for f in found if f.name == "image" and not f.fatal]


def test_a_model_for_the_emulator_is_refused_before_anything_is_copied(capsys: Any) -> None:
    if shutil.which("rsync") is None or shutil.which("ssh") is None:
        pytest.skip("needs ssh and rsync")
    assert main(["deploy", "user@host"]) == 2
    err = capsys.readouterr().err
    assert "compiled for the emulator" in err and "host compile app/demo --target zcu104" in err
    assert main(["deploy", "user@host", "--accept", "target", "--dry-run"]) == 0


def test_the_power_limit_is_told_where_its_driver_is_bound() -> None:
    path = "/sys/bus/i2c/drivers/irps5401/4-0043"
    found = findings_of({**FACTS, "paths": {path: True}}, profile_of("zcu104"))
    assert [f.name for f in found] == ["brown-out", "limit-busy"]


def test_a_model_for_another_dpu_is_refused_before_anything_is_copied(tmp_path: Path) -> None:
    made = tmp_path / "model.xmodel"
    vai_c_xir.write(ROOT / "app/demo/quantised.xmodel", made, "")
    name, number = compiled_for(made)
    assert (name, number) == ("DPUCZDX8G_ISA1_B4096", 0x101000016010407)
    profile = profile_of("zcu104")
    assert not [f for f in findings_of(FACTS, profile, number) if f.fatal]
    found = findings_of({**FACTS, "fingerprint": None}, profile, 0x101000056010407)
    assert [f.name for f in found if f.fatal] == ["target"]


@needs_board
def test_a_model_that_only_the_board_can_read_is_judged_there(
    board: StandInBoard, tmp_path: Path, wheels: Path
) -> None:
    model = tmp_path / "for-emulator.xmodel"
    model.write_bytes(b"\x0a\x04fake")
    report = deploy([board.host], Plan("zcu104", model, wheels, board.ssh_config), _quiet)[0]
    assert report.state == "failed" and "compiled for the emulation" in report.error
    assert "Error" not in report.error
    assert not _releases(board)


LACKING: dict[str, Any] = {
    "python": "3.11.2", "machine": "x86_64", "glibc": "2.36",
    "modules": {"psutil": None, "starlette": "", "uvicorn": "", "rich": ""},
}  # fmt: skip


def test_packages_that_cannot_be_had_are_one_clear_line(
    tmp_path: Path, wheels: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for option in ("--wheels", "--ssh-config"):
        assert main(["deploy", "host", "--model", str(model), option, str(tmp_path / "no")]) == 2
        assert option in capsys.readouterr().err
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ReleaseError, match=r"no package index is reached.*--wheels DIR"):
        Packages(None).for_board(LACKING)
    with pytest.raises(ReleaseError, match="No matching distribution found for rich"):
        modules = {**LACKING["modules"], "rich": None}
        Packages(wheels).for_board({**LACKING, "modules": modules})
    assert not list((tmp_path / "cache/tutelage/packages").iterdir())
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ReleaseError, match=r"cannot be written .*XDG_CACHE_HOME"):
        Packages(wheels).for_board(LACKING)


def test_two_processes_may_fill_one_cache(wheels: Path) -> None:
    with ThreadPoolExecutor() as pool:  # each with a lock of its own
        folders = list(pool.map(lambda _: Packages(wheels).for_board(LACKING), range(2)))
    assert folders[0] == folders[1] and folders[0] is not None
    assert (folders[0] / "psutil").is_dir()
