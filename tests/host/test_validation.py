"""Held-out images, class weights, the best epoch, and the results by class."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")
pytest.importorskip("accelerate", reason="host/ needs accelerate, which is not installed")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from tutelage.__main__ import main  # noqa: E402
from tutelage.core.results.typed_json import ResultsError  # noqa: E402
from tutelage.core.toml_file import to_toml  # noqa: E402
from tutelage.host.networks import create  # noqa: E402
from tutelage.host.train import checkpoint  # noqa: E402
from tutelage.host.train.class_weights import class_weights  # noqa: E402
from tutelage.host.train.config import ConfigError, Training, make_config  # noqa: E402
from tutelage.host.train.data import DataError, DataSet, load  # noqa: E402
from tutelage.host.train.data.splits import is_held_out, is_in_split  # noqa: E402
from tutelage.host.train.evaluation import Evaluation, accuracy, evaluate  # noqa: E402
from tutelage.host.train.loop import STUDENT, TrainingRun, train  # noqa: E402
from tutelage.host.train.methods import SELF_STUDYING, phase_losses  # noqa: E402
from tutelage.host.train.progress import Silent, Terminal  # noqa: E402
from tutelage.host.train.results import (  # noqa: E402
    RESULTS,
    RunResults,
    class_results,
    read_run_results,
)
from tutelage.host.train.run_data import load_data, run_data  # noqa: E402
from tutelage.host.train.students import make_network  # noqa: E402

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=60).map(lambda v: np.array(v, np.int64))


# -- held-out images ---------------------------------------------------------------------------


@given(labels=LABELS, share=st.floats(0.01, 0.99), seed=st.integers(0, 2**40))
def test_of_each_class_its_share_is_held_out(labels: np.ndarray, share: float, seed: int) -> None:
    held = is_held_out(labels, share, seed)
    for label, count in Counter(labels.tolist()).items():
        found = int(held[labels == label].sum())
        assert found == min(max(1, round(share * count)), count - 1)
    assert np.array_equal(held, is_held_out(labels, share, seed))


def test_another_seed_holds_out_other_images() -> None:
    labels = np.arange(400) % 4
    one, other = is_held_out(labels, 0.25, 1), is_held_out(labels, 0.25, 2)
    assert one.sum() == other.sum() == 100 and 10 < (one & other).sum() < 50


@given(LABELS)
def test_without_a_test_split_every_fifth_image_of_a_class_is_the_tests(labels: np.ndarray) -> None:
    test = is_in_split(labels, "test")
    assert np.array_equal(is_in_split(labels, "train"), ~test)
    has_five = np.bincount(labels).max() >= 5
    for label in set(labels.tolist()):
        chosen = test[labels == label]
        few = [len(chosen) - 1] if len(chosen) > 1 else []  # where no class has five
        wanted = list(range(4, len(chosen), 5)) if has_five else few
        assert chosen.nonzero()[0].tolist() == wanted


def _table(repo_root: Path, **tables: Any) -> dict[str, Any]:
    return {
        "method": "float",
        "student": {"network": "densenet-tiny"},
        "data": {"kind": "folder", "path": str(repo_root / "app/demo/images"), "size": 16,
                 **tables.get("data", {})},
        "training": {"epochs": 3, "batch_size": 36, "lr": 0.1, **tables.get("training", {})},
    }  # fmt: skip


def test_a_share_of_the_training_images(repo_root: Path) -> None:
    config = make_config(_table(repo_root, data={"validation": 0.25}))
    sets, (whole, test) = run_data(config), load_data(config)
    assert sets.validation is not None and list(sets.test.files) == list(test.files)
    assert torch.bincount(sets.validation.labels).tolist() == [6] * 10
    assert len(sets.train) == 180
    learnt, held = set(sets.train.files), set(sets.validation.files)
    assert not learnt & held and learnt | held == set(whole.files)
    for data in (sets.train, sets.validation):
        row = dict(zip(whole.files, range(len(whole)), strict=True))
        rows = torch.tensor([row[path] for path in data.files])
        assert torch.equal(data.images, whole.images[rows])


def test_the_same_images_are_held_out_of_runs_of_other_seeds(repo_root: Path) -> None:
    def held_out(seed: int, **data: Any) -> list[Path]:
        table = _table(repo_root, data={"validation": 0.25, **data})
        sets = run_data(make_config({**table, "seed": seed}))
        assert sets.validation is not None and len(sets.validation) == 60
        return list(sets.validation.files)

    assert held_out(1, validation_seed=7) == held_out(2, validation_seed=7)
    assert held_out(1) == held_out(2, validation_seed=1) != held_out(2)
    with pytest.raises(ConfigError, match="validation_seed is -2; it must be -1 or more"):
        held_out(0, validation_seed=-2)


def test_untrained_runs_are_judged_by_them_too(repo_root: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    network = create("densenet-tiny")
    checkpoint.save(weights, {"student": network.state_dict()}, {})
    table = _table(repo_root, data={"validation": 0.25}, training={"epochs": 0})
    table["student"]["weights"] = str(weights)
    config = make_config(table)
    held_out = run_data(config).validation
    assert held_out is not None
    found = train(config, tmp_path).results.validation_accuracy
    assert found == accuracy(network, held_out)


def test_a_directory_of_its_own(repo_root: Path, tmp_path: Path) -> None:
    (tmp_path / "Coat").mkdir()
    for path in sorted((repo_root / "app/demo/images/Coat").iterdir())[:3]:
        (tmp_path / "Coat" / path.name).write_bytes(path.read_bytes())
    config = make_config(_table(repo_root, data={"validation": str(tmp_path)}))
    sets = run_data(config)
    assert sets.validation is not None and sets.validation.labels.tolist() == [2] * 3
    assert sets.validation.classes == sets.train.classes and sets.validation.shape == (3, 16, 16)
    assert len(sets.train) == 240
    (tmp_path / "Hat").mkdir()
    with pytest.raises(DataError, match=r"Hat: .* has no class 'Hat'"):
        run_data(config)


def test_invalid_validation_splits(repo_root: Path, tmp_path: Path) -> None:
    for wrong, words in ((1.0, "validation is 1"), (-0.1, "validation is -0.1")):
        with pytest.raises(ConfigError, match=words):
            make_config(_table(repo_root, data={"validation": wrong}))
    with pytest.raises(ConfigError, match=r"data: validation must be a number or a string"):
        make_config(_table(repo_root, data={"validation": [1]}))
    with pytest.raises(ConfigError, match=r'keep = "best" needs \[data\] validation'):
        make_config(_table(repo_root, training={"keep": "best"}))
    with pytest.raises(DataError, match="nowhere: no such directory"):
        run_data(make_config(_table(repo_root, data={"validation": str(tmp_path / "nowhere")})))
    one = DataSet(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.arange(2), ("a", "b"))
    config = make_config(_table(repo_root, data={"validation": 0.5}))
    with pytest.raises(DataError, match=r"validation = 0\.5 needs"):
        run_data(config, (one, one))
    idx = _table(repo_root, data={"kind": "idx", "validation": "held", "size": 4})
    with pytest.raises(DataError, match="idx takes no directory for validation"):
        run_data(make_config(idx), (one, one))


# -- the run -----------------------------------------------------------------------------------


def test_the_test_set_is_met_once_at_the_end(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(_table(repo_root, data={"validation": 0.2}))
    run = TrainingRun(config, tmp_path, None, Silent())
    tests = []
    evaluated = run.feed.evaluate

    def noted(network: nn.Module) -> Evaluation:
        tests.append(run.epoch)
        return evaluated(network)

    monkeypatch.setattr(run.feed, "evaluate", noted)
    run.go()
    assert tests == []
    result = run.finish(0.0)
    assert tests == [3]
    assert all("accuracy" not in row and "validation_accuracy" in row for row in result.history)
    assert (tmp_path / "log.csv").read_text().splitlines()[0].endswith(",validation_accuracy")
    parts, state = checkpoint.load(tmp_path / STUDENT)
    network = make_network(config.student, run.sets.test)
    network.load_state_dict(parts["student"])
    assert state["accuracy"] == result.accuracy == accuracy(network, run.sets.test)
    assert run.sets.validation is not None
    last = result.history[-1]["validation_accuracy"]
    assert result.results.validation_accuracy == last == accuracy(network, run.sets.validation)
    assert result.results.kept_epoch == result.results.epochs == 3


def test_the_best_epoch_is_kept_also_after_a_kill(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {"data": {"validation": 0.2}, "training": {"keep": "best", "epochs": 4}}
    config = make_config(_table(repo_root, **tables))
    seen: dict[int, dict[str, Any]] = {}
    judged = iter([20.0, 40.0, 40.0, 30.0] * 2)  # the first of equal ones
    real = TrainingRun._evaluate

    def remember(run: TrainingRun) -> dict[str, Any]:
        found = real(run)
        assert found.keys() == {"validation_accuracy"}
        seen[run.epoch + 1] = {k: v.clone() for k, v in run._bare_student.state_dict().items()}
        return {"validation_accuracy": next(judged)}

    monkeypatch.setattr(TrainingRun, "_evaluate", remember)
    result = train(config, tmp_path / "whole")
    assert (result.results.kept_epoch, result.results.validation_accuracy) == (2, 40.0)
    kept = checkpoint.load(tmp_path / "whole" / STUDENT)[0]["student"]
    assert all(torch.equal(kept[name], seen[2][name]) for name in kept)
    assert not all(torch.equal(kept[name], seen[4][name]) for name in kept)

    run = TrainingRun(config, tmp_path / "halves", None, Silent())
    saved = run.files.save

    def killed(epoch: int, history: list[dict[str, Any]]) -> None:
        saved(epoch, history)
        if epoch == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(run.files, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run.go()
    again = train(config, tmp_path / "halves", resume=True)
    assert again.results == result.results
    other = checkpoint.load(tmp_path / "halves" / STUDENT)[0]["student"]
    assert all(torch.equal(kept[name], other[name]) for name in kept)


def test_a_teacher_that_learns_is_judged_by_validation_too(repo_root: Path, tmp_path: Path) -> None:
    table = _table(repo_root, data={"validation": 0.2}, training={"epochs": 1})
    train(make_config(table), tmp_path / "float")
    start = {"network": "densenet-tiny", "weights": str(tmp_path / "float" / STUDENT)}
    table |= {"method": "qkd", "student": start, "teacher": start}
    table["training"] = {**table["training"], "epochs": 3, "keep": "best"}
    result = train(make_config(table), tmp_path / "qkd")
    rows = result.history
    assert [("validation_teacher_accuracy" in row) for row in rows] == [False, True, False]
    network = make_network(make_config(table).student, load_data(make_config(table))[1])
    checkpoint.load_weights(network, tmp_path / "qkd" / "teacher.safetensors")
    assert result.teacher_accuracy == accuracy(network, load_data(make_config(table))[1])
    assert result.results.teacher_accuracy == result.teacher_accuracy


# -- class weights -----------------------------------------------------------------------------


def _labelled(*counts: int) -> DataSet:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    images = torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8)
    return DataSet(images, labels, tuple("abcdef"[: len(counts)]))


def test_balanced_classes_count_the_same() -> None:
    data = _labelled(6, 3, 1)
    weights = class_weights(Training(class_weights="balanced"), data)
    assert weights is not None
    torch.testing.assert_close(weights, torch.tensor([10 / 18, 10 / 9, 10 / 3]))
    sums = weights * torch.tensor([6.0, 3, 1])
    torch.testing.assert_close(sums, sums.mean().expand(3))
    torch.testing.assert_close(weights[data.labels].mean(), torch.tensor(1.0))
    assert class_weights(Training(), data) is None


@given(st.lists(st.floats(0.1, 10), min_size=3, max_size=3), st.floats(0.1, 10))
def test_given_weights_keep_their_ratios_whatever_their_size(
    given_weights: list[float], factor: float
) -> None:
    data = _labelled(6, 3, 1)
    one = class_weights(Training(class_weights=given_weights), data)
    other = class_weights(Training(class_weights=[factor * w for w in given_weights]), data)
    assert one is not None and other is not None
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(one / one[0], torch.tensor(given_weights) / given_weights[0])
    torch.testing.assert_close(one[data.labels].mean(), torch.tensor(1.0))


def test_weights_in_the_loss_by_slices_too() -> None:
    logits, labels = torch.randn(8, 3), torch.tensor([0, 0, 1, 2, 0, 1, 0, 0])
    weights = torch.tensor([0.5, 2.0, 3.0])
    loss, _ = phase_losses(SELF_STUDYING, logits, None, labels, 4.0, 0.0, weights)
    each = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(loss, (weights[labels] * each).mean())
    halves = [
        phase_losses(SELF_STUDYING, logits[part], None, labels[part], 4.0, 0.0, weights)[0]
        for part in (slice(0, 4), slice(4, 8))
    ]
    torch.testing.assert_close(loss, torch.stack(halves).mean())
    soft, _ = phase_losses(
        SELF_STUDYING, logits, None, F.one_hot(labels, 3).float(), 4.0, 0.0, weights
    )
    torch.testing.assert_close(loss, soft)


def test_weights_that_do_not_fit(repo_root: Path, tmp_path: Path) -> None:
    for wrong, words in (
        ("even", "class_weights 'even' is neither \"balanced\" nor a list"),
        ([1.0, 0.0], "must be positive"),
        ([float("nan")], "must be a finite number"),
        (["a"], "class_weights must be a number"),
        (2.0, "class_weights must be a string or a list"),
    ):
        with pytest.raises(ConfigError, match=words):
            make_config(_table(repo_root, training={"class_weights": wrong}))
    config = make_config(_table(repo_root, training={"class_weights": [1, 2]}))
    with pytest.raises(ConfigError, match="2 weights for 10 classes"):
        train(config, tmp_path)


def test_class_weights_change_the_result(repo_root: Path, tmp_path: Path) -> None:
    weights = [1e-6] * 10
    weights[3] = 1.0
    config = make_config(_table(repo_root, training={"class_weights": weights}))
    results = train(config, tmp_path).results
    assert results.classes[3].accuracy == 100 and results.accuracy == 10


# -- results -----------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=50))
def test_results_by_class_are_the_confusion_matrix(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = (torch.tensor(values) for values in zip(*pairs, strict=True))
    found = Evaluation(labels, predicted, torch.arange(len(labels)))
    rows = class_results(("crane", "dog", "crane", "ant"), found)
    results = RunResults("float", 1, 1, len(found), found.accuracy, None, None, None, rows)
    matrix = np.zeros((4, 4), int)
    np.add.at(matrix, (labels.numpy(), predicted.numpy()), 1)
    np.testing.assert_array_equal(results.confusion(), matrix)
    assert [row.name for row in rows] == ["crane (0)", "dog", "crane (2)", "ant"]
    assert [row.images for row in rows] == matrix.sum(1).tolist()
    assert [row.correct for row in rows] == matrix.diagonal().tolist()
    for row in rows:
        counts = list(row.predicted.values())
        assert counts == sorted(counts, reverse=True) and 0 not in counts
        assert (row.accuracy is None) == (row.images == 0)
    assert (results.worst_line() == "") == (found.accuracy == 100)


def test_the_worst_classes_in_a_line() -> None:
    labels = torch.tensor([0] * 4 + [1] * 4 + [2] * 4 + [3] * 2)
    predicted = torch.tensor([0, 0, 0, 1] + [2, 2, 3, 1] + [2] * 4 + [0, 0])
    found = Evaluation(labels, predicted, torch.arange(14))
    rows = class_results(("a", "b", "c", "d\x1b"), found)
    line = RunResults("float", 1, 1, 14, 0.0, None, None, None, rows).worst_line()
    assert line == (
        "d\\x1b 0.0 % (2 of 2 taken for a), b 25.0 % (2 of 4 taken for c), "
        "a 75.0 % (1 of 4 taken for b)"
    )


@pytest.mark.parametrize("classes", [10, 11])
def test_top_5_where_there_are_many_classes(classes: int) -> None:
    logits = torch.randn(30, classes, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % classes
    images = torch.arange(30, dtype=torch.uint8).view(30, 1, 1, 1)
    data = DataSet(images, labels, tuple(map(str, range(classes))))

    class Fixed(nn.Module):
        def forward(self, x: Any) -> Any:
            return logits[(x.flatten() * 128 + 128).long()]

    found = evaluate(Fixed(), data)
    assert found.accuracy == round(100 * float((logits.argmax(1) == labels).float().mean()), 4)
    ranks = (logits > logits[range(30), labels][:, None]).sum(1)
    wanted = round(100 * float((ranks < 5).double().mean()), 4)
    assert found.top5_accuracy == (wanted if classes == 11 else None)


def test_a_run_writes_and_prints_its_results(
    repo_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = _table(repo_root, data={"validation": 0.2}, training={"epochs": 2})
    (tmp_path / "run.toml").write_text(to_toml(table))
    assert main(["train", str(tmp_path / "run.toml"), "--output", str(tmp_path / "a")]) == 0
    out = capsys.readouterr().out
    results = read_run_results(tmp_path / "a")
    assert "epoch 2/2" in out and "  validation " in out and "  test " not in out
    assert f"float: {results.accuracy:.2f} % of the test set, in {tmp_path / 'a'}" in out
    assert "  weights of epoch 2 of 2: " in out and " % of the validation images" in out
    assert f"  worst classes: {results.worst_line()}; all in results.json" in out
    assert sum(one.images for one in results.classes) == results.images == 60
    assert results.confusion().sum() == 60

    command = ["train", str(tmp_path / "run.toml"), "--output", str(tmp_path / "b"), "--json"]
    assert main(command) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["output"] == str(tmp_path / "b") and printed["seconds"] > 0
    written = json.loads((tmp_path / "b" / RESULTS).read_text())
    assert {key: printed[key] for key in written} == written == results.table()
    assert [one["name"] for one in printed["classes"]] == [one.name for one in results.classes]


def test_results_that_are_none(tmp_path: Path) -> None:
    for content in ("", "[]", '{"method": "float"}', '{"classes": 3}'):
        (tmp_path / RESULTS).write_text(content)
        with pytest.raises(ResultsError, match=r"results\.json: not the results of a training"):
            read_run_results(tmp_path)


def test_the_terminal_says_whose_accuracy_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    terminal.begin("float", 2, 0)
    row = {"epoch": 1, "phase": "float", "loss": 1.0, "train_accuracy": 5.0, "images_per_second": 9}
    terminal.epoch({**row, "validation_accuracy": 50.0, "validation_teacher_accuracy": 60.0})
    terminal.epoch({**row, "accuracy": 70.0, "teacher_accuracy": 80.0})
    terminal.end()
    first, second = capsys.readouterr().out.strip().splitlines()
    assert "validation 50.00 %  teacher 60.00 %" in first
    assert "test 70.00 %  teacher 80.00 %" in second


def test_older_runs_still_load(repo_root: Path) -> None:
    """A configuration without the keys of later versions."""
    data = load("folder", repo_root / "app/demo/images", "test")
    config = make_config({"method": "float", "student": {"network": "densenet-tiny"}})
    assert run_data(config, (data, data)).validation is None
    assert config.training.keep == "last" and config.augmentation.mixup == 0
