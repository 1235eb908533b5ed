"""Each notebook runs in an empty directory and prints the documented output."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("google.protobuf", reason="needs the emulation's packages")
pytest.importorskip("ipykernel", reason="needs ipykernel")
nbformat = pytest.importorskip("nbformat", reason="needs nbformat")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient")

NOTEBOOKS = Path(__file__).resolve().parent.parent / "examples/notebooks"

PRINTS = {
    "compiled_model": ("DPU", "LOAD", "equal: True"),
    "dpu_pynq": ("(1, 28, 28, 1) -> (1, 10)", "Bag, found as Bag", "frames per second"),
    "own_network": ("largest difference of a logit", "equal: True", "predicted"),
}


def test_all_are_run_and_kept_without_outputs() -> None:
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == sorted(PRINTS)
    for name in PRINTS:
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
        assert not any(cell.get("outputs") for cell in notebook.cells)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRINTS)
def test_a_notebook(
    name: str, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "own_network":
        pytest.importorskip("torch", reason="needs PyTorch")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(repo_root), *sys.path]))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    printed = "".join(
        output["text"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output["output_type"] == "stream"
    )
    for text in PRINTS[name]:
        assert text in printed
