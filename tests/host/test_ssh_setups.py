"""Real login set-ups: options of ssh, and output of a board's login files before a command's."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="host/ needs typer, which is not installed")

from tests.stand_in_board import HOME, StandInBoard, why_not
from tests.stand_in_board.deployable import make_model, make_wheel
from tutelage.host.deploy import Plan, Report, deploy
from tutelage.host.ssh.errors import AccessRefused, RemoteError, RemoteUsageError
from tutelage.host.ssh.hosts import check_hosts
from tutelage.host.ssh.lock import lock
from tutelage.host.ssh.remote import Remote
from tutelage.host.ssh.transfer import fetch, push

_REASON = why_not()
pytestmark = pytest.mark.skipif(_REASON is not None, reason=_REASON or "")
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")

# A shell's answer comes after all of these: a greeting, a terminal title without a line end, a
# file that prints each command line, one that prints an error.
NOISE = {
    "greeting": "echo Welcome to the lab; date",
    "title": r"printf '\033]0;%s\007' board",
    "echo": 'echo "$BASH_EXECUTION_STRING"',
    "complaint": "echo no such module: conda >&2; echo held",
}


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInBoard]:
    with StandInBoard(tmp_path_factory.mktemp("board")) as board:
        yield board


@pytest.fixture
def login_file(board: StandInBoard) -> Iterator[Callable[[str], None]]:
    """Write root's .bashrc on the board, whose shell becomes bash; both are undone."""
    passwd, bashrc = board.root / "etc/passwd", board.root / HOME / ".bashrc"
    before = passwd.read_text()

    def write(text: str) -> None:
        passwd.write_text(before.replace("/bin/sh", "/bin/bash"))
        bashrc.write_text(text + "\n")

    yield write
    passwd.write_text(before)
    bashrc.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def plan(board: StandInBoard, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("release")
    (folder / "wheels").mkdir()
    make_wheel("psutil", folder / "wheels")
    return Plan("zcu104", make_model(folder / "mine"), folder / "wheels", board.ssh_config)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def _config(board: StandInBoard, tmp_path: Path, more: str) -> Path:
    path = tmp_path / "ssh_config"
    path.write_text(board.ssh_config.read_text() + more)
    return path


def _deploy(board: StandInBoard, plan: Plan, config: Path | None = None) -> Report:
    return deploy([board.host], replace(plan, ssh_config=config or plan.ssh_config), print)[0]


@needs_bash
@pytest.mark.parametrize("text", NOISE.values(), ids=NOISE)
def test_an_answer_is_found_behind_noise(
    board: StandInBoard, login_file: Callable[[str], None], text: str
) -> None:
    login_file(text)
    remote = Remote(board.host, board.ssh_config)
    assert remote.sh("echo first; echo last") == "first\nlast\n"
    assert list(remote.stream("echo one; echo two")) == ["one\n", "two\n"]
    with lock(remote, "/tmp", lambda: pytest.fail("noise was taken for another's lock")):
        assert remote.sh("cat", "given") == "given"
    with pytest.raises(RemoteError, match=r"^the reason$"):
        remote.sh("echo the reason >&2; exit 3")


@pytest.mark.slow
@needs_bash
def test_noise_is_explained_before_rsync_breaks_of_it(
    board: StandInBoard, login_file: Callable[[str], None], plan: Plan, tmp_path: Path
) -> None:
    login_file(NOISE["greeting"])
    report = _deploy(board, plan)
    assert report.error.startswith("login: a login file on the host prints text")
    assert "breaks rsync" in report.error and "Welcome to the lab" in report.error
    with pytest.raises(RemoteError, match="a login file on the host prints text"):
        fetch(Remote(board.host, board.ssh_config), "/etc", tmp_path / "copy", ["hostname"], 1000)
    login_file("echo no logins today; exit 1")
    with pytest.raises(RemoteError, match=r"^no logins today$"):
        Remote(board.host, board.ssh_config).sh("echo never")
    login_file("exit 0")
    with pytest.raises(RemoteError, match="a login file exits before the command runs"):
        Remote(board.host, board.ssh_config).sh("echo never")


@pytest.mark.slow
def test_settings_of_interactive_use_are_turned_off(
    board: StandInBoard, plan: Plan, tmp_path: Path
) -> None:
    """Users set these for hosts on which a tmux session is started at login."""
    config = _config(board, tmp_path, "  RemoteCommand tmux new -A\n  RequestTTY force\n"
                     "  PermitLocalCommand yes\n  LocalCommand echo connected\n")  # fmt: skip
    report = _deploy(board, plan, config)
    assert report.state in ("deployed", "unchanged"), report.error


@pytest.mark.parametrize(
    "more", ["ForkAfterAuthentication yes", "StdinNull yes", "LogLevel DEBUG3"]
)
def test_settings_for_tunnels_and_for_looking_into_ssh(
    board: StandInBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    """They send ssh to the background, take its input away, or hide the reason of a failure."""
    config = _config(board, tmp_path, f"  IgnoreUnknown ForkA*,StdinN*\n  {more}\n")
    scratch = tempfile.mkdtemp(prefix="t", dir="/tmp")
    monkeypatch.setattr("tempfile.tempdir", scratch)
    with Remote(board.host, config) as remote:
        assert remote.sh("cat", "given") == "given"
        with pytest.raises(RemoteError, match=r"^the reason$"):
            remote.sh("echo the reason >&2; exit 3")
        (tmp_path / "stage").mkdir()
        assert push(remote, tmp_path / "stage", "/tmp/stage") > 0
    assert not list(Path(scratch).iterdir())
    Path(scratch).rmdir()
    end = time.monotonic() + 60
    while _processes(scratch):  # of the connection in the background, after its exit request
        assert time.monotonic() < end
        time.sleep(0.05)


def _processes(text: str) -> list[str]:
    """The command lines that contain a text."""
    done = subprocess.run(["ps", "-wweo", "args"], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if text in line]


def test_an_address_of_ipv6(board: StandInBoard, tmp_path: Path) -> None:
    """For example, a board's link-local address on a cable, without a router."""
    near = next(path.name for path in Path("/sys/class/net").glob(f"tt{os.getpid()}b*h"))
    addresses = board.run("cat /proc/net/if_inet6")
    found = re.search(r"^(fe80\w+) .* eth0$", addresses, re.MULTILINE)
    if found is None:
        pytest.skip("IPv6 is switched off here")
    address = str(ipaddress.IPv6Address(bytes.fromhex(found[1])))
    config = tmp_path / "config"
    config.write_text(board.ssh_config.read_text().replace(f"Host {board.host}", "Host *").replace(
        "HostName", f"HostKeyAlias {board.known_hosts.read_text().split()[0]}\n  #"))  # fmt: skip
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage/file").write_text("text")
    host = f"root@{address}%{near}"
    check_hosts([host])
    with Remote(host, config) as remote:
        assert remote.sh("echo here") == "here\n"
        push(remote, tmp_path / "stage", "/tmp/ipv6")
        fetch(remote, "/tmp/ipv6", tmp_path / "copy", ["file"], 4)
    assert (tmp_path / "copy/file").read_text() == "text"


@pytest.mark.parametrize("host", ["::1", "xilinx@fe80::1%eth0", "a@b", "board", "x@10.0.0.1"])
def test_hosts_that_ssh_takes(host: str) -> None:
    check_hosts([host])


@pytest.mark.parametrize(
    "host",
    ["", "-oProxyCommand=x", "a b", "a@b:22", "[::1]", "::1%a b", "-@::1", "fe80::1%-o", ":"],
)
def test_names_that_are_not_hosts(host: str) -> None:
    with pytest.raises(RemoteUsageError, match="neither user@host"):
        check_hosts([host])


def test_a_deployment_is_one_connection(
    board: StandInBoard, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tempfile.mkdtemp(prefix="t", dir="/tmp")
    monkeypatch.setattr("tempfile.tempdir", scratch)
    (plan.model / "notes.txt").write_text("new")
    board.run("true")
    before = _logins(board)
    assert _deploy(board, plan).state == "deployed"
    assert _logins(board) == before + 1
    assert not list(Path(scratch).iterdir())  # no socket, no stage
    Path(scratch).rmdir()


@pytest.mark.full_board
def test_an_sshd_that_shares_no_connection(board: StandInBoard, plan: Plan) -> None:
    """Then each command has its own connection, as by default in ssh, and everything works."""
    config = board.root / "etc/ssh/board_config"
    text = config.read_text()
    (plan.model / "notes.txt").write_text("again")
    try:
        config.write_text(text + "MaxSessions 1\n")
        _reload(board)
        assert _deploy(board, plan).state == "deployed"
    finally:
        config.write_text(text)
        _reload(board)


def test_where_no_socket_can_be_each_command_connects(
    board: StandInBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A temporary directory with a path that is too long is not used; nor is a shared one."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("long" * 30)))
    Path(str(tmp_path / ("long" * 30))).mkdir()
    with Remote(board.host, board.ssh_config) as remote:
        path = next(o for o in remote.ssh("true") if o.startswith("ControlPath="))
        assert path.startswith("ControlPath=/tmp/")
        assert remote.sh("echo here") == "here\n"
    monkeypatch.setattr("tutelage.host.ssh.sharing._LONGEST", 5)
    config = _config(board, tmp_path, "  ControlPath /tmp/own-%C\n")
    for each in (board.ssh_config, config):
        with Remote(board.host, each) as remote:
            assert not any(o.startswith("ControlPath=") for o in remote.ssh("true"))
            assert remote.sh("echo here") == "here\n"


def _logins(board: StandInBoard) -> int:
    return board.log.read_text().count("Accepted publickey")


def _reload(board: StandInBoard) -> None:
    """Let the board's sshd reload its configuration; return when it listens."""
    count = board.log.read_text().count("Server listening on 0.0.0.0")
    pid = board.run("pgrep -o -x sshd").strip()
    board.run(f"kill -HUP {pid}")
    end = time.monotonic() + 60
    while board.log.read_text().count("Server listening on 0.0.0.0") == count:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_changed_and_an_unknown_host_key_get_different_advice(
    board: StandInBoard, tmp_path: Path
) -> None:
    """Following the advice exactly solves the problem."""
    known = board.known_hosts.read_text()
    other = (board.ssh_config.parent / "client_key.pub").read_text()
    try:
        board.known_hosts.write_text(f"{known.split()[0]} {other}")
        with pytest.raises(AccessRefused) as changed:
            Remote(board.host, board.ssh_config).sh("true")
        assert "has another key than before" in str(changed.value)
        command = re.search("`(ssh-keygen -R .*?)`", str(changed.value))
        assert command is not None
        done = subprocess.run(shlex.split(command[1]), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert not board.known_hosts.read_text().strip()

        with pytest.raises(AccessRefused) as unknown:
            Remote(board.host, board.ssh_config).sh("true")
        assert "is not known: connect once with `ssh " in str(unknown.value)
        assert "ssh-keygen" not in str(unknown.value) and "\n" not in str(unknown.value)
    finally:
        board.known_hosts.write_text(known)
        board.known_hosts.with_name("known_hosts.old").unlink(missing_ok=True)


def test_a_key_with_a_passphrase_wants_an_agent(
    board: StandInBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "a key"
    shutil.copy(board.ssh_config.parent / "client_key", key)
    key.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(key)], check=True)
    config = tmp_path / "config"
    config.write_text(
        board.ssh_config.read_text().replace(
            f"IdentityFile {board.ssh_config.parent}/client_key", f'IdentityFile "{key}"'
        )
    )
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(AccessRefused) as refused:
        Remote(board.host, config).sh("true")
    text = str(refused.value)
    assert "has a passphrase, which cannot be entered here" in text
    assert f'eval "$(ssh-agent)" && ssh-add {shlex.quote(str(key))}' in text

    # As the message advises: an agent, with the key in it, by someone who types the passphrase.
    ask = tmp_path / "ask"
    ask.write_text("#!/bin/sh\necho secret\n")
    ask.chmod(0o700)
    with _agent(monkeypatch):
        environment = {**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
        with pytest.raises(AccessRefused, match=r"`ssh-add '"):
            Remote(board.host, config).sh("true")
        subprocess.run(["ssh-add", "-q", str(key)], check=True, env=environment)
        assert Remote(board.host, config).sh("echo in") == "in\n"


def test_a_user_whose_key_is_not_known_there(board: StandInBoard, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    config = tmp_path / "config"
    config.write_text(
        board.ssh_config.read_text().replace(f"{board.ssh_config.parent}/client_key", str(key))
    )
    with pytest.raises(AccessRefused, match="install one with `ssh-copy-id "):
        Remote(board.host, config).sh("true")


class _agent:
    """An ssh-agent while the block runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def __enter__(self) -> None:
        printed = subprocess.run(
            ["ssh-agent", "-s"], capture_output=True, text=True, check=True
        ).stdout
        found = dict(re.findall(r"(\w+)=([^;]+);", printed))
        self._pid = int(found["SSH_AGENT_PID"])
        self._patch.setenv("SSH_AUTH_SOCK", found["SSH_AUTH_SOCK"])

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, 15)
