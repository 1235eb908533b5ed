"""`tutelage deploy` and `rollback` on stand-in boards: real sshd, rsync, network, disk.

No real board was seen: vart and xir are those of tests/fake_board.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="host/ needs typer, which is not installed")

from tests.stand_in_board import StandInBoard, why_not
from tests.stand_in_board.deployable import make_model, make_wheel
from tutelage.__main__ import main
from tutelage.core.board_profile import load_profile
from tutelage.host.deploy import KEPT, Plan, Report, deploy, findings_of, rollback
from tutelage.host.deploy.packages import CARRIED, Packages
from tutelage.host.deploy.release import ReleaseError
from tutelage.host.ssh import remote
from tutelage.host.ssh.bounded_process import Programs
from tutelage.host.ssh.errors import RemoteError
from tutelage.host.ssh.lock import lock, lock_command

ROOT = Path(__file__).resolve().parent.parent.parent
_REASON = why_not()
needs_board = pytest.mark.skipif(_REASON is not None, reason=_REASON or "")


def _quiet(text: str) -> None:
    """Collects the messages to the user."""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real wheels of packages that the stand-in lacks, so that tests need no package index."""
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
    """Deploy `model` to `board`; keyword arguments are Plan's, `say` is deploy's."""

    def run(say: Callable[[str], None] = _quiet, **changes: Any) -> Report:
        plan = Plan("zcu104", model, wheels, board.ssh_config, **changes)
        return deploy([board.host], plan, say)[0]

    return run


def _wait_for_partial(board: StandInBoard, count: int = 1) -> None:
    """Wait until a number of runs have begun to copy."""
    end = time.monotonic() + 60  # a lock of a cut connection is held for a while
    while len(list(board.tutelage.glob("releases/.*.partial/app/classify.py"))) < count:
        assert time.monotonic() < end
        time.sleep(0.05)


def _wait_for_bytes(board: StandInBoard, count: int) -> None:
    """Wait until a number of bytes of the large file have arrived."""
    end = time.monotonic() + 60
    pattern = "releases/.*.partial/model/.weights.bin.*"
    while not any(path.stat().st_size >= count for path in board.tutelage.glob(pattern)):
        assert time.monotonic() < end
        time.sleep(0.05)


def _fatten(model: Path, megabytes: int) -> None:
    (model / "weights.bin").write_bytes(os.urandom(megabytes << 20))


@pytest.mark.slow
@needs_board
def test_deploy_twice_change_and_roll_back(
    board: StandInBoard, go: Callable[..., Report], model: Path
) -> None:
    first = go()
    assert (first.state, first.error) == ("deployed", "")
    assert first.smoke == "3 frames classified on DPU (vart from /usr/lib/python3/site-packages)"
    assert any("brown-out" in text for text in first.warnings)
    current = board.tutelage / "current"
    assert str(current.readlink()) == f"releases/{first.release}"
    code = "import psutil, starlette, numpy, pynq; print(psutil.__file__, numpy.__file__)"
    printed = board.run(f"cd tutelage/current && .venv/bin/python -c '{code}'")
    assert "current/packages/psutil" in printed.replace(first.release, "current")
    assert "/usr/local/share/pynq-venv" in printed or "/opt/site" in printed

    again = go()
    assert (again.state, again.release, again.sent_bytes) == ("unchanged", first.release, 0)

    (model / "notes.txt").write_text("new")
    second = go()
    assert second.state == "deployed" and second.previous == first.release
    assert second.sent_bytes < 200_000  # files of the previous release are linked, not sent
    inode = [(board.tutelage / "releases" / r.release / "app/classify.py").stat().st_ino
             for r in (first, second)]  # fmt: skip
    assert inode[0] == inode[1]

    back = rollback([board.host], board.ssh_config, _quiet)[0]
    assert (back.state, back.release) == ("rolled back", first.release)
    assert str(current.readlink()) == f"releases/{first.release}"
    assert go().release == second.release
    assert str(current.readlink()) == f"releases/{second.release}"

    (model / "images" / "0.png").write_bytes(b"no image")
    failed = go()
    assert failed.state == "failed" and "smoke test" in failed.error
    assert str(current.readlink()) == f"releases/{second.release}"
    names = {path.name for path in (board.tutelage / "releases").iterdir()}
    assert names == {first.release, second.release}


def _stand_in_systemctl(board: StandInBoard) -> None:
    """Records its calls; restart starts a process in the current release."""
    systemctl = board.root / "usr/local/bin/systemctl"
    systemctl.write_text(
        """#!/bin/sh
echo "$@" >> /calls
case $1 in
is-active) test ! -e /down ;;
show) cat /main 2>/dev/null ;;
restart|try-restart)
    test ! -e /dies || touch /down
    kill $(cat /main 2>/dev/null) 2>/dev/null
    cd /home/board/tutelage/current && { sleep 1000 > /dev/null 2>&1 & echo $! > /main; } ;;
esac
"""
    )
    systemctl.chmod(0o755)


@pytest.mark.full_board
@needs_board
def test_a_service_that_does_not_stay_up_is_the_old_release_again(
    board: StandInBoard, go: Callable[..., Report], model: Path
) -> None:
    _stand_in_systemctl(board)
    first = go(service="--camera --web '0.0.0.0:80'", service_user="root")
    assert first.state == "deployed", first.error
    unit = (board.root / "etc/systemd/system/tutelage.service").read_text()
    assert '"sh" "--camera" "--web" "0.0.0.0:80"\n' in unit and "User=root\n" in unit
    calls = (board.root / "calls").read_text()
    assert "enable tutelage" in calls and "\nrestart tutelage" in calls
    (board.root / "down").touch()
    (model / "notes.txt").write_text("new")
    failed = go(service="--camera", service_user="root")
    assert failed.state == "failed" and failed.error.startswith("service: it does not keep running")
    assert str((board.tutelage / "current").readlink()) == f"releases/{first.release}"
    assert (board.root / "calls").read_text().endswith("try-restart tutelage.service\n")
    assert (board.root / "etc/systemd/system/tutelage.service").read_text() == unit


@pytest.mark.full_board
@needs_board
def test_a_service_that_is_there_and_dies_of_the_new_release(
    board: StandInBoard, go: Callable[..., Report], model: Path
) -> None:
    """It used to be reported as deployed, and a first release's service failed at each boot."""
    _stand_in_systemctl(board)
    unit = board.root / "etc/systemd/system/tutelage.service"
    (board.root / "down").touch()
    failed = go(service="--camera", service_user="root")
    assert failed.state == "failed" and failed.error.startswith("service: it does not keep running")
    assert not unit.exists() and not (board.tutelage / "current").is_symlink()
    assert "disable --now tutelage" in (board.root / "calls").read_text()
    (board.root / "down").unlink()
    first = go(service="--camera", service_user="root")
    assert first.state == "deployed", first.error
    (board.root / "dies").touch()
    (model / "notes.txt").write_text("new")
    failed = go()
    assert failed.state == "failed" and failed.error.startswith("service: it does not keep running")
    assert str((board.tutelage / "current").readlink()) == f"releases/{first.release}"


@pytest.mark.full_board
@needs_board
def test_a_service_that_fails_leaves_everything_as_it_was(
    board: StandInBoard, go: Callable[..., Report], model: Path
) -> None:
    _stand_in_systemctl(board)
    unit, current = board.root / "etc/systemd/system/tutelage.service", board.tutelage / "current"
    backup = unit.with_name("tutelage.service.before")
    assert go().state == "deployed"
    (board.root / "down").touch()
    assert go(service="--camera", service_user="root").state == "failed"
    assert not unit.exists()
    assert "disable --now tutelage" in (board.root / "calls").read_text()

    (board.root / "down").unlink()
    for arguments in ("--camera", "--camera --threads 1"):
        assert go(service=arguments, service_user="root").state == "service restarted"
        assert not backup.exists()
    (board.root / "dies").touch()
    (model / "notes.txt").write_text("new")
    assert go().state == "failed"
    assert '"--threads" "1"' in unit.read_text()

    for path in ("dies", "down"):
        (board.root / path).unlink()
    second = go()
    assert second.state == "deployed", second.error
    (board.root / "dies").touch()
    back = rollback([board.host], board.ssh_config, _quiet)[0]
    assert back.state == "failed"
    assert back.error.endswith(f"; release {second.release} is current again")
    assert str(current.readlink()) == f"releases/{second.release}"


@pytest.mark.full_board
@needs_board
def test_the_service_of_an_unchanged_release_is_set_right(
    board: StandInBoard, go: Callable[..., Report], model: Path
) -> None:
    _stand_in_systemctl(board)
    first = go()
    unit = board.root / "etc/systemd/system/tutelage.service"
    assert first.state == "deployed" and not unit.exists()
    assert (
        go(service="--camera", service_user="root").state == "service restarted"
        and "--camera" in unit.read_text()
    )
    for service in ("--camera", ""):
        assert go(service=service, service_user="root").state == "unchanged"
    # The state after a run that was interrupted between the switch and the restart.
    (model / "notes.txt").write_text("new")
    (board.root / "usr/local/bin/systemctl").rename(board.root / "usr/local/bin/kept")
    second = go()
    assert second.state == "failed" and second.error.startswith("service: ")
    (board.root / "usr/local/bin/kept").rename(board.root / "usr/local/bin/systemctl")
    assert go().state == "deployed"
    board.run("kill $(cat /main); cd tutelage/$(readlink tutelage/previous) && "
              "{ sleep 1000 > /dev/null 2>&1 & echo $! > /main; }")  # fmt: skip
    assert go().state == "service restarted"
    assert go().state == "unchanged"


@pytest.mark.slow
@needs_board
def test_after_a_cut_network_and_a_full_disk_a_deployment_goes_on(
    board: StandInBoard, go: Callable[..., Report], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = go()
    _fatten(model, 8)
    options = [o.replace("Interval=5", "Interval=2") for o in remote.SSH_OPTIONS]
    monkeypatch.setattr(remote, "SSH_OPTIONS", options)  # the cut is seen sooner
    with ThreadPoolExecutor() as pool:
        running = pool.submit(go, bandwidth=1000)
        _wait_for_partial(board)
        time.sleep(1)
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
    assert 0 < second.sent_bytes < 8 << 20  # a part was already there
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
    back = rollback([board.host], board.ssh_config, _quiet)[0]
    assert back.state == "failed" and "broken" in back.error
    assert str((board.tutelage / "current").readlink()) == f"releases/{second.release}"
    assert rollback([board.host], board.ssh_config, _quiet, force=True)[0].state == "rolled back"
    assert str((board.tutelage / "current").readlink()) == f"releases/{first.release}"
    broken.write_text(text)


@pytest.mark.full_board
@needs_board
def test_old_releases_go_but_none_that_is_measured(
    board: StandInBoard, go: Callable[..., Report], model: Path
) -> None:
    names = []
    for number in range(KEPT + 2):
        (model / "notes.txt").write_text(str(number))
        names.append(go().release)
        if number == 0:
            held = (board.tutelage / "releases" / names[0] / "SHA256SUMS").open()
            fcntl.flock(held, fcntl.LOCK_SH)
    left = {path.name for path in (board.tutelage / "releases").iterdir()}
    assert left == {names[0], *names[-KEPT:]}
    held.close()
    (model / "notes.txt").write_text("last")
    last = go().release
    left = {path.name for path in (board.tutelage / "releases").iterdir()}
    assert left == {last, *names[1 - KEPT :]}


@pytest.mark.slow
@needs_board
@pytest.mark.parametrize(
    ("stage", "number"), [("gather", signal.SIGINT), ("smoke_script", signal.SIGTERM)]
)
def test_an_interrupted_deployment_ends_immediately_and_leaves_nothing_here(
    board: StandInBoard, go: Callable[..., Report], model: Path, wheels: Path,
    stage: str, number: signal.Signals,
) -> None:  # fmt: skip
    """Only this program gets the signal, in a local step or in one that hangs on the board."""
    first = go()
    (model / "notes.txt").write_text("new")
    code = (
        "import os, sys, threading, time\n"
        "from tutelage.host.deploy import deployment, smoke\n"
        "own = deployment.gather\n"
        "def interrupt(*arguments):\n"
        "    os.kill(os.getpid(), int(sys.argv[2]))\n"
        "    time.sleep(0.5)\n"
        "def gather(*arguments):\n"
        "    interrupt()\n"
        "    own(*arguments)\n"
        "def smoke_script(*arguments):\n"
        "    threading.Timer(1, interrupt).start()\n"
        "    return 'sleep 1000'\n"
        "if sys.argv[1] == 'gather': deployment.gather = gather\n"
        "else: smoke.smoke_script = smoke_script\n"
        "from tutelage.__main__ import main\n"
        "sys.exit(main(sys.argv[3:]))\n"
    )
    scratch = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    arguments = ["deploy", board.host, "--ssh-config", str(board.ssh_config), "--model",
                 str(model), "--wheels", str(wheels), "--accept", "fingerprint"]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, stage, str(int(number)), *arguments],
                          cwd=ROOT, capture_output=True, text=True, timeout=100,
                          env={**os.environ, "TMPDIR": str(scratch)})  # fmt: skip
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "tutelage: interrupted"
    assert (board.tutelage / "current").readlink().name == first.release
    assert not list(scratch.iterdir())
    scratch.rmdir()


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
        "from tutelage.host.ssh import remote\n"
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
        "from tutelage.__main__ import main\n"
        "main(sys.argv[2:])\n"
    )
    arguments = ["deploy", board.host, "--ssh-config", str(board.ssh_config), "--model",
                 str(model), "--wheels", str(wheels)]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, stage, *arguments], cwd=ROOT)
    assert done.returncode == -9
    time.sleep(1)  # a step that was begun on the board may continue
    current = (board.tutelage / "current").readlink().name
    assert current == first.release or stage == "switch"
    assert (board.tutelage / "releases" / current / ".venv/bin/python").is_symlink()
    second = go()
    assert second.state == ("unchanged" if current != first.release else "deployed")
    left = {path.name for path in (board.tutelage / "releases").iterdir()}
    assert left == {first.release, second.release}


@pytest.mark.full_board
@needs_board
def test_two_simultaneous_deployments(board: StandInBoard, go: Callable[..., Report]) -> None:
    with ThreadPoolExecutor() as pool:
        both = [report.result() for report in [pool.submit(go), pool.submit(go)]]
    assert {report.state for report in both} == {"deployed", "unchanged"}, both
    assert go().state == "unchanged"
    board.run("cd tutelage/current && sha256sum -c --quiet SHA256SUMS")
    names = {path.name for path in (board.tutelage / "releases").iterdir()}
    assert names == {both[0].release}


@pytest.mark.slow
def test_packages_are_unpacked_once_by_two_processes(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Use separate `Packages`, as two processes have."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    modules: dict[str, str | None] = dict.fromkeys(CARRIED, "1")
    facts = {"modules": {**modules, "psutil": None}, "python": "3.11.2", "machine": "x86_64",
             "glibc": "2.35"}  # fmt: skip
    with ThreadPoolExecutor() as pool:
        folders = list(pool.map(lambda _: Packages(wheels).for_board(facts), range(2)))
    assert folders[0] == folders[1] and folders[0] is not None and folders[0].is_dir()
    assert list(folders[0].parent.iterdir()) == [folders[0]]
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")  # like an unwritable home directory
    with pytest.raises(ReleaseError, match=r"/proc/none/tutelage/packages: .*; set XDG_CACHE_HOME"):
        Packages(wheels).for_board(facts)


def test_the_unpacking_of_packages_ends_with_the_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a Python whose pip hangs, as it does without an answer from the package index."""
    python, started = tmp_path / "python", tmp_path / "started"
    python.write_text(f'#!/bin/sh\ntouch "$TMPDIR/downloads" {started}\nexec sleep 1000\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "my caché"))
    facts = {"modules": dict.fromkeys(CARRIED), "python": "3.11.2", "machine": "aarch64",
             "glibc": "2.35"}  # fmt: skip
    programs = Programs()
    packages = Packages(None, programs)
    with ThreadPoolExecutor() as pool:
        unpacking = pool.submit(packages.for_board, facts)
        while not started.exists():
            assert not unpacking.done(), unpacking.result()
            time.sleep(0.05)
        programs.end()
        with pytest.raises(ReleaseError, match="packages for the board"):
            unpacking.result(timeout=60)
    assert not list((tmp_path / "my caché/tutelage/packages").iterdir())
    with pytest.raises(ReleaseError, match="packages for the board: interrupted"):
        packages.for_board(facts)


@pytest.mark.slow
@needs_board
def test_a_deployment_warns_of_a_measurement(
    board: StandInBoard, go: Callable[..., Report]
) -> None:
    """A running measurement has locked that file, see app/measure/store.py."""
    folder, name = "tutelage/measurements", "20260101T000000Z-abcd"
    board.run(f"mkdir -p {folder}; echo {name} > {folder}/.lock")
    quiet = go()
    command = ["ssh", "-F", str(board.ssh_config), board.host,
               f"exec flock {folder}/.lock sh -c 'echo held; exec cat > /dev/null'"]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        messages: list[str] = []
        warned = go(messages.append)
        holder.communicate(b"")
    assert (quiet.measuring, warned.measuring) == ("", name)
    text = f"{board.host}: warning: measurement {name} is running, and this disturbs it"
    assert messages[0].startswith(text)
    assert warned.state == "unchanged"


@pytest.mark.slow
@needs_board
def test_a_deployment_waits_for_the_one_before(
    board: StandInBoard, go: Callable[..., Report], model: Path
) -> None:
    """And does not remove its files: the other used to remove this one's directory."""
    remote.Remote(board.host, board.ssh_config).sh("mkdir -p tutelage/releases")
    messages: list[str] = []
    first = remote.Remote(board.host, board.ssh_config)
    with ThreadPoolExecutor() as pool:
        with lock(first, "tutelage/releases", lambda: messages.append("the first waits")):
            second = pool.submit(go, say=messages.append)
            end = time.monotonic() + 60
            while not messages:
                assert time.monotonic() < end
                time.sleep(0.05)
            time.sleep(0.5)
            assert not list((board.tutelage / "releases").iterdir())
        assert second.result().state == "deployed", second.result().error
    assert messages[0] == f"{board.host}: waiting for another deployment to finish"


@pytest.mark.full_board
@needs_board
def test_a_lock_ends_with_its_holder(board: StandInBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock's holder is killed immediately, or the network is cut after the lease."""
    monkeypatch.setattr("tutelage.host.ssh.lock._LEASE_SECONDS", 2.0)
    place = f"/tmp/{board.host}.lock"
    own = remote.Remote(board.host, board.ssh_config)
    own.sh(f"mkdir -p {place}")

    def seconds_to_get_it() -> float:
        start = time.monotonic()
        with lock(own, place, lambda: None):
            return time.monotonic() - start

    killed = subprocess.Popen(lock_command(own, place), stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)  # fmt: skip
    assert killed.stdin is not None and killed.stdout is not None
    assert killed.stdout.readline().startswith(b"held ")
    killed.kill()
    killed.communicate()
    assert seconds_to_get_it() < 2.0 + 15

    nothing = pytest.raises(RemoteError, match="nothing is deployed")
    with nothing, lock(own, "nowhere", lambda: None):
        pass
    with lock(own, place, lambda: None):
        time.sleep(3)  # longer than the lease: it keeps renewing
        with pytest.raises(subprocess.TimeoutExpired):
            subprocess.run(lock_command(own, place), timeout=1, capture_output=True)
        board.cut()
        time.sleep(4)
        board.mend()
        assert seconds_to_get_it() < 15


@pytest.mark.full_board
@needs_board
def test_make_deploys_and_rolls_back(
    board: StandInBoard, model: Path, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The board is in the user's configuration, so make gets no HOST."""
    boards = tmp_path / "config/tutelage/boards.toml"
    boards.parent.mkdir(parents=True)
    boards.write_text(f'[zcu104]\nhost = "{board.host}"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    more = f"ARGS=--ssh-config {board.ssh_config}"
    python = f"PYTHON={sys.executable}"
    variables = ["BOARD=zcu104", python]
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


@pytest.mark.slow
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
        assert "the board has no previous release" in capsys.readouterr().err


def test_wrong_use_and_dry_run(capsys: Any, model: Path) -> None:
    assert main(["deploy", "-oProxyCommand=x"]) == 2
    assert main(["deploy", "user@-F"]) == 2
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
    "model": "ZynqMP ZCU104 RevC", "python": "3.10.4", "rsync": True, "free_bytes": 1 << 30,
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
        ({"free_bytes": 1000}, "disk"),
        ({"clock_off": -9e8}, "clock"),
        ({"config": None}, "config"),
        ({"fingerprint": 7}, "fingerprint"),
        ({"modules": {**FACTS["modules"], "vart": None}}, "vart"),
    ],
)
def test_findings_about_a_board(changes: dict[str, Any], name: str) -> None:
    found = findings_of({**FACTS, **changes}, load_profile("zcu104"), 1000)
    assert [f.name for f in found if f.fatal] == ([name] if name else [])


@pytest.mark.parametrize(
    "changes",
    [
        {"image": "Debian"},
        {"image": None},
        {"python": "3.12.1"},
        {"modules": {**FACTS["modules"], "pynq": "3.1.1"}},
    ],
)
def test_an_unknown_image_is_reported(changes: dict[str, Any]) -> None:
    found = findings_of({**FACTS, **changes}, load_profile("zcu104"), 1000)
    assert [f.text for f in found if f.name == "image" and not f.fatal]


def test_a_model_for_the_emulator_is_refused_before_anything_is_copied(
    emulator_model: Path, capsys: Any
) -> None:
    if shutil.which("rsync") is None or shutil.which("ssh") is None:
        pytest.skip("needs ssh and rsync")
    model = ["--model", str(emulator_model)]
    assert main(["deploy", "user@host", *model]) == 2
    err = capsys.readouterr().err
    assert "compiled for the emulator" in err
    assert main(["deploy", "user@host", *model, "--accept", "target", "--dry-run"]) == 0


def test_the_power_limit_is_reported_while_its_driver_is_bound() -> None:
    path = "/sys/bus/i2c/drivers/irps5401/4-0043"
    found = findings_of({**FACTS, "paths": {path: True}}, load_profile("zcu104"), 1000)
    assert [f.name for f in found] == ["brown-out", "limit-busy"]
