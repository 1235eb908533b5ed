"""The host of `make deploy BOARD=zcu104` without HOST."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="host/ needs typer, which is not installed")

from tutelage.__main__ import main
from tutelage.core.toml_file import TomlError
from tutelage.host.deploy import DeployUsageError
from tutelage.host.ssh.boards import hosts_of
from tutelage.host.ssh.errors import RemoteUsageError

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.skipif(
    shutil.which("ssh") is None or shutil.which("rsync") is None, reason="needs ssh and rsync"
)


@pytest.fixture(autouse=True)
def _user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a configuration of SSH or boards."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def ssh_config(tmp_path: Path) -> Path:
    path = tmp_path / "ssh_config"
    path.write_text("Host other\n  HostName 10.0.0.9\nHost *\n  User me\n")
    return path


def _boards(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config/tutelage/boards.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_where_a_host_is_looked_for(tmp_path: Path, ssh_config: Path) -> None:
    with pytest.raises(RemoteUsageError) as none:
        hosts_of("zcu104", None, ssh_config)
    text = str(none.value)
    assert "no host for the board zcu104: give HOST=xilinx@pynq (or xilinx@192.168.2.99" in text
    assert f"{tmp_path}/config/tutelage/boards.toml" in text and "Host zcu104" in text
    assert "\n" not in text
    for named in (None, ["a@b"]):
        with pytest.raises(DeployUsageError, match=r"no board 'zx81'; choose from .*zcu104$"):
            hosts_of("zx81", named, ssh_config)
    with pytest.raises(RemoteUsageError, match="give HOST=user@address, or"):
        hosts_of("kv260", [], ssh_config)

    ssh_config.write_text("Host zcu104\n  HostName 10.0.0.7\n" + ssh_config.read_text())
    assert hosts_of("zcu104", None, ssh_config) == ["zcu104"]
    _boards(tmp_path, '[zcu104]\nhost = "xilinx@10.0.0.8"\n')
    assert hosts_of("zcu104", None, ssh_config) == ["xilinx@10.0.0.8"]
    assert hosts_of("zcu104", ["a@b", "c"], ssh_config) == ["a@b", "c"]


@pytest.mark.parametrize(
    "text",
    ["[zcu104]\n", "zcu104 = 'xilinx@board'\n", "[zcu104]\nhost = 7\n", "[zcu104\n",
     "[zcu104]\nhost = '-oProxyCommand=touch x'\n"],
)  # fmt: skip
def test_an_entry_that_is_not_a_host_is_named(tmp_path: Path, text: str) -> None:
    path = _boards(tmp_path, text)
    with pytest.raises((TomlError, RemoteUsageError), match=str(path)):
        hosts_of("zcu104", None, None)


def test_each_command_takes_the_users_host(tmp_path: Path, ssh_config: Path, capsys: Any) -> None:
    deploy = ["deploy", "--dry-run", "--accept", "target", "--ssh-config", str(ssh_config)]
    for command in (deploy, ["rollback"], ["measure"], ["measure", "--attach"]):
        assert main([*command, "--board", "zcu104"]) == 2
        err = capsys.readouterr().err
        assert err.startswith("tutelage: no host for the board zcu104") and err.count("\n") == 1
    _boards(tmp_path, '[zcu104]\nhost = "xilinx@10.0.0.8"\n')
    assert main(deploy) == 0
    assert " xilinx@10.0.0.8 " in capsys.readouterr().out


def test_the_command_that_continues_a_measurement(capsys: Any) -> None:
    name = "20261130T120000Z-abcd"
    command = ["measure", "a@b", "--attach", "--id", name]
    for more in ([], ["--ssh-config", "my config", "--board", "kv260", "--output", "elsewhere"]):
        assert main([*command, "--detach", *more]) == 0
        assert capsys.readouterr().err.endswith(
            f"continue with: {shlex.join(['tutelage', *command, *more])}\n"
        )


def test_make_takes_it_as_well(tmp_path: Path) -> None:
    """The command that make runs has no HOST, and its help explains this."""
    for target, command in (("deploy", "deploy"), ("measure", "measure"), ("rollback", "rollback")):
        done = subprocess.run(["make", "-n", "-o", ".venv/all.stamp", target, "BOARD=zcu104"],
                              cwd=ROOT, capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0 and "give HOST" not in done.stdout
        assert f"tutelage {command} --board zcu104" in done.stdout
