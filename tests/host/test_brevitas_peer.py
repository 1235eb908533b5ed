"""The same network as a Brevitas model: structure, scales, learning and checkpoints."""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from tutelage.host.networks import create  # noqa: E402
from tutelage.host.peers.brevitas_peer import brevitas_student  # noqa: E402
from tutelage.host.quantise.quantisers import Bits  # noqa: E402
from tutelage.host.quantise.student import Student  # noqa: E402

SHAPE = (1, 28, 28)


@pytest.fixture(scope="module")
def shipped(repo_root: Path) -> tuple[Tensor, Tensor]:
    """The demo's 300 images, (v - 128) / 128 in channels_last, and their labels."""
    folders = sorted((repo_root / "app" / "demo" / "images").iterdir())
    paths = [(path, label) for label, f in enumerate(folders) for path in sorted(f.glob("*.png"))]
    images = np.stack([np.asarray(cv2.imread(str(p), cv2.IMREAD_GRAYSCALE)) for p, _ in paths])
    x = (torch.from_numpy(images).unsqueeze(1).float() - 128) / 128
    labels = torch.tensor([label for _, label in paths])
    return x.contiguous(memory_format=torch.channels_last), labels


def _network(name: str = "densenet-tiny") -> nn.Module:
    torch.manual_seed(0)
    return create(name, in_channels=1)


def _peer(network: nn.Module, bits: int = 4, collect_steps: int = 2) -> Any:
    pytest.importorskip("brevitas", reason="compares with Brevitas, which is not installed")
    return brevitas_student(network, SHAPE, bits, bits, collect_steps=collect_steps)


def _learn(model: nn.Module, images: Tensor, labels: Tensor, steps: int) -> list[float]:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model.train()
    losses = []
    for step in range(steps):
        part = slice(step % 3, None, 3)
        loss = F.cross_entropy(model(images[part]), labels[part])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="module")
def learnt(shipped: tuple[Tensor, Tensor]) -> tuple[Any, list[float]]:
    """A W4A4 densenet-tiny after 60 steps, two of which collect statistics, and its losses."""
    model = _peer(_network())
    losses = _learn(model, *shipped, steps=60)
    return model.eval(), losses


def test_without_brevitas_the_install_command_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "brevitas"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "brevitas", None)
    with pytest.raises(ImportError, match="brevitas is not installed: pip install brevitas"):
        brevitas_student(_network(), SHAPE, 4, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["densenet-tiny", "resnet-8", "mobilenet-small"])
def test_at_8_bits_it_is_nearly_the_float_network(
    name: str, shipped: tuple[Tensor, Tensor]
) -> None:
    images, _ = shipped
    network = _network(name)
    network.train()
    with torch.no_grad():
        for _ in range(20):  # real statistics for the norms
            network(images)
    model = _peer(network, bits=8, collect_steps=1)
    for norm in model.norms.values():
        norm.momentum = 0.0  # the pass below is for the quantisers only
    model.train()
    with torch.no_grad():
        model(images)
        logits, exact = model.eval()(images), network.eval()(images)
    assert logits.shape == (300, 10)
    noise, signal = (logits - exact).square().mean(), exact.var()
    assert noise < 0.05 * signal


def test_scales_are_powers_of_two(learnt: tuple[Any, list[float]]) -> None:
    model, _ = learnt
    scales = [group.act_quant.scale() for group in model.activations.values()]
    scales += [conv.quant_weight().scale for conv in model.convs.values()]
    assert len(scales) == 10 + 11
    for scale in scales:
        assert np.frexp(scale.item())[0] == 0.5
    assert model.activations["input"].act_quant.scale().item() == 1 / 128


def test_bits_and_levels_of_the_weights(learnt: tuple[Any, list[float]]) -> None:
    model, _ = learnt
    names = list(model.convs)
    for name, conv in model.convs.items():
        bits = 8 if name in (names[0], names[-1]) else 4
        weight = conv.quant_weight()
        integers = weight.value / weight.scale
        assert torch.equal(integers, integers.round())
        assert len(integers.unique()) <= 2**bits
        assert integers.abs().max() < 2 ** (bits - 1)
    bias = model.convs["classifier"].quant_bias()
    integers = bias.value / bias.scale
    assert torch.equal(integers, integers.round()) and integers.abs().max() <= 128


def test_activations_take_the_levels_of_our_student(
    learnt: tuple[Any, list[float]], shipped: tuple[Tensor, Tensor]
) -> None:
    model, _ = learnt
    ours = Student(_network(), SHAPE, Bits(weights=4, activations=4))
    seen: dict[str, Tensor] = {}
    hooks = [
        group.register_forward_hook(lambda _m, _a, y, name=name: seen.update({name: y}))
        for name, group in model.activations.items()
    ]
    model(shipped[0])
    for hook in hooks:
        hook.remove()
    quantisers = {q.name: q for q in ours.activation_of.values()}
    assert set(seen) == set(quantisers)
    for name, y in seen.items():
        integers = y / model.activations[name].act_quant.scale()
        assert torch.equal(integers, integers.round())
        assert integers.min() >= quantisers[name].lowest
        assert integers.max() <= quantisers[name].highest


def test_all_that_meets_in_a_concat_shares_one_quantiser(shipped: tuple[Tensor, Tensor]) -> None:
    model = _peer(_network())
    concats = [inputs for name, inputs, _ in model.steps if len(inputs) > 1]
    assert len(concats) == 4
    for inputs in concats:
        assert len({id(model.activations[model.group_of[name]]) for name in inputs}) == 1
    group = model.activations[model.group_of[concats[-1][0]]]
    calls: list[int] = []
    group.register_forward_hook(lambda *_: calls.append(1))
    model(shipped[0])
    assert len(calls) == 3  # the block's input and its two layers
    model(shipped[0])
    counts = {scale.counter / scale.collect_stats_steps for _, scale in model._collectors()}
    assert counts == {1}  # groups of all sizes are processed together


def test_gradients_reach_weights_and_thresholds(
    learnt: tuple[Any, list[float]], shipped: tuple[Tensor, Tensor]
) -> None:
    model = copy.deepcopy(learnt[0]).train()
    images, labels = shipped
    F.cross_entropy(model(images), labels).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_it_learns(learnt: tuple[Any, list[float]]) -> None:
    _, losses = learnt
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 6])
def test_a_resumed_run_is_the_same_run(
    steps: int, shipped: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    """Before, while and after the statistics are collected (4 steps), through a file."""
    safetensors = pytest.importorskip("safetensors.torch", reason="needs safetensors")
    model = _peer(_network(), collect_steps=4)
    _learn(model, *shipped, steps=steps)
    state = model.state_dict()
    assert all(isinstance(value, Tensor) for value in state.values())
    safetensors.save_file(state, tmp_path / "state.safetensors")
    again = _peer(_network(), collect_steps=4)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.add_(1.0)
    own = [id(parameter) for parameter in again.parameters()]
    again.load_state_dict(safetensors.load_file(tmp_path / "state.safetensors"), strict=True)
    assert own == [id(parameter) for parameter in again.parameters()]
    images, _ = shipped
    assert torch.equal(model.eval()(images), again.eval()(images))
    assert _learn(model, *shipped, steps=5) == _learn(again, *shipped, steps=5)
    assert torch.equal(model.eval()(images), again.eval()(images))


def test_a_state_without_statistics_is_refused() -> None:
    model = _peer(_network())
    state = model.state_dict()
    lost = next(key for key in state if key.endswith(".counter"))
    del state[lost]
    with pytest.raises(RuntimeError, match=re.escape(f"lacks {lost}")):
        model.load_state_dict(state)
