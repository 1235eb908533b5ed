"""Weights of trained networks: common files, into presets and users' networks."""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from tutelage.host.networks import create  # noqa: E402
from tutelage.host.train import checkpoint, weights  # noqa: E402
from tutelage.host.train.checkpoint import CheckpointError  # noqa: E402

State = dict[str, Tensor]


def small() -> nn.Module:
    """A network with a backbone and a head, and a norm whose counter older files lack."""
    body = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
    return nn.Sequential(OrderedDict(body=nn.Sequential(*body), head=nn.Sequential(*head)))


def trained(seed: int = 1) -> State:
    torch.manual_seed(seed)
    state = small().state_dict()
    state["body.1.running_mean"].normal_()
    return dict(state)


def other() -> State:
    return {name: value + 1 for name, value in trained().items()}


def with_prefix(prefix: str, state: State | None = None) -> State:
    return {prefix + name: value for name, value in (state or trained()).items()}


def without_counters(state: State) -> State:
    return {name: value for name, value in state.items() if not name.endswith("_tracked")}


def is_loaded(path: Path, **how: Any) -> bool:
    network = small()
    weights.load(network, path, **how)
    found = network.state_dict()
    return all(torch.equal(found[name], value) for name, value in trained().items()
               if not name.endswith("_tracked"))  # fmt: skip


FORMS: dict[str, Callable[[], Any]] = {
    "plain": trained,
    "ordered": lambda: OrderedDict(trained()),
    "state_dict": lambda: {"epoch": 3, "state_dict": trained(), "optimizer": {"state": {0: {}}}},
    "model": lambda: {"model": trained(), "args": argparse.Namespace(lr=0.1), "best": 71.5},
    "model_state": lambda: {"model_state": trained()},
    "model_state_dict": lambda: {"model_state_dict": trained(), "loss": torch.tensor(0.5)},
    "net": lambda: {"net": trained(), "acc": 93.2, "epoch": 3},
    "nested": lambda: {"checkpoint": {"model": {"state_dict": trained()}}},
    "data parallel": lambda: with_prefix("module."),
    "nested data parallel": lambda: {"state_dict": with_prefix("module.")},
    "lightning": lambda: {"state_dict": {**with_prefix("model."), "loss.weight": torch.ones(5)}},
    "compiled": lambda: with_prefix("_orig_mod."),
    "compiled in parallel": lambda: with_prefix("module._orig_mod."),
    "compiled within": lambda: {
        name.replace("body.", "body._orig_mod."): value for name, value in trained().items()
    },
    "without counters": lambda: without_counters(trained()),
    "half": lambda: {name: value.clone() for name, value in trained().items()},
    "own names last": lambda: {"ema": {"decay": 0.9}, "weights": trained()},
}


@pytest.mark.parametrize("form", FORMS)
def test_files_of_torch_save(form: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(FORMS[form](), path)
    assert is_loaded(path)


def test_a_file_from_before_pytorch_1_6(tmp_path: Path) -> None:
    path = tmp_path / "w.pth.tar"
    torch.save({"state_dict": trained()}, path, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(path) and is_loaded(path)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_safetensors(prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(with_prefix(prefix), path)
    assert is_loaded(path)


def test_half_precision(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    torch.save({name: v.half() if v.is_floating_point() else v for name, v in trained().items()},
               path)  # fmt: skip
    network = small()
    weights.load(network, path)
    found = network.state_dict()["body.0.weight"]
    assert found.dtype == torch.float32 and torch.equal(found, trained()["body.0.weight"].half())


def test_our_own_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    optimiser = {"0.momentum": torch.ones(4, 3, 3, 3)}
    parts = {"optimiser.weights": optimiser, "student": trained(), "teacher": other()}
    checkpoint.save(path, parts, {"epoch": 1})
    assert is_loaded(path) and not is_loaded(path, part="teacher")
    with pytest.raises(CheckpointError, match="no part 'ema'; choose from student, teacher"):
        is_loaded(path, part="ema")


class Wrapped(nn.Module):
    """The same network in another module, like a user's wrapper of a library's network."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small()


@pytest.mark.parametrize("prefix", ["", "net.", "module.", "module.net.", "model."])
def test_a_network_within_a_wrapper(prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(with_prefix(prefix), path)
    network = Wrapped()
    weights.load(network, path)
    assert torch.equal(network.net.state_dict()["head.2.bias"], trained()["head.2.bias"])


def test_of_several_that_fit_the_first_is_taken_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "w.pth"
    torch.save({"model": trained(), "model_ema": with_prefix("module.", other())}, path)
    with caplog.at_level(logging.WARNING):
        assert is_loaded(path)
    assert "loading 'model'; 'model_ema.module' would fit as well" in caplog.text
    caplog.clear()
    network = small()
    weights.load(network, path, part="model_ema")
    assert torch.equal(network.state_dict()["head.2.bias"], other()["head.2.bias"])
    assert not caplog.text
    torch.save({**with_prefix("student."), **with_prefix("teacher.", other())}, path)
    assert is_loaded(path) and not is_loaded(path, part="teacher")


def _edited(**changes: Any) -> State:
    state = trained()
    for name, value in changes.items():
        if value is None:
            del state[name.replace("_", ".")]
        else:
            state[name.replace("_", ".")] = value
    return state


@pytest.mark.parametrize(
    "state, words",
    [
        (_edited(head_2_bias=None), "1 of 9 tensors missing (head.2.bias); skip = [\"head.2.\"]"),
        (
            _edited(head_2_weight=torch.ones(7, 4), head_2_bias=torch.ones(7)),
            "2 of another shape (head.2.weight: 7x4 in the file, 5x4 in the network, "
            "head.2.bias: 7 in the file, 5 in the network); skip = [\"head.2.\"] leaves these out",
        ),
        (_edited(aux_weight=torch.ones(3)), "1 unexpected (aux.weight); skip = [\"aux.\"]"),
        (
            {f"layer{i}.weight": torch.ones(2) for i in range(7)},
            "8 of 8 tensors missing (body.0.weight, body.0.bias, body.1.weight, body.1.bias, "
            "body.1.running_mean, and 3 more); 7 unexpected (layer0.weight, layer1.weight, "
            "layer2.weight, layer3.weight, layer4.weight, and 2 more); give the network that was",
        ),
        (with_prefix("backbone.", {"body.0.weight": trained()["body.0.weight"]}), "7 of 8 tensors"),
        ({"log2_t": torch.ones(3), "layers.a.weight": torch.ones(2)}, "of a quantised student"),
        (_edited(head_2_bias=torch.full((5,), torch.nan)), "head.2.bias has values that are not"),
        (
            {name: value.to(torch.int8) for name, value in trained().items()},
            "8 of another type (body.0.weight: int8 in the file, float32 in the network, ",
        ),
        (
            _edited(head_2_bias=torch.ones(5, dtype=torch.complex64)),
            "1 of another type (head.2.bias: complex64 in the file, float32 in the network); "
            "give the weights of the float network, not of a quantised one",
        ),
        ({"a\x1b[2J": torch.ones(1)}, "unexpected (a\\x1b[2J)"),
        ({"epoch": 3}, "has no tensors"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit(state: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(state, path)
    before = small()
    kept = {name: value.clone() for name, value in before.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        weights.load(before, path)
    text = str(caught.value)
    assert words in text and text.startswith(f"{path}: ") and "\n" not in text
    assert all(torch.equal(kept[name], value) for name, value in before.state_dict().items())


def test_a_head_of_another_size_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    state = _edited(head_2_weight=torch.ones(7, 4), head_2_bias=torch.ones(7))
    torch.save(with_prefix("module.", {**state, "aux.0.weight": torch.ones(3)}), path)
    network = small()
    kept = network.state_dict()["head.2.bias"].clone()
    with pytest.raises(CheckpointError, match=r"1 unexpected \(module\.aux"):
        weights.load(network, path, skip=["head."])
    with pytest.raises(CheckpointError, match=r"skip 'hed\.': no tensor's name begins with it"):
        weights.load(network, path, skip=["hed."])
    weights.load(network, path, skip=["head.", "aux."])
    found = network.state_dict()
    assert torch.equal(found["head.2.bias"], kept)
    assert torch.equal(found["body.0.weight"], state["body.0.weight"])


class Evil:
    def __reduce__(self) -> Any:
        return (Path, ("/",))


@pytest.mark.parametrize(
    "saved, words",
    [
        (lambda p: torch.save(small(), p), "torch.nn.modules.container.Sequential"),
        (lambda p: torch.save({"w": trained(), "x": Evil()}, p), "has Python objects (pathlib"),
        (lambda p: p.write_bytes(pickle.dumps(Evil(), 2)), "has Python objects (pathlib"),
        (lambda p: torch.save({"x": bytearray(3)}, p), "bytearray"),
    ],
)
def test_pickles_that_could_run_code(saved: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    saved(path)
    with pytest.raises(CheckpointError) as caught:
        is_loaded(path)
    text = str(caught.value)
    assert words in text and "torch.save(model.state_dict(), FILE)" in text and "\n" not in text


def _compressed(path: Path) -> None:
    torch.save(trained(), path.with_suffix(".0"))
    with (
        zipfile.ZipFile(path.with_suffix(".0")) as plain,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.namelist():
            packed.writestr(entry, plain.read(entry))


def _cut_off(path: Path) -> None:
    save_file(trained(), path)
    path.write_bytes(path.read_bytes()[:-40])


def _exported(path: Path) -> None:
    network = torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),))
    with path.open("wb") as file:
        torch.export.save(network, file)


@pytest.mark.parametrize(
    "saved, words",
    [
        (lambda p: None, "no such file"),
        (lambda p: p.mkdir(), "Is a directory"),
        (os.mkfifo, "not a regular file"),
        (lambda p: p.write_bytes(b""), "not a file of weights"),
        (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1"), "git lfs pull"),
        (lambda p: p.write_bytes(b"\x08\0\0\0\0\0\0\0{" + b"x" * 20), "damaged or truncated; copy"),
        (_cut_off, "damaged or truncated; copy it again"),
        (lambda p: p.write_bytes(pickle.dumps([1, 2, 3], 2)), "damaged"),
        (_compressed, "compressed"),
        (
            lambda p: torch.jit.script(nn.ReLU()).save(p),
            "a TorchScript program, not a table of tensors: save only its tensors, "
            'torch.save(torch.jit.load("w.pth").state_dict(), "weights.pth")',
        ),
        (_exported, 'torch.save(torch.export.load("w.pth").state_dict, "weights.pth")'),
        (lambda p: np.savez(p.open("wb"), a=np.ones(2)), "a zip file, but not of torch.save"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_files_of_another_kind(saved: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    saved(path)
    with pytest.raises(CheckpointError) as caught:
        is_loaded(path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@settings(max_examples=40)
@given(data=st.data())
def test_damaged_files_are_refused_or_read(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / "w.pth"
    torch.save({"state_dict": trained()}, path,
               _use_new_zipfile_serialization=data.draw(st.booleans()))  # fmt: skip
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        weights.load(small(), path)
    except CheckpointError as error:
        assert "\n" not in str(error)


def test_an_old_file_whose_list_of_storages_is_damaged(tmp_path: Path) -> None:
    """PyTorch's reader fails with an AssertionError then."""
    path = tmp_path / "w.pth"
    torch.save(trained(), path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    # The keys of the storages are numbers as text; the list of them comes last.
    (key, *_) = re.findall(rb"X.\0\0\0(\d{6,})", content)
    place = content.rindex(key)
    path.write_bytes(content[:place] + b"x" + content[place + 1 :])
    with pytest.raises(CheckpointError, match="damaged"):
        weights.load(small(), path)


def test_every_preset_takes_its_own(tmp_path: Path) -> None:
    for name in ("densenet-tiny", "resnet-8", "mobilenet-small"):
        network, again = create(name), create(name)
        torch.save({"state_dict": with_prefix("module.", dict(network.state_dict()))},
                   tmp_path / "w.pth")  # fmt: skip
        weights.load(again, tmp_path / "w.pth")
        for key, value in network.state_dict().items():
            assert torch.equal(again.state_dict()[key], value)


def test_files_of_the_shared_cases(shared_dir: Path) -> None:
    folder = shared_dir / "cases" / "02_own_weights"
    if not (folder / "w.pth").is_file():
        pytest.skip("needs ../shared/cases/02_own_weights")
    with pytest.raises(CheckpointError, match="not the weights of this network"):
        is_loaded(folder / "w.pth")
