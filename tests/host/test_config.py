"""The TOML file of a training run: valid contents, and messages about invalid ones."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from tutelage.host.train.config import ConfigError, make_config, read_config  # noqa: E402
from tutelage.host.train.methods import METHODS, Phase, epochs_of  # noqa: E402

WHOLE = """
method = "qkd"
seed = 3
[data]
kind = "idx"
limit = 1000
[augmentation]
flip = true
shift = 2
[student]
network = "densenet-tiny"
weights = "s.safetensors"
options = { growth_rate = 6 }
[teacher]
network = "densenet-small"
weights = "t.safetensors"
[quantisation]
weights = 4
activations = 3
[training]
epochs = 9
lr = 1
"""


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_a_whole_file(tmp_path: Path) -> None:
    config = read_config(_file(tmp_path, WHOLE))
    assert (config.method, config.seed, config.data.limit) == ("qkd", 3, 1000)
    assert config.student.options == {"growth_rate": 6} and config.training.lr == 1.0
    assert config.quantisation.bits().weights == 4 and config.augmentation.flip
    assert config.plan == METHODS["qkd"].phases and config.needs_teacher


def test_changes_from_the_command_line(tmp_path: Path) -> None:
    changes = ["training.epochs=3", "method=qat", "quantisation.weights = 8", "data.path='/x y'"]
    config = read_config(_file(tmp_path, WHOLE), changes)
    assert (config.training.epochs, config.method, config.quantisation.weights) == (3, "qat", 8)
    assert config.data.path == "/x y"


def test_phases_of_ones_own(tmp_path: Path) -> None:
    text = (
        WHOLE + '[[phases]]\nname = "a"\n[[phases]]\nname = "b"\nteacher = "frozen"\ndistil = 2\n'
    )
    plan = read_config(_file(tmp_path, text)).plan
    assert plan == (Phase("a"), Phase("b", teacher="frozen", distil=2.0))


def test_without_epochs_nothing_is_trained_and_nobody_teaches() -> None:
    student = {"network": "densenet-tiny", "weights": "w.pth"}
    config = make_config({"method": "qkd", "student": student, "training": {"epochs": 0}})
    assert config.plan == () and not config.needs_teacher
    with pytest.raises(ConfigError, match="weights are missing: with epochs = 0"):
        make_config({"method": "float", "student": {"network": "x"}, "training": {"epochs": 0}})


@pytest.mark.parametrize(
    "line, words",
    [
        ('method = "magic"', "method 'magic' is not one of float, ptq"),
        ("sead = 1", "unknown key 'sead'; did you mean 'seed'?"),
        ('seed = "one"', "seed must be a whole number, not 'one'"),
        ("seed = true", "seed must be a whole number, not True"),
        ("training.lr = nan", "training: lr must be a finite number, not nan"),
        ("training.gradient_clip = inf", "training: gradient_clip must be a finite number"),
        ("data.mean = [nan]", "data: mean must be a finite number, not nan"),
        ("phases = [{ name = 'x', share = nan }]", "share must be a finite number, not nan"),
        ("data = 3", "data must be a table, not int"),
        ("training.epochs = -1", "epochs is -1; it must not be negative"),
        ("training.lr = -1", "lr is -1.0; it must be positive"),
        ("training.warmup = 2", "warmup is 2.0; it must be between 0 and 1"),
        ("quantisation.weights = 9", "bits.weights is 9"),
        ("quantisation.calibration = 'guess'", "calibration 'guess' is not one of mse, minmax"),
        ("data.kind = 'pickle'", "kind 'pickle' is not one of"),
        ("student.weights = ''", "[student] weights are missing"),
        ("student.replace = {silu = 'swoosh'}", "replace silu=swoosh is not known; replace "),
        ("student.replace = {silu = ['relu']}", "replace silu=['relu'] is not known; replace "),
        ("teacher.weights = ''", "needs [teacher] network and weights"),
        ("training.mixed_precision = 'fp16'", "mixed_precision 'fp16' is not one of no, bf16"),
        ("data.size = -1", "size is -1; it must be a number of pixels up to 8192"),
        ("data.size = [32]", "size is [32]; it must be a number of pixels"),
        ("data.size = [32, 0]", "size is [32, 0]"),
        ("data.size = '32'", "size must be a whole number or a list, not '32'"),
        ("data.size = ['a', 'b']", "size must be a whole number, not 'a'"),
        ("data.workers = -2", "workers is -2; it must be -1 or more"),
        ("data.in_memory_mib = -1", "in_memory_mib is -1; it must be 0 or more"),
        ("data.validation = 1.5", "validation is 1.5; it must be a share of the training images"),
        ("training.keep = 'first'", "keep 'first' is not one of last, best"),
        ("training.keep = 'best'", 'keep = "best" needs [data] validation'),
        (
            "training.class_weights = 'odd'",
            "class_weights 'odd' is neither \"balanced\" nor a list",
        ),
        ("augmentation.mixup = -1", "mixup is -1.0; it must not be negative"),
        ("augmentation.random_resized_crop = 2", "random_resized_crop is 2.0; it must be between"),
        ("augmentation.rand_augment = 31", "rand_augment is 31; it is a magnitude from 1 to 30"),
        ("augmentation.rand_augment_operations = 0", "rand_augment_operations must be 1 or more"),
        ("augmentation.flip = 'yes'", "augmentation: flip must be true or false"),
        ("phases = [{ name = 'x', distil = 1.0 }]", "distils without a teacher"),
        ("phases = [{ name = 'x', teacher = 'alien' }]", "teacher 'alien' is not one of"),
        ("phases = [{ share = 1.0 }]", "name"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(_file(tmp_path, WHOLE), [line])
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert "run.toml" in str(caught.value)


def test_missing_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="method"):
        make_config({"student": {"network": "x"}})
    with pytest.raises(ConfigError, match="No such file"):
        read_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="not a TOML file"):
        read_config(_file(tmp_path, "a = ["))
    with pytest.raises(ConfigError, match=r"write table\.key=value"):
        read_config(_file(tmp_path, WHOLE), ["epochs"])


@pytest.mark.parametrize("epochs", [3, 4, 6, 7, 30])
def test_every_phase_gets_its_share_of_the_epochs(epochs: int) -> None:
    plan = epochs_of(METHODS["qkd"].phases, epochs)
    assert len(plan) == epochs
    counts = [sum(p == phase for p in plan) for phase in METHODS["qkd"].phases]
    assert max(counts) - min(counts) <= 1
    assert plan == sorted(plan, key=METHODS["qkd"].phases.index)


def test_uneven_shares_and_too_few_epochs() -> None:
    phases = (Phase("a", 0.01), Phase("b", 98), Phase("c", 0.01))
    assert [p.name for p in epochs_of(phases, 4)] == ["a", "b", "b", "c"]
    with pytest.raises(ValueError, match="2 epochs for 3 phases"):
        epochs_of(phases, 2)
    assert epochs_of((), 5) == []
