"""The table of networks: the outcome of single networks, and the published table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from torch import nn  # noqa: E402

from tutelage.host.networks.survey import (  # noqa: E402
    REFUSED,
    REPLACED,
    UNCHANGED,
    Candidate,
    survey,
    write_table,
)

SIZE = (3, 8, 8)


def _small(activation: nn.Module) -> tuple[nn.Module, tuple[int, int, int]]:
    return nn.Sequential(nn.Conv2d(3, 4, 3), activation, nn.Flatten(), nn.Linear(144, 2)), SIZE


def test_each_outcome(tmp_path: Path) -> None:
    networks = {"relu": nn.ReLU(), "silu": nn.SiLU(), "norm": nn.GroupNorm(2, 4)}
    outcomes = [
        survey(Candidate("mine", name, lambda layer=layer: _small(layer)))  # type: ignore[misc]
        for name, layer in networks.items()
    ]
    assert [outcome.outcome for outcome in outcomes] == [UNCHANGED, REPLACED, REFUSED]
    assert outcomes[1].exchanged == ("silu=hardswish",)
    assert "GroupNorm" in outcomes[2].reason
    write_table(outcomes, tmp_path / "networks.md")
    text = (tmp_path / "networks.md").read_text(encoding="utf-8")
    assert "2 of 3 networks are accepted, 1 unchanged and 1 with replacements." in text
    assert "| silu | 3x8x8 | with replacements | silu=hardswish |" in text
    assert "| norm | 3x8x8 | refused | the DPU does not support GroupNorm at 1: use " in text


def test_the_published_table(repo_root: Path) -> None:
    """Its counts match its rows, and it contains no path of a machine."""
    text = (repo_root / "docs/networks.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    shares = {}
    for section in sections:
        package, *lines = section.splitlines()
        rows = [line.split(" | ") for line in lines if line.startswith("| ") and "---" not in line]
        outcomes = [row[2] for row in rows[1:]]
        accepted = [outcome for outcome in outcomes if outcome != REFUSED]
        counts = re.search(r"(\d+) of (\d+) networks are accepted, (\d+) unchanged", section)
        assert counts is not None
        found = (len(accepted), len(outcomes), outcomes.count(UNCHANGED))
        assert tuple(map(int, counts.groups())) == found
        shares[package] = len(accepted) / len(outcomes)
    assert shares["torchvision"] > 0.9 and shares["timm"] > 0.9
    assert not re.search(r"/(tmp|home|root|usr)/", text)
