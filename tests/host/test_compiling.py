"""Compiled networks: the same results, and training that continues if compilation fails."""

from __future__ import annotations

import logging
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from torch import nn  # noqa: E402

from tutelage.host.train import compiling  # noqa: E402
from tutelage.host.train.compiling import Compiled  # noqa: E402


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def test_a_compiled_network_gives_its_own_results(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(compiling, "BACKEND", backend)
    network, images = _network(), torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(Compiled(network)(images), network(images))
    assert compiled


def test_where_nothing_compiles_the_network_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def backend(graph: Any, _: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(compiling, "BACKEND", backend)
    network, images = _network(), torch.randn(2, 1, 8, 8)
    one = Compiled(network)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(one(images), network(images))
        assert torch.equal(one(images), network(images))
    (record,) = caplog.records  # once
    assert "continues without" in record.getMessage() and "no C++ compiler" in record.getMessage()


def test_the_networks_own_faults_stay_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Compiled(_network())(torch.randn(2, 1, 9, 9))
