"""The systemd service on a stand-in board: its user, its token, its command.

The board has a stand-in for systemctl that reads the unit file and runs its command as its user;
test_service_systemd.py has a real systemd. `systemd-analyze verify` reads the unit where it is
installed.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="host/ needs typer, which is not installed")

from tests.stand_in_board import HOME, StandInBoard, why_not
from tests.stand_in_board.deployable import make_model, make_wheel
from tutelage.__main__ import main
from tutelage.host.deploy import Plan, Report, deploy, rollback
from tutelage.host.deploy.plan import DeployUsageError, check_plan
from tutelage.host.deploy.service import unit_text
from tutelage.host.deploy.service_account import Account
from tutelage.host.deploy.service_scripts import INSTALL, SOURCE_VARIABLE, TOKEN_VARIABLE

_REASON = why_not()
needs_board = pytest.mark.skipif(_REASON is not None, reason=_REASON or "")

RUNS = "--source model/images --frames 2 --quiet --json -"
UNIT = "etc/systemd/system/tutelage.service"
# The words of a unit's command: in double quotes with JSON's escapes, %% for % and $$ for $.
SYSTEMCTL = """\
#!{python}
import json, os, pwd, grp, re, subprocess, sys
with open("/calls", "a") as file:
    print(*sys.argv[1:], file=file)
if sys.argv[1] == "is-active":
    sys.exit(os.path.exists("/down"))
if sys.argv[1] in ("restart", "try-restart"):
    lines = open("/etc/systemd/system/tutelage.service").read().splitlines()
    unit = dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")
    words = [json.loads(word) for word in re.findall(r'"(?:[^"\\\\]|\\\\.)*"', unit["ExecStart"])]
    words = [word.replace("%%", "%").replace("$$", "$") for word in words]
    user = pwd.getpwnam(unit["User"])
    groups = [grp.getgrnam(name).gr_gid for name in unit.get("SupplementaryGroups", "").split()]
    more = dict(line.strip().split("=", 1) for line in open(unit["EnvironmentFile"]))
    done = subprocess.run(
        words, cwd=unit["WorkingDirectory"], capture_output=True, text=True,
        user=user.pw_uid, group=user.pw_gid, extra_groups=groups,
        env={{"PATH": os.environ["PATH"], "HOME": user.pw_dir, **more}})
    answer = {{"words": words, "user": unit["User"], "groups": groups, "more": more,
              "status": done.returncode, "out": done.stdout, "err": done.stderr}}
    with open("/ran", "w") as file:
        json.dump(answer, file)
    print(done.stderr, file=sys.stderr)
    sys.exit(done.returncode)
"""


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInBoard]:
    """A board with a user xilinx, a group video and a systemctl that runs the unit's command."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with StandInBoard(tmp_path) as board:
        (board.root / "etc/passwd").open("a").write(
            "xilinx:x:1000:1000::/home/xilinx:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"
        )
        (board.root / "etc/shadow").open("a").write("xilinx:*:19000:0:99999:7:::\n")
        (board.root / "etc/group").write_text("root:x:0:\nxilinx:x:1000:\nvideo:x:44:\n")
        board.run("mkdir -p /home/xilinx; chown xilinx: /home/xilinx; touch /calls /ran; "
                  "chmod 666 /calls /ran; mkdir -p /etc/systemd/system")  # fmt: skip
        board.run("chmod a+x /root")  # this machine's Python may be there
        python = board.run("readlink -f /usr/local/share/pynq-venv/bin/python3").strip()
        _write(board, "systemctl", SYSTEMCTL.format(python=python))
        yield board


def _write(board: StandInBoard, name: str, text: str) -> None:
    path = board.root / "usr/local/bin" / name
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def plan(board: StandInBoard, tmp_path: Path) -> Plan:
    (tmp_path / "wheels").mkdir()
    make_wheel("psutil", tmp_path / "wheels")
    return Plan("zcu104", make_model(tmp_path / "mine"), tmp_path / "wheels", board.ssh_config)


def _go(board: StandInBoard, plan: Plan, **changes: Any) -> Report:
    return deploy([board.host], replace(plan, **changes), print)[0]


def _ran(board: StandInBoard) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((board.root / "ran").read_text())
    return answer


def _wait_for(board: StandInBoard, text: str) -> None:
    """Wait until a program was called with these words."""
    end = time.monotonic() + 60
    while text not in (board.root / "calls").read_text():
        assert time.monotonic() < end, (board.root / "calls").read_text()
        time.sleep(0.05)


@pytest.mark.slow
@needs_board
def test_the_service_runs_as_another_user_than_root(board: StandInBoard, plan: Plan) -> None:
    """Root deploys here, so the user must be named; nothing is copied before it is valid."""
    refused = _go(board, plan, service=RUNS)
    assert refused.error.startswith("service: it would run as root, since root deploys")
    assert "--service-user" in refused.error
    missing = _go(board, plan, service=RUNS, service_user="fred")
    assert missing.error == "service: there is no user fred: create it with useradd --system fred"
    home = board.root / HOME
    home.chmod(0o700)
    closed = _go(board, plan, service=RUNS, service_user="xilinx")
    assert closed.error.startswith("service: xilinx cannot enter /home/board/tutelage/releases")
    home.chmod(0o755)
    assert not (board.root / UNIT).exists()
    assert not list(board.tutelage.glob("releases/*"))

    report = _go(board, plan, service=RUNS, service_user="xilinx")
    assert report.state == "deployed", report.error
    ran = _ran(board)
    assert (ran["user"], ran["groups"], ran["status"]) == ("xilinx", [44], 0), ran["err"]
    assert json.loads(ran["out"])["frames"]["classified"] == 2

    # The token is created once, readable only by its owner and root, and shown to no other user.
    token = board.tutelage / "web.env"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    value = ran["more"]["TUTELAGE_WEB_TOKEN"]
    assert (
        re.fullmatch(r"[\w-]{24}", value) and token.read_text() == f"TUTELAGE_WEB_TOKEN={value}\n"
    )
    unit = (board.root / UNIT).read_text()
    assert value not in unit and not any(value in word for word in ran["words"])
    assert report.service == "service: runs as xilinx"
    (plan.model / "notes.txt").write_text("new")
    assert _go(board, plan, service=RUNS, service_user="xilinx").state == "deployed"
    assert _ran(board)["more"]["TUTELAGE_WEB_TOKEN"] == value

    root = _go(board, plan, service=RUNS, service_user="root")
    assert root.state == "service restarted" and "User=root" in (board.root / UNIT).read_text()
    assert any("runs as root" in text for text in root.warnings)


@pytest.mark.full_board
@needs_board
def test_a_user_who_is_not_root_deploys_with_sudo(
    board: StandInBoard, plan: Plan, tmp_path: Path
) -> None:
    config = tmp_path / "as_xilinx"
    config.write_text(board.ssh_config.read_text().replace("User root", "User xilinx"))
    own = replace(plan, ssh_config=config, service=RUNS)
    _write(board, "sudo", "#!/bin/sh\necho sudo: a password is required >&2\nexit 1\n")
    refused = _go(board, own)
    assert refused.error.startswith("service: sudo on the board asks for a password"), refused.error
    # A sudo that lets everything pass; the stand-in cannot give it root's rights.
    _write(board, "sudo", '#!/bin/sh\nshift\nexec "$@"\n')
    _write(board, "systemctl", "#!/bin/sh\ntest $1 != show || echo 0\n")
    board.run("chown xilinx: /etc/systemd/system")
    report = _go(board, replace(own, service="--camera --web 0.0.0.0:80"))
    assert report.state == "deployed", report.error
    assert report.service == (
        "service: runs as xilinx; the live page's token: ssh board0 cat tutelage/web.env"
    )
    command = ["ssh", "-F", str(config), "board0", "cat tutelage/web.env"]
    printed = subprocess.run(command, capture_output=True, text=True).stdout
    assert re.fullmatch(r"TUTELAGE_WEB_TOKEN=[\w-]{24}\n", printed)
    unit = (board.root / UNIT).read_text()
    assert "User=xilinx\nSupplementaryGroups=video\nAmbientCapabilities=" in unit
    assert "WorkingDirectory=/home/xilinx/tutelage/current\n" in unit


@pytest.mark.slow
@needs_board
def test_a_plugin_goes_with_its_release(board: StandInBoard, plan: Plan, tmp_path: Path) -> None:
    """The plugin works in the smoke test, the service, a measurement, and after a rollback."""
    lone = ["measure", board.host, "--ssh-config", str(board.ssh_config), "--plugin", "ops.py"]
    assert main(lone) == 2  # there is no model that it belongs to
    plugin = tmp_path / "my operators.py"
    plugin.write_text("def op_mine(inputs, attrs):\n    return inputs['input'][0]\n")
    plain = _go(board, plan, service=RUNS, service_user="xilinx")
    assert plain.state == "deployed", plain.error
    with_plugin = _go(board, plan, service=RUNS, service_user="xilinx", plugin=plugin)
    assert with_plugin.state == "deployed" and with_plugin.release != plain.release
    current = board.tutelage / "releases" / with_plugin.release
    assert (current / "plugin.py").read_text() == plugin.read_text()
    _write(board, "traced", '#!/bin/sh\necho "$@" >> /calls\n')
    for release, has in ((with_plugin.release, True), (plain.release, False)):
        python = board.tutelage / "releases" / release / ".venv/bin/python"
        target = python.readlink()
        python.unlink()
        python.symlink_to("/usr/local/bin/traced")
        board.run("cd tutelage; ln -sfn releases/" + release + " current; : > /calls")
        board.run("systemctl restart tutelage.service")
        calls = (board.root / "calls").read_text()
        assert ("app/classify.py --model model --plugin plugin.py" in calls) == has
        assert "app/classify.py --model model " in calls
        assert main(["measure", board.host, "--ssh-config", str(board.ssh_config), "--detach",
                     "--accept", "service"]) == 0  # fmt: skip
        _wait_for(
            board,
            "-m tutelage.app.measure --plugin plugin.py"
            if has
            else "-m tutelage.app.measure --output",
        )
        python.unlink()
        python.symlink_to(target)
    board.run(f"cd tutelage; ln -sfn releases/{with_plugin.release} current; "
              f"ln -sfn releases/{plain.release} previous")  # fmt: skip
    back = rollback([board.host], board.ssh_config, print)[0]
    assert back.state == "rolled back", back.error
    assert _ran(board)["status"] == 0


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    words = ["--source", 'a "b" \\ %h $HOME é;', "--web", "0.0.0.0:80"]
    text = unit_text("/home/100%", Account("root", ("video",)), words)
    assert "WorkingDirectory=/home/100%%/tutelage/current" in text
    assert "AmbientCapabilities" not in text
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in unit_text("/h", Account("x"), words)
    for other in (["--web"], ["--web", "0.0.0.0:8080"], ["--source", "80"]):
        assert "AmbientCapabilities" not in unit_text("/h", Account("x"), other)
    for line in (
        "KillMode=mixed",
        "Restart=on-failure",
        "NoNewPrivileges=yes",
        "ProtectSystem=full",
    ):
        assert f"\n{line}\n" in text
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    path = tmp_path / "tutelage.service"
    path.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(path)],
                          capture_output=True, text=True)  # fmt: skip
    about = [line for line in done.stderr.splitlines() if "tutelage.service" in line]
    assert not about, about


def test_a_unit_that_arrives_incomplete_is_not_installed(tmp_path: Path) -> None:
    for name, text in (("sudo", 'shift; exec "$@"'), ("systemctl", "exit 0"), ("sleep", "exit 0")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    whole = unit_text("/home/xilinx", Account("xilinx", ()), ["--camera"])
    unit = tmp_path / "unit"
    script = INSTALL.replace(f"/{UNIT}", str(unit))
    path = f"{tmp_path}:{os.environ['PATH']}"

    def install(text: str) -> int:
        command = ["sh", "-c", script]
        return subprocess.run(command, input=text, text=True, env={"PATH": path}).returncode

    assert install("") == install(whole[:-9]) == 1 and not unit.exists()
    assert install(whole) == 0 and unit.read_text() == whole
    assert install(whole[:200]) == 1 and unit.read_text() == whole


def test_invalid_services(tmp_path: Path) -> None:
    plan = Plan("zcu104", make_model(tmp_path / "mine"))
    if shutil.which("rsync") is None or shutil.which("ssh") is None:
        pytest.skip("needs ssh and rsync")
    for changes in ({"service": "--camera 'open"}, {"service": "--camera\x1b[0m"},
                    {"service": "'a\nUser=root'"}, {"service_user": "a b"},
                    {"service_user": "-x"}):  # fmt: skip
        with pytest.raises(DeployUsageError, match="--service: "):
            check_plan(["board"], replace(plan, **changes))  # type: ignore[arg-type]


def test_a_password_does_not_come_into_the_unit(tmp_path: Path) -> None:
    if shutil.which("rsync") is None or shutil.which("ssh") is None:
        pytest.skip("needs ssh and rsync")
    plan = Plan("zcu104", make_model(tmp_path / "mine"))
    with pytest.raises(DeployUsageError) as refused:
        check_plan(["board"], replace(plan, service="--source rtsp://me:s3cret@camera/1 --web"))
    text = str(refused.value)
    assert text.startswith("--service: rtsp://...@camera/1: ") and "s3cret" not in text
    assert "TUTELAGE_SOURCE=URL to ~/tutelage/web.env" in text and "\n" not in text
    for harmless in ("rtsp://camera/1", "http://me@x/y", "http://x:80/a@b:c"):
        check_plan(["board"], replace(plan, service=f"--source {harmless}"))


def test_the_variables_are_the_applications() -> None:
    """host/ does not import app/."""
    options = importlib.import_module("tutelage.app.options")
    assert (options.SOURCE_VARIABLE, options.TOKEN_VARIABLE) == (SOURCE_VARIABLE, TOKEN_VARIABLE)


def test_a_dry_run_shows_the_service(tmp_path: Path, capsys: Any) -> None:
    if shutil.which("rsync") is None or shutil.which("ssh") is None:
        pytest.skip("needs ssh and rsync")
    command = ["deploy", "user@host", "--model", str(make_model(tmp_path / "mine")), "--dry-run"]
    assert main(command) == 0
    assert "systemctl try-restart tutelage.service" in capsys.readouterr().out
    assert main([*command, "--service", "--camera --web", "--service-user", "xilinx"]) == 0
    out = capsys.readouterr().out
    assert "# /etc/systemd/system/tutelage.service:\n" in out and "# User=xilinx\n" in out
    assert '"--camera" "--web"' in out and "systemctl enable tutelage.service" in out
    commands = [shlex.split(line) for line in out.splitlines() if not line.startswith("#")]
    assert {words[0] for words in commands} == {"ssh", "rsync"}
