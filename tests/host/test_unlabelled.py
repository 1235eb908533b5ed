"""Images without labels: a trained network is quantised with them, and compared with itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")
pytest.importorskip("accelerate", reason="host/ needs accelerate, which is not installed")

from tutelage.__main__ import main  # noqa: E402
from tutelage.core.model_package import read_description  # noqa: E402
from tutelage.host.export.model_directory import export  # noqa: E402
from tutelage.host.networks import create  # noqa: E402
from tutelage.host.train.config import ConfigError, make_config  # noqa: E402
from tutelage.host.train.data import DataError, load  # noqa: E402
from tutelage.host.train.loop import load_data, train  # noqa: E402
from tutelage.host.train.results import read_run_results  # noqa: E402


@pytest.fixture(scope="module")
def photos(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 images in a folder and its sub-folder, and another file."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for number, path in enumerate(sorted((repo_root / "app/demo/images").rglob("*.png"))[::13]):
        shutil.copy(path, folder / ("more" if number % 3 else ".") / f"{number:03}.png")
    (folder / "notes.md").write_text("nothing")
    return folder


def test_every_fifth_is_for_the_test(photos: Path, tmp_path: Path) -> None:
    first, test = (load("images", photos, split) for split in ("train", "test"))
    count = len(list(photos.rglob("*.png")))
    assert (len(first), len(test)) == (count - count // 5, count // 5)
    assert not {*first.files} & {*test.files} and not first.is_labelled and not test.is_labelled
    assert first.classes == () and first.shape == (3, 28, 28)
    for path in sorted(photos.rglob("*.png"))[:3]:
        shutil.copy(path, tmp_path)
    assert len(load("images", tmp_path, "train")) == len(load("images", tmp_path, "test")) == 3


def test_folders_of_the_splits(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "train")
    shutil.copytree(photos / "more", tmp_path / "val")
    first, test = (load("images", tmp_path, split) for split in ("train", "test"))
    assert len(first) == len(list(photos.rglob("*.png")))
    assert len(test) == len(list((photos / "more").iterdir()))


def _run(photos: Path, tmp_path: Path, **tables: Any) -> Any:
    torch.manual_seed(3)
    weights = tmp_path / "w.pth"
    torch.save(create("densenet-tiny", num_classes=7).state_dict(), weights)
    student = {
        "network": "densenet-tiny", "options": {"num_classes": 7}, "weights": str(weights)
    }  # fmt: skip
    data = {"kind": "images", "path": str(photos)}
    return make_config({"method": "ptq", "data": data, "student": student, **tables})


def test_images_that_cannot_be_read_get_no_label(photos: Path, tmp_path: Path) -> None:
    """On a disk they are found only when they are read; the others keep their own labels."""
    shutil.copytree(photos, tmp_path / "photos")
    whole = load("images", tmp_path / "photos", "test")
    broken = whole.files[1]
    broken.write_bytes(b"no picture")
    data = {"kind": "images", "path": str(tmp_path / "photos"), "in_memory_mib": 0}
    _, test = load_data(_run(photos, tmp_path, data=data))
    assert test.is_streamed and [*test.files] == [file for file in whole.files if file != broken]
    network = create("densenet-tiny", num_classes=7).eval()
    network.load_state_dict(torch.load(tmp_path / "w.pth", weights_only=True))
    assert torch.equal(test.labels, network(test.inputs()).argmax(1))


def test_the_network_gives_the_labels(photos: Path, tmp_path: Path) -> None:
    config = _run(photos, tmp_path)
    _, test = load_data(config)
    network = create("densenet-tiny", num_classes=7).eval()
    network.load_state_dict(torch.load(tmp_path / "w.pth", weights_only=True))
    assert torch.equal(test.labels, network(test.inputs()).argmax(1))
    assert test.classes == tuple("0123456") and test.is_labelled
    result = train(config, tmp_path / "run")
    assert result.accuracy > 50  # of agreement
    assert read_run_results(tmp_path / "run").labels == "float network"
    figures = export(tmp_path / "run", tmp_path / "model")
    assert figures["logits_equal"] and figures["agreement_compared"] == result.accuracy
    assert not {"accuracy", "accuracy_compared"} & {*figures}
    description = read_description(tmp_path / "model/model.toml")
    assert description.labels == test.classes
    assert description.provenance["agreement"] == result.accuracy
    assert "accuracy" not in description.provenance


def test_three_commands(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Make a model for the board from a network in a file, its .pth, and a few pictures."""
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef Net():\n    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), "
        "nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))\n"
    )
    torch.manual_seed(5)
    torch.save(create(f"{tmp_path / 'net.py'}:Net"), tmp_path / "whole.pth")
    torch.save(create(f"{tmp_path / 'net.py'}:Net").state_dict(), tmp_path / "net.pth")
    run = tmp_path / "ptq.toml"
    run.write_text(
        f'method = "ptq"\n[data]\nkind = "images"\npath = "{photos}"\nsize = 32\n[student]\n'
        f'network = "{tmp_path / "net.py"}:Net"\nweights = "{tmp_path / "net.pth"}"\n'
    )
    assert main(["train", str(run), "--output", str(tmp_path / "r")]) == 0
    assert "% of the test images have the float network's class, in" in capsys.readouterr().out
    export_run = ["export", str(tmp_path / "r"), "-o", str(tmp_path / "m")]
    assert main([*export_run, "--network", f"{tmp_path / 'net.py'}:Net"]) == 0
    text = capsys.readouterr().out
    assert "  the float network's class for 1" in text and "accuracy" not in text
    assert main(["compile", str(tmp_path / "m")]) == 0
    assert "one DPU subgraph" in capsys.readouterr().out
    changed = ["--set", f"student.weights={tmp_path / 'whole.pth'}"]
    assert main(["train", str(run), "--output", str(tmp_path / "s"), *changed]) == 2
    error = capsys.readouterr().err
    assert "has Python objects (torch.nn" in error and error.count("\n") == 1


def test_training_without_labels(photos: Path, tmp_path: Path) -> None:
    training = {"epochs": 1, "batch_size": 6}
    teacher = {"network": "densenet-tiny", "options": {"num_classes": 7},
               "weights": str(tmp_path / "w.pth")}  # fmt: skip
    config = _run(photos, tmp_path, method="sqakd", teacher=teacher, training=training)
    first, _ = load_data(config)
    assert first.is_labelled and len(train(config, tmp_path / "run").history) == 1
    with pytest.raises(ConfigError, match="kind 'images' has no labels, which method float needs"):
        load_data(_run(photos, tmp_path, method="float"))


def test_without_training_no_labels_are_used(photos: Path, tmp_path: Path) -> None:
    tables = {"training": {"class_weights": "balanced"}, "quantisation": {"rounding": "nearest"}}
    assert train(_run(photos, tmp_path, **tables), tmp_path / "run").history == []
    data = {"kind": "images", "path": str(photos), "validation": 0.1}
    config = _run(photos, tmp_path, **tables, data=data)
    with pytest.raises(DataError, match=r"\[data\] validation needs labels, or a method that"):
        train(config, tmp_path / "run")


def test_names_of_the_classes(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "named"
    shutil.copytree(photos, folder)
    names = ["Hund", "Katze", "Maus", "d", "e", "f", "g"]
    (folder / "classes.txt").write_text("\n".join(names) + "\n")
    _, test = load_data(_run(folder, tmp_path))
    assert test.classes == tuple(names)
    (folder / "classes.txt").write_text("one\n\nthree\n")
    with pytest.raises(DataError, match=r"classes\.txt: line 2 is empty"):
        load("images", folder, "train")
    (folder / "classes.txt").write_text("one\n")
    with pytest.raises(
        ValueError, match="returns 7 values for an image, but the data has 1 classes"
    ):
        load_data(_run(folder, tmp_path))


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such directory"):
        load("images", tmp_path / "none", "train")
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"has no images .*; skipped 1 file: 1 \.heic"):
        load("images", tmp_path, "train")
