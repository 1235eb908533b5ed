"""The TOML file of a training run, checked before anything is loaded.

    method = "qkd"                 # float, ptq, qat, qat+kd, sqakd, qkd
    seed = 0

    [data]
    kind = "idx"                   # idx (MNIST, Fashion-MNIST), cifar10, cifar100, folder
    path = "/usr/share/datasets/fashion-mnist"
    mean = [0.5]                   # of pixels in 0..1, as torchvision has them; left out, the
    std = [0.5]                    # input is (v - 128) / 128

    [augmentation]
    flip = true
    shift = 2

    [student]
    network = "densenet-small"     # a preset, "module:function" or "file.py:function" of your own
    weights = "runs/student/student.safetensors"   # a float run's, where it starts; method float
                                                   # may have them too
    options = { growth_rate = 8 }
    replace = { silu = "hardswish" }   # activations that the DPU lacks, for those that it has: in
                                       # the quantised student, which fine-tunes them

    [teacher]                      # where a phase has a teacher
    network = "densenet-wide"
    weights = "runs/teacher/student.safetensors"   # of the run that trained it in float

    [quantisation]
    weights = 4
    activations = 4

    [training]
    epochs = 6
    lr = 0.02

Everything else has the defaults below. ``[[phases]]`` replaces the method's phases, see
host/train/methods.py. Paths are relative to the working directory, a network's file too. A run
writes ``student.safetensors``, the weights after its last epoch, and where a teacher learnt
``teacher.safetensors``: other runs start from either.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from tutelage.core import toml_file
from tutelage.core.errors import TutelageError
from tutelage.host.quantise.calibrate import METHODS as CALIBRATIONS
from tutelage.host.quantise.graph.passes.replacements import check_replacements
from tutelage.host.quantise.quantisers import Bits
from tutelage.host.train.data.augmentation import Augmentation
from tutelage.host.train.data.formats.registry import data_format
from tutelage.host.train.methods import METHODS, Phase, has_teacher
from tutelage.host.train.student_kinds import STUDENT_KINDS

T = TypeVar("T")

LEAST_STD = 1e-3
"""With 1/255, pixels enter as they are, 0 to 255."""


class ConfigError(TutelageError, ValueError):
    """The configuration is wrong; the text is one line that names the place."""


def _positive(**values: float) -> None:
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{name} is {value}; it must be positive")


def _not_negative(**values: float) -> None:
    for name, value in values.items():
        if value < 0:
            raise ValueError(f"{name} is {value}; it must not be negative")


@dataclass(frozen=True)
class Data:
    """What is learnt from.

    Attributes
    ----------
    kind, path, size : see tutelage.host.train.data.load
    limit : take the first images of the training set only, 0 all
    mean, std : of the input, of pixels in 0..1 as torchvision has them, for each channel or one for
        all: [0.485, 0.456, 0.406] and [0.229, 0.224, 0.225] for networks trained on ImageNet.
        Without them the input is (v - 128) / 128, which int8 holds exactly
    """

    kind: str = "idx"
    path: str = ""
    size: int = 0
    limit: int = 0
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        data_format(self.kind)  # ValueError where there is none of that name
        _not_negative(size=self.size, limit=self.limit)
        if bool(self.mean) != bool(self.std):
            raise ValueError("mean and std go together")
        for name, values in (("mean", self.mean), ("std", self.std)):
            least = LEAST_STD if name == "std" else 0
            for value in values:
                if not least <= value <= 1:
                    raise ValueError(
                        f"{name} is {value:g}; pixels count as 0 to 1 here, so it must be "
                        f"{least:g} to 1 (values for pixels 0 to 255 are divided by 255)"
                    )


@dataclass(frozen=True)
class Network:
    """A network by its name in `tutelage.host.networks.create`, its options and initial weights.

    `replace` has activations to exchange when the network is quantised
    (`tutelage.host.quantise.trace.trace`); a float run trains the network as it is.
    """

    network: str = ""
    weights: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    replace: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_replacements(self.replace)


@dataclass(frozen=True)
class Quantisation:
    """Bit widths, and how thresholds start: "mse" or "minmax" over some training images.

    `quantiser` "brevitas" trains the same network with Brevitas instead, for comparison.
    """

    weights: int = 8
    activations: int = 8
    first: int = 8
    last: int = 8
    quantiser: str = "tqt"
    calibration: str = "mse"
    calibration_images: int = 1000

    def __post_init__(self) -> None:
        self.bits()
        if self.quantiser not in STUDENT_KINDS:
            raise ValueError(f"quantiser {self.quantiser!r} is none of {', '.join(STUDENT_KINDS)}")
        if self.calibration not in CALIBRATIONS:
            known = ", ".join(CALIBRATIONS)
            raise ValueError(f"calibration {self.calibration!r} is none of {known}")
        _positive(calibration_images=self.calibration_images)

    def bits(self) -> Bits:
        """The bit widths as the student takes them."""
        return Bits(self.weights, self.activations, self.first, self.last)


@dataclass(frozen=True)
class Training:
    """The loop.

    Attributes
    ----------
    epochs, batch_size : batch_size counts the images of all processes together
    lr, teacher_lr : peak learning rates of SGD, after `warmup` (share of the run) and before
        a cosine down to zero
    threshold_lr : of Adam on log2 of the thresholds
    temperature : tau of the distillation
    freeze_thresholds, freeze_norms : share of the run after which they stay as they are
    label_smoothing : of the cross entropy with the labels
    gradient_clip : largest norm of the weights' gradient, of student and teacher each; 0 none.
        When batch norms freeze, the loss of a distilled low-bit student can jump otherwise.
    evaluate_every : epochs between evaluations on the test set; the end of a phase has one always
    mixed_precision : "no", "fp16" or "bf16"; the latter two only on a GPU
    """

    epochs: int = 6
    batch_size: int = 128
    lr: float = 0.02
    teacher_lr: float = 0.005
    threshold_lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.05
    temperature: float = 4.0
    freeze_thresholds: float = 0.8
    freeze_norms: float = 0.6
    label_smoothing: float = 0.0
    gradient_clip: float = 1.0
    evaluate_every: int = 1
    mixed_precision: str = "no"

    def __post_init__(self) -> None:
        _positive(
            epochs=self.epochs, batch_size=self.batch_size, lr=self.lr,
            temperature=self.temperature, evaluate_every=self.evaluate_every,
        )  # fmt: skip
        _not_negative(
            teacher_lr=self.teacher_lr, threshold_lr=self.threshold_lr, momentum=self.momentum,
            weight_decay=self.weight_decay, warmup=self.warmup,
            label_smoothing=self.label_smoothing, gradient_clip=self.gradient_clip,
        )  # fmt: skip
        for name in ("freeze_thresholds", "freeze_norms", "warmup", "label_smoothing", "momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        if self.mixed_precision not in ("no", "fp16", "bf16"):
            raise ValueError(f"mixed_precision {self.mixed_precision!r} is not no, fp16 or bf16")


@dataclass(frozen=True)
class Config:
    """A whole run."""

    method: str
    student: Network
    seed: int = 0
    data: Data = field(default_factory=Data)
    augmentation: Augmentation = field(default_factory=Augmentation)
    teacher: Network = field(default_factory=Network)
    quantisation: Quantisation = field(default_factory=Quantisation)
    training: Training = field(default_factory=Training)
    phases: list[Phase] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r} is none of {', '.join(METHODS)}")
        if not self.student.network:
            raise ValueError("[student] network is missing")
        if self.quantises and not self.student.weights:
            raise ValueError(
                f"[student] weights are missing: {self.method} starts from a float run"
            )
        if self.needs_teacher and not (self.teacher.network and self.teacher.weights):
            raise ValueError(f"method {self.method!r} needs [teacher] network and weights")

    @property
    def plan(self) -> tuple[Phase, ...]:
        """The phases: the method's, or those given."""
        return tuple(self.phases) or METHODS[self.method].phases

    @property
    def needs_teacher(self) -> bool:
        """Whether any phase has a teacher."""
        return has_teacher(self.plan)

    @property
    def quantises(self) -> bool:
        """Whether the student is quantised."""
        return METHODS[self.method].quantises


def read_config(path: Path, changes: list[str] | None = None) -> Config:
    """Read a TOML file; `changes` are "table.key=value" in TOML's notation, applied on top.

    Raises
    ------
    ConfigError
        The file cannot be read, or says something that is not understood.
    """
    table = read_toml(path)
    for change in changes or []:
        _apply(table, change)
    return make_config(table, str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises
    ------
    ConfigError
        It cannot be read, or is no TOML.
    """
    try:
        return toml_file.read_toml(path)
    except toml_file.TomlError as error:
        raise ConfigError(str(error)) from error


def make_config(table: Mapping[str, Any], where: str = "configuration") -> Config:
    """The configuration that a TOML table describes.

    Raises
    ------
    ConfigError
        A key is unknown or missing, or a value is of the wrong type or out of range.
    """
    return _build(Config, table, where)


def _apply(table: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    try:
        value = toml_file.parse_toml(f"value = {text}")["value"]
    except ValueError:
        value = text  # a bare word is a string
    *tables, last = key.strip().split(".")
    if not equals or not last:
        raise ConfigError(f"--set {change}: write table.key=value")
    for name in tables:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {change}: {name} is no table")
    table[last] = value


def _build(cls: type[T], table: Any, where: str) -> T:
    """A dataclass from a table, with every key and type checked."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: a table is wanted, not {type(table).__name__}")
    hints = get_type_hints(cls)
    names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for key in table:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names)}"
            raise ConfigError(f"{where}: unknown key {key!r}{hint}")
    values = {key: _value(hints[key], value, f"{where}: {key}") for key, value in table.items()}
    try:
        return cls(**values)
    except ConfigError:
        raise
    except TypeError as error:
        raise ConfigError(f"{where}: {str(error).partition('() ')[2] or error}") from error
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, type) and is_dataclass(hint):
        return _build(hint, value, where)
    if get_origin(hint) is list:
        if not isinstance(value, list):
            raise ConfigError(f"{where} must be a list")
        return [_value(get_args(hint)[0], item, where) for item in value]
    if get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be a table")
        return value
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
        wanted = " or ".join(names.get(kind, str(kind)) for kind in kinds)
        raise ConfigError(f"{where} must be {wanted}, not {value!r}")
    return value
