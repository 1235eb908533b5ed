"""The cards of the models in models/: each figure is that of its source."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from tutelage.core.board_profile import DEFAULT_BOARD  # noqa: E402
from tutelage.core.files import sha256_of  # noqa: E402
from tutelage.core.model_package import DESCRIPTION, read_description  # noqa: E402
from tutelage.dpu.compiler.board.graph import compile_for_board  # noqa: E402
from tutelage.host.compile.target import load_target  # noqa: E402
from tutelage.host.export.model_card import card_rows  # noqa: E402
from tutelage.host.export.model_directory import (  # noqa: E402
    Checkpoint,
    deployable_graph,
    load_student,
    read_state,
)
from tutelage.host.train.data import DataSet  # noqa: E402
from tutelage.host.train.run_files import LOG, STUDENT  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CARDS = sorted((ROOT / "models").glob("*/README.md"))


def _loaded(card: Path) -> Checkpoint:
    """The model's student; loading fails if its images and classes are not those of the card."""
    found = re.search(r"(\d+)x(\d+)x(\d+) to (\d+) classes", card.read_text())
    assert found, f"{card} names no images and classes"
    channels, height, width, classes = map(int, found.groups())
    pixels = torch.zeros(1, channels, height, width, dtype=torch.uint8)
    data = DataSet(pixels, torch.zeros(1, dtype=torch.int64), tuple(map(str, range(classes))))
    path = card.with_name(STUDENT)
    return load_student(path, *read_state(path), data)


def test_every_model_has_a_card() -> None:
    models = sorted(path.parent for path in (ROOT / "models").glob("*/*.safetensors"))
    assert models == [card.parent for card in CARDS] and CARDS


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_figures_of_a_card(card: Path, tmp_path: Path) -> None:
    loaded = _loaded(card)
    name = loaded.config.student.network.replace("-", "_")
    graph, _ = deployable_graph(loaded.student, name, clip=loaded.student.bits.activations < 8)
    compiled = tmp_path / "model.xmodel"
    target = load_target(DEFAULT_BOARD)
    compile_for_board(graph, target.fingerprint).graph.serialize(compiled)
    table = [line for line in card.read_text().splitlines() if line.startswith("| ")]
    assert [row for row in card_rows(loaded, compiled) if row not in table] == []
    assert any(re.fullmatch(r"\| data \| .*licen[cs]e.* \|", row) for row in table)
    assert f"tutelage export models/{card.parent.name} -o DIR" in card.read_text()


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_accuracies_of_a_card(card: Path) -> None:
    """Those of the checkpoint, of its log, and of a model directory that was exported from it."""
    student = card.with_name(STUDENT)
    _, state = read_state(student)
    with card.with_name(LOG).open(newline="") as file:
        *_, last = csv.DictReader(file)
    known = [state["accuracy"], *(float(v) for k, v in last.items() if "accuracy" in k and v)]
    if "accuracy" in last:  # the run had no validation images
        assert float(last["accuracy"]) == state["accuracy"]
    for description in (ROOT / "app").glob(f"*/{DESCRIPTION}"):
        provenance = read_description(description).provenance
        if provenance.get("checkpoint_sha256") == sha256_of(student):
            known += [value for key, value in provenance.items() if key.startswith("accuracy")]
    named = re.findall(r"(\d+\.\d+) %", card.read_text())
    assert named and {*named} <= {f"{value:.2f}" for value in known}
