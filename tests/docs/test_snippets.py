"""TOML and Python of the documentation that is not a file: read by the real reader, or run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tutelage
from tests.docs.conftest import PAGES, ROOT
from tests.docs.markdown import blocks
from tutelage.core.model_package import read_description
from tutelage.core.toml_file import parse_toml

_WEIGHTED = {"network": "densenet-small", "weights": "student.safetensors"}


def _run_table(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="configurations of training, of the set `host`")
    from tutelage.host.train.config import make_config

    shown = parse_toml(text)
    config = make_config({"method": "qat+kd", "student": _WEIGHTED, "teacher": _WEIGHTED, **shown})
    assert [phase.name for phase in config.plan] == [phase["name"] for phase in shown["phases"]]


def _student_table(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="configurations of training, of the set `host`")
    from tutelage.host.train.config import make_config

    student = {**_WEIGHTED, **parse_toml(text)}
    assert make_config({"method": "qat", "student": student}).student.replace


def _boards_file(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tutelage.host.ssh.boards import boards_file, hosts_of

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    boards_file().parent.mkdir()
    boards_file().write_text(text)
    assert hosts_of("zcu104", None, None) == ["xilinx@pynq"]


def _description(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.toml"
    path.write_text(text.replace("<SHA-256 in hexadecimal>", "0" * 64))
    assert read_description(path).labels == ("cat", "dog")


def _plugin(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    exec(text, names)
    given = {"input": [np.array([[-2.0, 3.0]]), np.array([0.5])]}
    assert names["op_Mylayer"](given, {}).tolist() == [[-1.0, 3.0]]


def _power(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exec(text, {"tutelage": tutelage, "classify_some_frames": list})


CHECKS: dict[str, Callable[[str, Path, pytest.MonkeyPatch], None]] = {
    "docs/how-to/add-method.md": _run_table,
    "docs/how-to/custom-ops.md": _plugin,
    "docs/how-to/deploy.md": _boards_file,
    "docs/how-to/measure-power.md": _power,
    "docs/how-to/train.md": _student_table,
    "docs/reference/boards-toml.md": _boards_file,
    "docs/reference/model-toml.md": _description,
}

ELSEWHERE = {
    "docs/how-to/amd-scripts.md": "tests/dpu/test_shim.py",
    "docs/reference/xmodel.md": "tests/dpu/test_docs.py",
    "docs/tutorials/own-network.md": "tests/host/test_quantised_network.py",
}
"""Pages whose code other tests run."""


def _snippets(page: Path) -> list[str]:
    found = [b for b in blocks(page) if b.language in ("toml", "python") and not b.file]
    return ["\n".join(block.lines) for block in found]


def test_every_snippet_has_a_check() -> None:
    pages = {page.relative_to(ROOT).as_posix() for page in PAGES if _snippets(page)}
    assert pages == {*CHECKS, *ELSEWHERE}
    assert all((ROOT / path).exists() for path in ELSEWHERE.values())


@pytest.mark.parametrize("page", CHECKS)
def test_a_snippet(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = _snippets(ROOT / page)
    CHECKS[page](text, tmp_path, monkeypatch)


def test_the_wheel_that_is_named_is_the_current_one() -> None:
    text = (ROOT / "docs/tutorials/own-images.md").read_text(encoding="utf-8")
    assert re.findall(r"tutelage-([\d.]+)-py3", text) == [tutelage.__version__]
