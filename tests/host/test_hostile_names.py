"""Names from strangers on their way through SSH, rsync and the shells at both ends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("typer", reason="host/ needs typer, which is not installed")

from host.__main__ import main
from host.remote import Remote, RemoteUsageError, check_hosts
from tests.stand_in_board import StandInBoard, why_not
from tests.stand_in_board.deployable import make_model, make_wheel

HOSTILE = 'mo\'del "$(touch ~/pwned)" `touch ~/pwned`; touch ~/pwned & é %h $HOME *'
PROBE = "import json, os, sys; print(json.dumps([os.fsencode(a).hex() for a in sys.argv[1:]]))"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), max_size=4)
)
def test_arguments_arrive_as_they_are(words: list[str]) -> None:
    """sshd gives the last words to the user's shell as one string; so does this."""
    import shlex

    command = Remote("board", None).ssh(shlex.join([sys.executable, "-c", PROBE, *words]))
    assert command[:-2] == Remote("board", None).ssh("")[:-2] and command[-2] == "board"
    for shell in filter(None, map(shutil.which, ("dash", "bash"))):
        done = subprocess.run([shell, "-c", command[-1]], capture_output=True, check=True)
        assert json.loads(done.stdout) == [os.fsencode(word).hex() for word in words]


@pytest.mark.parametrize(
    "host", ["-oProxyCommand=touch x", "-l", "", "a b", "a;b", "a$(b)", "a\nb", "@", "host:path"]
)
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(RemoteUsageError, match="not user@host"):
        check_hosts([host])


@pytest.mark.full_board
@pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
def test_a_model_and_a_service_with_hostile_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deployed, tried, measured and collected; nothing of the names is run anywhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / HOSTILE.replace("/", "")
    model = make_model(folder)
    image = next((model / "images").iterdir())
    image.rename(image.with_name("-rf $(touch pwned) 'x.png"))
    wheels = tmp_path / "wh eels; touch pwned"
    wheels.mkdir()
    make_wheel("psutil", wheels)
    with StandInBoard(tmp_path / "net") as board:
        config = ["--ssh-config", str(board.ssh_config), "--wheels", str(wheels)]
        assert main(["deploy", board.host, "--model", str(model), *config]) == 0
        board.set_power("12V", 16.0)
        results = tmp_path / "re sults; touch pwned"
        windows = ["--seconds", "0.5", "--warm-up", "0.2", "--idle", "0.3", "--cool-down", "0.1",
                   "--threads", "1", "--scenario", "offline", "--accept", "disturbed"]  # fmt: skip
        command = ["measure", board.host, "--model", str(model), *config, *windows]
        assert main([*command, "--output", str(results)]) == 0
        assert len(list(results.rglob("run.json"))) == 1
        pwned = [*board.root.glob("**/home/**/pwned"), *tmp_path.rglob("pwned"),
                 *Path.cwd().glob("pwned")]  # fmt: skip
        assert not pwned
