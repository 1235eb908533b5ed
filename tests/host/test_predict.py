"""PyTorch networks and DenseNets as operations, and `tutelage predict`."""

from __future__ import annotations

import json
from dataclasses import astuple
from typing import Any

import pytest

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from torch import nn

from tutelage.__main__ import main
from tutelage.dpu.predict.latency import operations_of_graph, predict
from tutelage.dpu.predict.operations import Operation
from tutelage.host.explore.network_operations import densenet_operations, network_operations
from tutelage.host.networks import create
from tutelage.host.quantise.student import Student
from tutelage.host.quantise.to_xmodel import to_quantised
from tutelage.host.quantise.walker import UnsupportedOp


def _essence(operations: list[Operation]) -> list[Any]:
    """Return everything but names and positions, which reshapes move; sums have two names."""
    return [
        (o.kind.replace("add", "eltwise"), *astuple(o)[4:], o.output)
        for o in operations
        if o.kind not in ("flatten", "input")
    ]


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((3, 32, 32), dict(growth_rate=4, block_config=(2, 3))),
        ((1, 28, 28), dict(growth_rate=8, block_config=(3, 3, 3), stem="stride2")),
        ((1, 28, 28), dict(growth_rate=4, block_config=(2, 2), stem="stride4", compression=0.7)),
        ((3, 64, 96), dict(growth_rate=8, block_config=(2, 2), stem="imagenet", bottleneck=2,
                           init_features=24, num_classes=7)),
    ],
)  # fmt: skip
def test_a_densenet_by_its_hyper_parameters_is_the_traced_one(
    shape: tuple[int, int, int], options: dict[str, Any]
) -> None:
    written = densenet_operations(shape, **options)
    traced = network_operations(create("densenet", in_channels=shape[0], **options), shape)
    assert _essence(written) == _essence(traced)
    assert predict(written).job_seconds == predict(traced).job_seconds


@pytest.mark.parametrize("name", ["resnet-8", "mobilenet-small"])
def test_other_networks_are_traced(name: str) -> None:
    network = create(name, num_classes=10)
    operations = network_operations(network, (3, 32, 32))
    # A norm's scale folds into its convolution, its offset is the bias.
    weights = sum(p.numel() for p in network.parameters() if p.dim() > 1)
    biases = sum(o.output[2] for o in operations if o.depth)
    assert sum(o.parameters for o in operations) == weights + biases
    assert {"add", "conv2d", "avgpool2d"} <= {o.kind for o in operations}
    assert predict(operations).job_seconds > 0


def test_unsupported_layers_raise_an_error() -> None:
    with pytest.raises(UnsupportedOp):
        network_operations(nn.Sequential(nn.Conv2d(3, 4, 1), nn.GELU()), (3, 8, 8))


@pytest.mark.parametrize(
    ("network", "left"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 17)), ["0"]),
        (nn.Sequential(nn.Conv2d(3, 4, 3, 9), nn.ReLU(), nn.Conv2d(4, 5000, 1)), ["0", "2"]),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)), []),
    ],
)
def test_layers_unsuited_to_the_dpu_are_not_predicted_on_it(
    network: nn.Module, left: list[str]
) -> None:
    """Windows and channels beyond the DPU's limits go to the CPU, as in the network's file."""
    found = predict(network_operations(network, (3, 24, 24)))
    assert [operation.name for operation in found.left_to_cpu] == left


def test_a_network_is_predicted_as_its_file() -> None:
    network = nn.Sequential(create("mobilenet-small"), nn.Identity())
    graph = to_quantised(Student(network, (3, 32, 32)), "net")
    by_file = operations_of_graph(graph)
    assert _essence(network_operations(network, (3, 32, 32))) == _essence(by_file)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["predict", "densenet-small", "--input", "1x28x28"]
    assert main([*given, "--threads", "2", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["layers"][0]["type"] == "conv2d" and len(facts["threads"]) == 3
    assert main(given) == 0
    assert "bound by" in capsys.readouterr().out
    wrong = (
        ["densenet-smal"],
        ["densenet-small", "--input", "28"],
        ["densenet-small", "--board", "zcu105"],
        ["densenet-small", "--threads", "0"],
    )
    for arguments in wrong:
        assert main(["predict", *arguments]) == 2
        out, err = capsys.readouterr()
        assert not out and err.startswith("tutelage: ") and err.count("\n") == 1
