"""The study: its cells, its continuation after a stop, and its files."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")
pytest.importorskip("accelerate", reason="host/ needs accelerate, which is not installed")

from tutelage.__main__ import main
from tutelage.core.toml_file import to_toml
from tutelage.host.networks import create
from tutelage.host.train import study as studies
from tutelage.host.train import study_queue
from tutelage.host.train.config import ConfigError, Quantisation, Training, read_toml
from tutelage.host.train.study_judge import read_judge
from tutelage.host.train.study_results import differences, figure, markdown
from tutelage.host.train.study_time import seconds_left
from tutelage.host.train.training_process import TrainingProcesses


def _spec(folder: Path) -> dict[str, Any]:
    return {
        "methods": ["ptq", "qat", "sqakd"],
        "bits": [[8, 8], [3, 3]],
        "seeds": [0],
        "data": {"kind": "folder", "path": str(folder)},
        "teacher_data": {"kind": "folder", "path": str(folder)},
        "augmentation": {},
        "float_augmentation": {"flip": True},
        "float_teacher": {"epochs": 1, "batch_size": 60, "lr": 0.05},
        "float_student": {"epochs": 1, "batch_size": 60, "lr": 0.05},
        "training": {"epochs": 1, "batch_size": 60},
        "student": {"network": "densenet-tiny"},
        "teachers": {"same": {"network": "densenet-tiny"}},
    }


@pytest.fixture
def spec(repo_root: Path, tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(to_toml(_spec(repo_root / "app" / "demo" / "images")))
    return path


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "study.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_studys_own_cells() -> None:
    study = studies.Study(read_toml(studies.DEFAULT), Path("results"))
    names = [cell.name for cell in study.cells]
    assert len(names) == len(set(names))
    assert "qkd-w3a3-s2" in names and "brevitas-w4a4-s0" in names
    by_name = {cell.name: cell for cell in study.cells}
    sqakd = by_name["sqakd-w3a3-s1"].config
    assert sqakd["teacher"]["weights"] == sqakd["student"]["weights"]
    qkd = by_name["qkd-w4a4-s1"]
    assert set(qkd.needs) == {"float-student-s1", "float-teacher-k16"}
    ablated = by_name["qkd-without-co-studying-w3a3-s0"].config
    assert [phase["name"] for phase in ablated["phases"]] == ["self-studying", "tutoring"]


def test_a_study_without_teachers(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    del spec["teachers"], spec["float_teacher"]
    names = [cell.name for cell in studies.Study(spec, tmp_path).cells]
    assert names[0] == "float-student-s0" and "sqakd-w3a3-s0" in names
    spec["methods"] = ["qat+kd"]
    with pytest.raises(ValueError, match=r"'qat\+kd' needs a teacher"):
        studies.Study(spec, tmp_path)


CIFAR = studies.DEFAULT.with_name("cifar10_study.toml")


def test_the_cells_of_cifar10() -> None:
    study = studies.read_study(CIFAR, Path("results"))
    names = [cell.name for cell in study.cells]
    assert len(names) == len(set(names)) and names[:2] == ["float-teacher-k16", "float-student-s0"]
    # Seed by seed, so that a partial study is a study with fewer seeds.
    assert names.index("qkd-without-tutoring-w2a2-s0") < names.index("float-student-s1")
    assert {cell.config["training"]["epochs"] for cell in study.cells if cell.needs} == {10, 30}
    for cell in study.cells:  # nothing is learnt from what others are judged by
        assert cell.config["data"] == study.spec["data"] and cell.config["data"]["validation"]
    by_name = {cell.name: cell for cell in study.cells}
    needs = by_name["qat+kd-teacher-k8-w3a3-s0"].needs
    assert needs == ("float-student-s0", "float-teacher-k8")
    same = (by_name[name].config["student"] for name in ("float-teacher-k8", "float-student-s0"))
    assert next(same) == next(same)
    assert by_name["qat+kd-from-wider-w4a4-s0"].needs[0] == "qat+kd-w8a8-s0"
    assert by_name["qat+kd-from-wider-w2a2-s0"].needs[0] == "qat+kd-from-wider-w3a3-s0"
    phases = {c.name: [p["name"] for p in c.config.get("phases", [])] for c in study.cells}
    assert phases["qkd-without-self-studying-w2a2-s1"] == ["co-studying", "tutoring"]
    assert phases["qkd-without-tutoring-w2a2-s1"] == ["self-studying", "co-studying"]


FLAGSHIP = studies.DEFAULT.parent.with_name("densenetx.toml")


def _cifar10(folder: Path, images: int) -> Path:
    """Write an archive of CIFAR-10's form: records of a label and 3x32x32 bytes, made up."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for name in [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]:
        records = rng.integers(0, 256, (images, 1 + 3 * 32 * 32), dtype=np.uint8)
        records[:, 0] = np.arange(images) % 10
        records.tofile(folder / name)
    return folder


@pytest.mark.slow
def test_the_flagship_takes_a_few_steps(tmp_path: Path) -> None:
    """Its networks, methods and options, with few images and without a compiler."""
    spec = read_toml(FLAGSHIP)
    spec["data"] |= {"path": str(_cifar10(tmp_path / "cifar10", 4)), "validation": 0.2}
    for name, epochs in (("float_teacher", 1), ("float_student", 1), ("training", 3)):
        spec[name] |= {"epochs": epochs, "batch_size": 8, "compile": False}  # QKD has 3 phases
    spec |= {"methods": ["qkd"], "bits": [[4, 4]]}
    assert spec["training"]["mixed_precision"] == "bf16"
    (tmp_path / "study.toml").write_text(to_toml(spec))
    out = tmp_path / "results"
    assert main(["study", str(tmp_path / "study.toml"), "--output", str(out), "--jobs", "2"]) == 0
    assert [row["cell"] for row in _rows(out)] == [
        "float-teacher-k20", "float-student-s0", "qkd-w4a4-s0",
    ]  # fmt: skip


def test_the_flagship_for_two_cores_has_its_blocks() -> None:
    study = studies.read_study(FLAGSHIP.with_name("densenetx_cpu.toml"), Path("results"))
    assert [cell.name for cell in study.cells] == ["float-student-s0", "qat-w8a8-s0", "qat-w4a4-s0"]
    flagship, own = (create("densenetx", **options) for options in ({}, {"stem": "stride2"}))
    assert study.spec["student"]["options"] == {"stem": "stride2"}
    shapes = ([(name, p.shape) for name, p in net.named_parameters()] for net in (flagship, own))
    assert next(shapes) == next(shapes)


def test_the_cells_of_the_flagship() -> None:
    study = studies.read_study(FLAGSHIP, Path("results"))
    assert [cell.name for cell in study.cells] == [
        "float-teacher-k20", "float-student-s0", "qat-w8a8-s0", "qkd-w8a8-s0", "qat-w4a4-s0",
        "qkd-w4a4-s0",
    ]  # fmt: skip


def test_an_option_at_its_default_changes_no_cell(spec: Path, tmp_path: Path) -> None:
    """This allows new options in the program without repeating a study."""
    table = read_toml(spec)
    before = [cell.settings for cell in studies.Study(table, tmp_path).cells]
    table["training"] |= {"temperature": 4.0}
    table["data"] |= {"validation_seed": -1, "mean": []}
    assert [cell.settings for cell in studies.Study(table, tmp_path).cells] == before
    table["training"] |= {"temperature": 5.0}
    changed = [cell.settings for cell in studies.Study(table, tmp_path).cells]
    assert changed[:2] == before[:2] and not set(changed[2:]) & set(before)


def test_a_cell_changes_with_the_cells_that_it_starts_from(spec: Path, tmp_path: Path) -> None:
    table = read_toml(spec)
    table["methods"] = ["qat", "qat+kd"]
    table["variants"] = {"chain": {"method": "qat", "start": "chain"}}
    before = {cell.name: cell.settings for cell in studies.Study(table, tmp_path).cells}

    def changed() -> set[str]:
        cells = studies.Study(table, tmp_path).cells
        return {cell.name for cell in cells if cell.settings != before[cell.name]}

    table["at"] = {"W8A8": {"training": {"lr": 0.001}}}
    assert changed() == {name for name in before if "-w8a8-" in name} | {"chain-w3a3-s0"}
    del table["at"]
    table["float_teacher"]["epochs"] = 2
    assert changed() == {"float-teacher-same", "qat+kd-w8a8-s0", "qat+kd-w3a3-s0"}
    table["float_student"]["epochs"] = 2
    assert changed() == set(before)


@pytest.mark.parametrize(
    ("table_of", "key", "default"), [(Quantisation, "joined", 4), (Training, "threshold_lr", 0.01)]
)
def test_a_default_that_has_changed_is_always_in_the_settings(
    table_of: Any, key: str, default: float,
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    table = read_toml(spec)
    before = [cell.settings for cell in studies.Study(table, tmp_path).cells]
    monkeypatch.setattr(table_of.__dataclass_fields__[key], "default", default)
    assert [cell.settings for cell in studies.Study(table, tmp_path).cells] == before


def test_the_time_that_is_left() -> None:
    study = studies.read_study(CIFAR, Path("nowhere"))
    names = ["float-teacher-k16", "float-student-s0", "qat-w4a4-s0", "brevitas-w3a3-s1",
             "qat-w3a3-s0", "brevitas-w3a3-s0"]  # fmt: skip
    by_name = {cell.name: cell for cell in study.cells}
    cells = [by_name[name] for name in names]
    expected = {"float-teacher": 100, "float-student": 10, "qat": 20, "brevitas": 40}
    assert seconds_left(cells, {}, (), expected, 2) == (100 + 10 + 2 * (20 + 40)) / 2
    done = {names[2]: {"seconds": "30"}, names[3]: {"seconds": "50"}, names[1]: {"seconds": ""}}
    assert seconds_left(cells, done, (), expected, 1) == 100 + 30 + 50
    assert seconds_left(cells, {}, (), {"qat": 20}, 1) is None


def test_a_study_is_judged_by_validation(spec: Path, tmp_path: Path) -> None:
    table = {**read_toml(spec), "judged_by": "validation"}
    with pytest.raises(ConfigError, match="float-teacher-same has no validation images: give"):
        _read(table, tmp_path)
    table["data"]["validation"] = table["teacher_data"]["validation"] = 0.1
    taught = {**table, "methods": ["qat+kd"]}
    _read(taught, tmp_path)
    leak = "teacher-same is trained on images by which qat.* is judged: give"
    with pytest.raises(ConfigError, match=leak):  # the teacher's seed is 0
        _read({**taught, "seeds": [0, 1]}, tmp_path)
    with pytest.raises(ConfigError, match=leak):
        _read({**taught, "teacher_data": {**table["teacher_data"], "limit": 7}}, tmp_path)
    study = studies.Study(table, tmp_path)
    found = {"accuracy": 50.0, "validation_accuracy": 60.0, "seconds": 1.0}
    study.record({cell.name: found for cell in study.cells[:2]})
    study.record({study.cells[2].name: {"accuracy": 40.0, "seconds": 1.0}})  # of before there were
    judged = study.judged(study.done())
    assert [row["accuracy"] for row in judged.values()] == ["60.0", "60.0"]
    text = markdown(judged, study.judged_by)
    assert text.startswith("Top-1 of the validation images:") and "60.00" in text
    tested = studies.Study({**table, "judged_by": "test"}, tmp_path)
    assert {row["accuracy"] for row in tested.judged(study.done()).values()} == {"50.0", "40.0"}
    with pytest.raises(ConfigError, match="judged_by 'luck' is not one of test, validation"):
        _read({**table, "judged_by": "luck"}, tmp_path)


def test_settings_of_a_bit_width(spec: Path, tmp_path: Path) -> None:
    table = read_toml(spec)
    before = {cell.name: cell.settings for cell in studies.Study(table, tmp_path).cells}
    table["at"] = {"W8A8": {"training": {"lr": 0.001}}}
    table["variants"] = {"faster": {"method": "qat", "training": {"lr": 0.5}}}
    cells = {cell.name: cell for cell in studies.Study(table, tmp_path).cells}
    rates = {name: cells[name].config["training"].get("lr") for name in cells}
    assert rates["qat-w8a8-s0"] == 0.001 and rates["qat-w3a3-s0"] is None
    assert rates["faster-w8a8-s0"] == 0.5
    changed = {name for name, settings in before.items() if cells[name].settings != settings}
    assert changed == {name for name in before if "-w8a8-" in name}


def test_differences_are_those_of_the_same_seeds() -> None:
    qat, qkd = {0: 70.0, 1: 72.0, 2: 71.0}, {1: 73.0, 0: 72.0, 3: 90.0}
    rows = {
        f"{method}-w4a4-s{seed}": {
            "method": method, "weights": "4", "activations": "4", "seed": str(seed),
            "accuracy": str(accuracy),
        }
        for method, values in (("qat", qat), ("qkd", qkd), ("ptq", {0: 60.0}))
        for seed, accuracy in values.items()
    }  # fmt: skip
    assert differences(rows) == {("qkd", "W4A4"): [1.0, 2.0]}
    assert "| qkd | +1.50 ± 0.50 (2) |" in markdown(rows)


def _students(accuracies: dict[str, str], seeds: str) -> dict[str, dict[str, str]]:
    """Rows of students with 4 and 2 bits, by cell; the accuracies are by method."""
    return {
        f"{title}-w{bits}-s{seed}": {
            "method": title, "weights": bits, "activations": bits, "seed": seed, "accuracy": value
        }
        for title, value in accuracies.items() for bits in ("4", "2") for seed in seeds
    }  # fmt: skip


def test_a_figure_has_lines_of_methods_and_differences_of_all() -> None:
    rows = _students({"qat": "70", "qkd": "75", "ptq": "69"}, "01")
    rows |= _students({"qkd, narrow": "70"}, "0") | _students({"qkd, from wider": "80"}, "01")
    above, *panels = figure(rows).axes
    assert above.get_legend_handles_labels()[1] == ["qat", "qkd", "ptq", "qkd, from wider"]
    assert above.get_ylim() == (68.5, 80.5)
    assert [panel.get_title() for panel in panels] == ["W4A4", "W2A2"]
    labels = [text.get_text() for text in panels[0].get_yticklabels()]
    assert labels == ["qkd", "qkd, narrow", "qkd, from wider"]


def test_a_figure_names_accuracies_far_below_those_of_training() -> None:
    above = figure(_students({"qat": "70", "qkd": "75", "ptq": "50"}, "01")).axes[0]
    assert above.get_ylim() == (69.5, 75.5)
    assert {text.get_text() for text in above.texts} == {"ptq 50.0 ↓"}


def test_variants_are_methods_with_tables_of_their_own(spec: Path, tmp_path: Path) -> None:
    table = read_toml(spec) | {"bits": [[3, 3], [8, 8]], "seeds": [0, 1]}
    before = studies.Study(table, tmp_path).cells
    table["variants"] = {
        "qat, average": {"method": "qat", "training": {"ema": 0.9}, "bits": [[3, 3]]},
        "chain": {"method": "qat", "start": "chain", "quantisation": {"joined": 6}},
        "short chain": {"method": "qat", "start": "short chain", "bits": [[3, 3]], "seeds": [0]},
        "from qat": {"method": "qat", "start": "qat", "bits": [[3, 3]], "seeds": [1]},
    }
    cells = {cell.name: cell for cell in studies.Study(table, tmp_path).cells}
    # The existing results are unchanged.
    assert {c.name: c.settings for c in before}.items() <= {
        n: c.settings for n, c in cells.items()
    }.items()
    added = [name for name in cells if name not in {cell.name for cell in before}]
    assert added == ["qat-average-w3a3-s0", "chain-w8a8-s0", "chain-w3a3-s0", "short-chain-w3a3-s0",
                     "qat-average-w3a3-s1", "chain-w8a8-s1", "chain-w3a3-s1",
                     "from-qat-w3a3-s1"]  # fmt: skip
    assert cells["short-chain-w3a3-s0"].needs == ("qat-w8a8-s0",)
    average = cells["qat-average-w3a3-s0"].config
    assert average["training"] == {**table["training"], "ema": 0.9}
    assert cells["chain-w8a8-s1"].needs == ("float-student-s1",)
    chained = cells["chain-w3a3-s1"]
    assert chained.needs == ("chain-w8a8-s1",) and "weights" not in chained.config["student"]
    assert chained.config["quantisation"] == {
        "weights": 3, "activations": 3, "joined": 6,
        "start": str(tmp_path / "study" / "chain-w8a8-s1" / "student.safetensors"),
    }  # fmt: skip
    assert cells["from-qat-w3a3-s1"].needs == ("qat-w8a8-s1",)
    table["variants"]["lost"] = {"method": "qat", "start": "from qat", "bits": [[2, 2]]}
    with pytest.raises(ConfigError, match="lost-w2a2-s0 needs from-qat-w3a3-s0, which is not"):
        _read(table, tmp_path)
    table["variants"]["lost"]["start"] = "nowhere"
    with pytest.raises(ConfigError, match="start 'nowhere' is neither a method nor a variant"):
        _read(table, tmp_path)


@pytest.mark.parametrize(
    "changes, name",
    [
        ({"seeds": [0, 0]}, "float-student-s0"),
        ({"bits": [[3, 3], [3, 3]]}, "ptq-w3a3-s0"),
        ({"variants": {"qat": {"method": "qat", "bits": [[4, 4], [3, 3]]}}}, "qat-w3a3-s0"),
        ({"variants": {title: {"method": "qat"} for title in ("qat, mean", "qat-mean")}},
         "qat-mean-w8a8-s0"),
    ],
)  # fmt: skip
def test_names_of_cells_are_unique(
    changes: dict[str, Any], name: str, spec: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"two cells have the name {name}: give"):
        _read({**read_toml(spec), **changes}, tmp_path)


@pytest.mark.parametrize(
    "changes, where",
    [
        ({"ablation": {"bits": [3, 3], "seeds": [0, 7]}}, "ablation"),
        ({"variants": {"qat, mean": {"method": "qat", "seeds": [7]}}}, "variants.'qat, mean'"),
    ],
)
def test_seeds_are_those_of_the_study(
    changes: dict[str, Any], where: str, spec: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"{where}: seed 7 is not one of the study's seeds: 0$"):
        _read({**read_toml(spec), **changes}, tmp_path)


def test_a_start_from_a_method_that_is_also_a_variant(spec: Path, tmp_path: Path) -> None:
    """The student with the next higher number of bits may be of either."""
    table = read_toml(spec) | {"bits": [[4, 4], [3, 3]]}
    table["variants"] = {
        "qat": {"method": "qat", "bits": [[8, 8]]},
        "from qat": {"method": "qat", "start": "qat", "bits": [[4, 4], [3, 3], [2, 2]]},
    }
    needs = {cell.name: cell.needs for cell in _read(table, tmp_path).cells}
    assert needs["from-qat-w4a4-s0"] == ("qat-w8a8-s0",)
    assert needs["from-qat-w3a3-s0"] == ("qat-w4a4-s0",)
    assert needs["from-qat-w2a2-s0"] == ("qat-w3a3-s0",)


def _read(table: dict[str, Any], folder: Path) -> studies.Study:
    path = folder / "other.toml"
    path.write_text(to_toml(table))
    return studies.read_study(path, folder)


def test_the_location_of_the_runs_does_not_matter() -> None:
    """A study's results are recognised after moving them."""
    spec = read_toml(studies.DEFAULT)
    here, there = (studies.Study(spec, Path(place)) for place in ("results", "/elsewhere"))
    assert [c.settings for c in here.cells] == [c.settings for c in there.cells]
    assert len({c.settings for c in here.cells}) > 60


@pytest.mark.slow
def test_a_study_stops_and_goes_on(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results"
    command = ["study", str(spec), "--output", str(out), "--jobs", "2"]
    assert main([*command, "--limit", "1"]) == 0  # a float run alone: nothing to draw lines of
    assert main([*command, "--limit", "2"]) == 0
    first = _rows(out)
    assert [row["cell"] for row in first][:2] == ["float-teacher-same", "float-student-s0"]
    assert len(first) == 3
    assert main([*command, "--json"]) == 0
    rows = _rows(out)
    assert [row for row in rows if row["cell"] in {r["cell"] for r in first}] == first
    assert len(rows) == 8 and all(0 <= float(row["accuracy"]) <= 100 for row in rows)
    capsys.readouterr()
    assert main([*command, "--json"]) == 0  # nothing left to do
    assert len(json.loads(capsys.readouterr().out)) == 8
    text = (out / "study.md").read_text()
    assert "| qat |" in text and "W3A3" in text and "float" in text
    assert (out / "study.svg").read_text().startswith("<?xml")
    assert read_judge(out) == "test"


def _start(repo_root: Path, *words: object) -> subprocess.Popen[str]:
    """Start a worker in a separate process, as on another machine."""
    command = [sys.executable, "-m", "tutelage", *map(str, words)]
    return subprocess.Popen(command, cwd=repo_root, env={**os.environ, "OMP_NUM_THREADS": "1"},
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def _wait(condition: Any) -> None:
    end = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def _small(repo_root: Path, path: Path, method: str = "ptq") -> None:
    table = {**_spec(repo_root / "app" / "demo" / "images"), "methods": [method], "bits": [[8, 8]]}
    path.write_text(to_toml(table))


@pytest.mark.slow
def test_two_workers_share_a_study_and_one_is_killed(
    repo_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna", reason="needs Optuna, which is not installed")
    from tutelage.host.search.storage import open_study

    _small(repo_root, tmp_path / "study.toml")
    url, out = f"journal:{tmp_path / 'journal'}", tmp_path / "results"
    command = ["study", str(tmp_path / "study.toml"), "--output", str(out), "--jobs", "1",
               "--storage", url, "--lease", "6"]  # fmt: skip
    first, second = (_start(repo_root, *command) for _ in range(2))
    trials = open_study(url, study_queue.NAME, ["maximize"])
    _wait(lambda: sum(trial.state.name == "RUNNING" for trial in trials.trials) == 2)
    first.kill()
    first.communicate()
    said, errors = second.communicate()
    assert second.returncode == 0, errors
    done = [trial.user_attrs["cell"] for trial in trials.trials if trial.state.name == "COMPLETE"]
    assert sorted(done) == ["float-student-s0", "float-teacher-same", "ptq-w8a8-s0"]
    (lost,) = [trial for trial in trials.trials if trial.state.name == "FAIL"]
    assert not {"error", "released"} & lost.user_attrs.keys()
    rows = _rows(out)
    assert [row["cell"] for row in rows] == [
        "float-teacher-same", "float-student-s0", "ptq-w8a8-s0"
    ]  # fmt: skip
    assert rows[2]["float_accuracy"] == rows[1]["accuracy"] and "ptq-w8a8-s0: " in said
    # Any machine collects the results, even if nothing is left to do.
    (out / "study.csv").unlink()
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == rows == _rows(out)


@pytest.mark.slow
def test_ctrl_c_releases_a_workers_cell(repo_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="needs Optuna, which is not installed")
    from tutelage.host.search.storage import open_study

    _small(repo_root, tmp_path / "study.toml")
    url, out = f"journal:{tmp_path / 'journal'}", tmp_path / "results"
    worker = _start(repo_root, "study", tmp_path / "study.toml", "--output", out, "--jobs", 2,
                    "--storage", url)  # fmt: skip
    trials = open_study(url, study_queue.NAME, ["maximize"])
    _wait(lambda: sum(trial.state.name == "RUNNING" for trial in trials.trials) == 2)
    _wait(lambda: len([*out.rglob("config.toml")]) == 2)  # both have claimed their cells
    worker.send_signal(signal.SIGINT)
    _, errors = worker.communicate(timeout=60)
    assert worker.returncode == 1 and errors == "tutelage: interrupted\n"
    given_back = [trial for trial in trials.trials if trial.state.name == "FAIL"]
    assert len(given_back) == 2 and all(trial.user_attrs["released"] for trial in given_back)


def test_weights_only_on_another_machine_are_reported(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna", reason="needs Optuna, which is not installed")
    from tutelage.host.search.storage import Shared, StorageError, open_study

    _small(repo_root, tmp_path / "study.toml")
    study = studies.read_study(tmp_path / "study.toml", tmp_path / "here")
    url = f"journal:{tmp_path / 'journal'}"
    trials = open_study(url, study_queue.NAME, ["maximize"])
    for cell in study.cells[:2]:
        trials.enqueue_trial({}, {"cell": cell.name, "settings": cell.settings, "seconds": 1.0})
        trials.tell(trials.ask(), 50.0)
    with pytest.raises(StorageError, match="a directory that all machines share"):
        list(study.run(1, shared=Shared(url, 0.1)))


@pytest.mark.parametrize("losses", [2, 3])
def test_a_cell_of_which_workers_die_is_given_up(
    losses: int, repo_root: Path, tmp_path: Path
) -> None:
    optuna = pytest.importorskip("optuna", reason="needs Optuna, which is not installed")
    from tutelage.host.search.storage import Shared, open_study

    _small(repo_root, tmp_path / "study.toml", "qat+kd")
    study = studies.read_study(tmp_path / "study.toml", tmp_path)
    url = f"journal:{tmp_path / 'journal'}"
    trials = open_study(url, study_queue.NAME, ["maximize"])
    teacher, student, _ = study.cells
    for _ in range(losses):
        trials.enqueue_trial({}, {"cell": teacher.name, "settings": teacher.settings})
        trials.tell(trials.ask(), state=optuna.trial.TrialState.FAIL)
    with study_queue.shared_cells(study, set(), Shared(url), TrainingProcesses()) as cells:
        if losses == 2:
            assert cells.take() == teacher and cells.is_open()
        assert cells.take() == student
        assert cells.finish(student, {"accuracy": 1.0, "teacher_accuracy": None, "seconds": 2.0})
        assert cells.take() is None and cells.is_open() == (losses == 2)


def test_a_changed_study_runs_its_cells_again(repo_root: Path, tmp_path: Path) -> None:
    table = _spec(repo_root / "app" / "demo" / "images")
    study = studies.Study(table, tmp_path)
    study.record({cell.name: {"accuracy": 50.0, "seconds": 1.0} for cell in study.cells})
    assert len(study.done()) == 8
    table["training"] = {"epochs": 2, "batch_size": 60}
    changed = studies.Study(table, tmp_path)
    assert set(changed.done()) == {"float-teacher-same", "float-student-s0"}


def test_the_table_of_another_study_is_kept(
    repo_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = _spec(repo_root / "app" / "demo" / "images")
    study = studies.Study(table, tmp_path)
    for cell in study.cells:
        study.record({cell.name: {"accuracy": 50.0, "seconds": 1.0}})
    text = study.table.read_bytes()
    kept = tmp_path / "study.csv.old"
    assert not kept.exists() and not capsys.readouterr().err
    kept.write_text("older")
    table["training"] = {"epochs": 2, "batch_size": 60}
    changed = studies.Study(table, tmp_path)
    for cell in changed.cells[2:4]:
        changed.record({cell.name: {"accuracy": 60.0, "seconds": 1.0}})
    assert kept.read_bytes() == text and len(_rows(tmp_path)) == 4
    assert capsys.readouterr().err == (
        f"tutelage: {study.table}: removed 6 rows of other cells or settings; {kept} has them\n"
    )


def test_only_missing_weights_that_are_needed_are_trained_again(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """As in a clone, which has the table of a study but not all weights."""
    trained = list[str]()

    def run(_runs: Any, name: str, _config: Any, _folder: Path) -> dict[str, Any]:
        trained.append(name)
        return {"accuracy": 40.0, "seconds": 1.0}

    monkeypatch.setattr(TrainingProcesses, "run", run)
    table = _spec(repo_root / "app" / "demo" / "images") | {"bits": [[4, 4]]}
    table["variants"] = {
        "chain": {"method": "qat", "start": "chain", "bits": [[8, 8], [4, 4], [3, 3]]}
    }
    study = studies.Study(table, tmp_path)
    study.record({cell.name: {"accuracy": 50.0, "seconds": 1.0} for cell in study.cells})
    assert not list(study.run(1)) and not trained  # complete: no weights are needed
    changed = studies.Study(table | {"at": {"W3A3": {"training": {"lr": 0.1}}}}, tmp_path)
    weights = changed.weights("chain-w8a8-s0")
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert changed.repeated() == {"chain-w4a4-s0"}
    assert changed.seconds_left(1) == 2.0  # of the changed cell and the repeated one
    list(changed.run(1))
    assert trained == ["chain-w4a4-s0", "chain-w3a3-s0"]
    trained.clear()
    weights.unlink()
    file = tmp_path / "study.toml"
    file.write_text(to_toml(table | {"at": {"W3A3": {"training": {"lr": 0.2}}}}))
    assert main(["study", str(file), "--output", str(tmp_path), "--jobs", "1"]) == 0
    assert capsys.readouterr().out.startswith(
        f"7 of 8 cells finished, 3 of them to be run again for their weights, in {study.table}; "
    )
    assert trained == ["float-student-s0", "chain-w8a8-s0", "chain-w4a4-s0", "chain-w3a3-s0"]


@pytest.mark.slow
def test_a_failed_cell_is_reported_and_the_others_run(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec.write_text(spec.read_text().replace("[[8, 8], [3, 3]]", "[[8, 8]]"))
    text = spec.read_text().replace('methods = ["ptq", ', 'methods = ["qkd", "ptq", ')
    spec.write_text(text)  # three phases in one epoch
    assert main(["study", str(spec), "--output", str(tmp_path / "results")]) == 1
    assert (
        "failed: qkd-w8a8-s0: tutelage: [training] 1 epochs for 3 phases" in capsys.readouterr().out
    )
    assert len(_rows(tmp_path / "results")) == 5


@pytest.mark.parametrize(
    "change, words",
    [
        (("seeds", "sedes"), r"study.toml: unknown key 'sedes'; did you mean 'seeds'\?"),
        (("seeds = [0]\n", ""), "not a study: seeds is missing"),
        (("[[8, 8], [3, 3]]", "[[8]]"), "not a study: TypeError"),
        (
            ("[teachers", "[at.W8A9.training]\nlr = 0.1\n\n[teachers"),
            r"at: unknown key 'W8A9'; did you mean 'W8A8'\?",
        ),
        (
            ("[teachers", "[ablation]\ntemprature = [1.0]\n\n[teachers"),
            r"ablation: unknown key 'temprature'; did you mean 'temperatures'\?",
        ),
        (("[teachers", "[qkd_shares]\nstudying = 0.1\n\n[teachers"), "unknown key 'studying'"),
        (
            ("[teachers", "[seconds]\nfloat-studnet = 9\n\n[teachers"),
            "did you mean 'float-student'",
        ),
        (
            ("[teachers", '[variants.more]\nmethod = "ptq"\nseed = [1]\n\n[teachers'),
            r"variants.'more': unknown key 'seed'; did you mean 'seeds'\?",
        ),
        (('"ptq"', '"magic"'), "magic"),
        (("[[8, 8], [3, 3]]", "[[9, 8]]"), "bits.weights is 9"),
    ],
)
def test_wrong_studies(spec: Path, tmp_path: Path, change: tuple[str, str], words: str) -> None:
    spec.write_text(spec.read_text().replace(*change))
    with pytest.raises(ConfigError, match=words):
        studies.read_study(spec, tmp_path)


@pytest.mark.parametrize("text", [b"a,b\n1,2\n", b"\xff\xfe", b"cell,settings\nx"])
def test_a_table_of_another_kind_is_reported(
    text: bytes, spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.csv").write_bytes(text)
    if text.startswith(b"cell"):  # a row cut short belongs to no cell
        assert not studies.read_study(spec, tmp_path).done()
        return
    assert main(["study", str(spec), "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "study.csv" in error and error.count("\n") == 1
