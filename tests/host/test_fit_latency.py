"""The fit to AMD's published speed: the networks, what the repository keeps, what README says."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest

from tutelage.core.locations import RESULTS
from tutelage.dpu.predict.latency import read_board
from tutelage.dpu.predict.operations import Operation
from tutelage.host.latency import fit as fit_latency
from tutelage.host.latency import published_networks
from tutelage.host.latency.fit import DIGITS, NetworkFit, evaluate
from tutelage.host.latency.published import COUNTED_AS_MACS, TABLE, Published, published, unusable


@pytest.fixture(scope="module")
def fitted() -> tuple[Any, list[NetworkFit]]:
    return evaluate(published(), read_board("zcu104", fitted=False))


@pytest.mark.parametrize("row", published(), ids=lambda row: row.name)
def test_a_network_has_the_operations_that_the_table_tells(row: Published) -> None:
    """But for one row that is never fitted for that reason."""
    assert (abs(row.gops_built / row.gops - 1) < 0.03) != ("more operations" in row.why_not)


def test_the_kept_fit_is_what_the_script_gives(
    fitted: tuple[Any, list[NetworkFit]], tmp_path: Path
) -> None:
    given, rows = fitted
    kept = read_board("zcu104")
    assert astuple(given) == pytest.approx(astuple(kept.parameters), rel=10 ** (1 - DIGITS))
    fit_latency.write_parameters(given, rows, tmp_path / "fitted" / "zcu104.toml")
    paths = tmp_path / "fitted" / "zcu104.toml", fit_latency.FITTED
    new, old = (re.sub(r"[\d.]+", "0", path.read_text(encoding="utf-8")) for path in paths)
    assert new == old
    inside = zip(astuple(fit_latency.LOW), astuple(given), astuple(fit_latency.HIGH), strict=True)
    assert all(low * 1.05 < value < high * 0.95 for low, value, high in inside)


def test_the_kept_table_is_what_the_script_gives(
    fitted: tuple[Any, list[NetworkFit]], tmp_path: Path
) -> None:
    fit_latency.write_table(fitted[1], tmp_path / "latency.csv")
    new, kept = (
        list(csv.reader((folder / "latency.csv").open(encoding="utf-8")))
        for folder in (tmp_path, RESULTS)
    )
    assert [row[:3] for row in new] == [row[:3] for row in kept]
    for ours, theirs in zip(new[1:], kept[1:], strict=True):
        numbers = [[float(cell or 0) for cell in row[3:11]] for row in (ours, theirs)]
        assert numbers[0] == pytest.approx(numbers[1], rel=2e-3)


def test_what_was_left_out_is_predicted(fitted: tuple[Any, list[NetworkFit]]) -> None:
    """The aim: below 10 % on average; none off by more than 30 % without an explanation."""
    found: Any = fit_latency.summary(fitted[1])
    kept = json.loads((RESULTS / "latency.json").read_text(encoding="utf-8"))
    assert found["left_out"]["mean"] == pytest.approx(kept["left_out"]["mean"], abs=0.11)
    assert found["families"].keys() == kept["families"].keys()
    assert all(mean < 10 for mean in kept["left_out"]["mean"])
    for row in fitted[1]:
        assert abs(row.deviation(0)) < 30 or row.published.why_not
        assert abs(row.deviation(1)) < 30 or row.published.why_not
    board = read_board("zcu104")
    for row in fitted[1]:
        for thread in (0, 1):
            if row.left_out:
                ratio = row.left_out[thread] / row.speed[thread]
                low, high = (board.error[side][thread] for side in ("low", "high"))
                assert low - 0.002 <= ratio <= high + 0.002


def test_the_readme_tells_the_kept_errors(repo_root: Path) -> None:
    kept = json.loads((RESULTS / "latency.json").read_text(encoding="utf-8"))
    text = (repo_root / "README.md").read_text(encoding="utf-8")
    rows = {"all": kept["left_out"], **kept["families"]}
    for name, errors in rows.items():
        found = re.search(rf"^\| {name} \|(.*)\|$", text, re.MULTILINE)
        assert found, name
        numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", found[1].replace("−", "-"))]
        pairs = zip(errors["mean"], errors["worst"], strict=True)
        wanted = [errors["networks"], *(number for pair in pairs for number in pair)]
        assert numbers == wanted, name


def test_the_kept_rows_are_those_of_the_whole_table(shared_dir: Path) -> None:
    """And every other row is an older one of the same network, or has a reason."""
    with (shared_dir / "data" / "zcu104_published.csv").open(encoding="utf-8") as file:
        whole = list(csv.DictReader(file))
    with TABLE.open(encoding="utf-8") as file:
        kept = list(csv.DictReader(file))
    for row in kept:
        (same,) = [
            w for w in whole if all(w[key] == row[key] for key in ("vitis_ai", "standard_name"))
        ]
        assert {key: same[key] for key in row} == row
        newer = [w for w in whole if w["standard_name"] == row["standard_name"]]
        assert max(w["vitis_ai"] for w in newer) == row["vitis_ai"]
    names = {row["standard_name"] for row in kept}
    left = {row["standard_name"] for row in whole} - names
    assert not [name for name in left if not unusable(name)]
    assert set(COUNTED_AS_MACS) < names


def _convolutions(operations: list[Operation]) -> Counter[Any]:
    return Counter((o.output, o.macs) for o in operations if o.depth)


TORCHVISION: dict[str, Callable[[], list[Operation]]] = {
    "resnet18": lambda: published_networks.resnet(depths=(2, 2, 2, 2), bottleneck=False),
    "resnet50": published_networks.resnet,
    "vgg16": lambda: published_networks.vgg((2, 2, 3, 3, 3)),
    "squeezenet1_1": published_networks.squeezenet,
    "mobilenet_v2": lambda: published_networks.mobilenet_v2(224, 1000),
    "mobilenet_v3_small": published_networks.mobilenet_v3_small,
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_networks_are_torchvisions(name: str) -> None:
    """Layer by layer, where torchvision is installed (the extra `zoo`)."""
    models = pytest.importorskip("torchvision.models", reason="needs torchvision")
    torch = pytest.importorskip("torch")
    found: Counter[Any] = Counter()

    def note(module: Any, _: Any, output: Any) -> None:
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            channels, *size = output.shape[1:]
            macs = output.numel() * module.weight[0].numel()
            found[(*(size or [1, 1]), channels), macs] += 1

    network = models.get_model(name).eval()
    for module in network.modules():
        module.register_forward_hook(note)
    with torch.no_grad():
        network(torch.zeros(1, 3, 224, 224))
    assert found == _convolutions(TORCHVISION[name]())
