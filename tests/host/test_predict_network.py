"""`tutelage.predict`: files, PyTorch networks and operations, by the same latency model."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("google.protobuf", reason="needs the emulation's packages")

from tutelage.core.errors import DpuError
from tutelage.dpu.predict.operations import Sketch
from tutelage.dpu.predict.prediction import predict_file
from tutelage.host.explore.predict_network import predict_network


def test_a_file(demo_model: Path) -> None:
    wanted = predict_file(demo_model, "zcu104")
    for network in (demo_model, str(demo_model)):
        found = predict_network(network)
        assert found.latency_seconds == wanted.latency_seconds and found.fps() == wanted.fps()


def test_operations() -> None:
    net = Sketch(32, 32)
    net.conv(0, 16, 3, 2, 1)
    found = predict_network(net, board="zcu104")
    assert found.latency_seconds == predict_network(net.operations).latency_seconds > 0


def test_a_network_of_pytorch() -> None:
    nn = pytest.importorskip("torch", reason="host/ needs PyTorch").nn
    found = predict_network(nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1)), input_shape=(3, 32, 32))
    net = Sketch(32, 32)
    net.conv(0, 16, 3, 2, 1)
    assert found.latency_seconds == pytest.approx(predict_network(net).latency_seconds, rel=0.01)
    assert predict_network("densenet-small", input_shape=(1, 28, 28)).latency_seconds > 0
    with pytest.raises(DpuError, match="without input_shape the network is Conv2d, not a list"):
        predict_network(nn.Conv2d(3, 16, 3))


def test_wrong_use(demo_model: Path, tmp_path: Path) -> None:
    with pytest.raises(DpuError, match="none"):
        predict_network(tmp_path / "none.xmodel")
    with pytest.raises(DpuError, match="zx81"):
        predict_network(demo_model, board="zx81")
