"""Hostile names in .xmodel files and of files, through every command that prints them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.hostile import FILE_NAME, HOSTILE, check
from tutelage.__main__ import main
from tutelage.core.text import shown
from tutelage.dpu.compiler.builder import CompiledModel


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a hostile name and two models in which all names are hostile."""
    folder = tmp_path / FILE_NAME
    folder.mkdir()
    for number in range(2):
        model = CompiledModel(HOSTILE)
        x = model.input(f"in{HOSTILE}", (1, 4, 4, 1), 4)
        ones = np.ones((2, 1, 1, 1), np.int8)
        x = model.conv2d(f"{number}{HOSTILE * 40}", x, ones, 4, None, 0, 4)
        model.output(x)
        model.save(folder / f"{number}.xmodel")
    np.save(tmp_path / "in.npy", np.zeros((1, 4, 4, 1), np.float32))
    return folder


def test_every_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, images = str(folder / "0.xmodel"), str(folder.parent / "in.npy")
    for status, *command in (
        (0, "inspect", model, "--ops"),
        (0, "inspect", model, "--images", images),
        (0, "inspect", model, "--json"),
        (1, "diff", model, str(folder / "1.xmodel")),
        (0, "diff", model, str(folder / "1.xmodel"), "--layers", "--json"),
        (0, "predict", model),
        (0, "run", model, "--input", images, "--output", str(folder.parent / "out.npy")),
        (2, "run", model, "--input", images, "--output", f"{HOSTILE}=x.npy"),
        (2, "inspect", str(folder / FILE_NAME)),
    ):
        assert main([str(word) for word in command]) == status
        out, err = capsys.readouterr()
        check(out)
        check(err, own_lines=status // 2)
        assert max(map(len, out.split("\n"))) <= 4000 or "--json" in command


def test_pages_and_drawings(folder: Path) -> None:
    svg, html = folder / "net.svg", folder / "net.html"
    command = ["inspect", str(folder / "0.xmodel"), "--svg", str(svg), "--html", str(html)]
    assert main(command) == 0
    ElementTree.parse(svg)
    for path in (svg, html):
        text = path.read_text(encoding="utf-8")
        check(text)
        assert "<img" not in text
    assert shown(HOSTILE)[:20] in html.read_text(encoding="utf-8")
