"""The TOML file of a training run, checked before anything is loaded.

    method = "qkd"                 # float, ptq, qat, qat+kd, sqakd, qkd
    seed = 0

    [data]
    kind = "folder"                # idx (MNIST, Fashion-MNIST), cifar10, cifar100, folder,
    path = "photos"                # webdataset; images: without labels, for trained networks
    size = 32                      # pixels, or [height, width]; of a folder's and shards' pictures
    mean = [0.5]                   # of pixels in 0..1, as torchvision has them; left out, the
    std = [0.5]                    # input is (v - 128) / 128
    validation = 0.1               # share of the training images, or a directory, that the run is
                                   # judged by before its end
    # limit, in_memory_mib, workers: host/train/data/settings.py

    [augmentation]                 # all of it: host/train/data/augmentation.py
    flip = true
    shift = 2
    random_resized_crop = 0.3
    mixup = 0.2

    [student]
    network = "densenet-small"     # a preset, "module:function" or "file.py:function" of your own
    weights = "runs/student/student.safetensors"   # a float run's, where it starts, or a file of
                                                   # your own: .safetensors, .pth, .pt, .bin;
                                                   # method float may have them too
    options = { growth_rate = 8 }                  # of the function or class
    # part = "model_ema"           # of the file, where it has several; else the first that fits
    # skip = ["fc."]               # beginnings of names: tensors that start with random values
    # replace = { silu = "hardswish" }   # activations that the DPU lacks, for those that it has:
    #                              # in the quantised student, which fine-tunes them

    [teacher]                      # where a phase has a teacher
    network = "densenet-wide"
    weights = "runs/teacher/student.safetensors"   # of the run that trained it in float

    [quantisation]
    weights = 4
    activations = 4
    # equalise = true, rounding = "adaround", bias_correction = true: before training, see
    # host/quantise/ptq

    [training]
    epochs = 6
    lr = 0.02

Everything else has the defaults below. ``[[phases]]`` replaces the method's phases, see
host/train/methods.py. With ``epochs = 0`` nothing is trained: a quantising method then does what
ptq does, and float evaluates the weights. Paths are relative to the working directory, a network's
file too. A run writes ``student.safetensors``, the weights after its last epoch (or its best, see
`Training`), and where a teacher learnt ``teacher.safetensors``: other runs start from either.
``results.json`` has the accuracy by class and what was taken for what, ``log.csv`` a line for each
epoch.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from tutelage.core import toml_file
from tutelage.core.errors import TutelageError
from tutelage.host.quantise.graph.passes.replacements import check_replacements
from tutelage.host.quantise.ptq.post_training import PostTraining
from tutelage.host.quantise.quantisers import Bits
from tutelage.host.train.data.augmentation import Augmentation
from tutelage.host.train.data.settings import Data
from tutelage.host.train.methods import METHODS, Phase, has_teacher
from tutelage.host.train.student_kinds import STUDENT_KINDS

T = TypeVar("T")


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
class Network:
    """A network by its name in `tutelage.host.networks.create`, its options and initial weights.

    Attributes
    ----------
    weights, part, skip : see `tutelage.host.train.weights.load`
    replace : activations to exchange when the network is quantised
        (`tutelage.host.quantise.trace.trace`); a float run trains the network as it is
    """

    network: str = ""
    weights: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    part: str = ""
    skip: list[str] = field(default_factory=list)
    replace: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_replacements(self.replace)


@dataclass(frozen=True)
class Quantisation:
    """Bit widths, and what is done with some training images before anything is trained.

    Attributes
    ----------
    weights, activations, first, last : see tutelage.host.quantise.quantisers.Bits
    quantiser : "brevitas" trains the same network with Brevitas instead, for comparison
    calibration_images : how many training images are used
    calibration, equalise, rounding, bias_correction : see
        tutelage.host.quantise.ptq.post_training.PostTraining; what is not given is on for method
        ptq, while a method that trains rounds to the nearest and corrects no bias
    """

    weights: int = 8
    activations: int = 8
    first: int = 8
    last: int = 8
    quantiser: str = "tqt"
    calibration: str = "mse"
    calibration_images: int = 1000
    equalise: bool = True
    rounding: str = ""
    bias_correction: bool | None = None

    def __post_init__(self) -> None:
        self.bits()
        if self.quantiser not in STUDENT_KINDS:
            raise ValueError(f"quantiser {self.quantiser!r} is none of {', '.join(STUDENT_KINDS)}")
        self.post_training(trains=False)
        _positive(calibration_images=self.calibration_images)

    def bits(self) -> Bits:
        """The bit widths as the student takes them."""
        return Bits(self.weights, self.activations, self.first, self.last)

    def post_training(self, trains: bool) -> PostTraining:
        """What is done before training, or without any."""
        rounding = self.rounding or ("nearest" if trains else "adaround")
        corrects = self.bias_correction
        return PostTraining(
            self.calibration, self.equalise, rounding, not trains if corrects is None else corrects
        )


@dataclass(frozen=True)
class Training:
    """The loop.

    Attributes
    ----------
    epochs : 0 trains nothing, whatever the method
    batch_size : counts the images of all processes together
    lr, teacher_lr : peak learning rates of SGD, after `warmup` (share of the run) and before
        a cosine down to zero
    threshold_lr : of Adam on log2 of the thresholds
    temperature : tau of the distillation
    freeze_thresholds, freeze_norms : share of the run after which they stay as they are
    label_smoothing : of the cross entropy with the labels
    gradient_clip : largest norm of the weights' gradient, of student and teacher each; 0 none.
        When batch norms freeze, the loss of a distilled low-bit student can jump otherwise.
    class_weights : weights of the classes in the cross entropy, in the classes' order: a list, or
        "balanced" for one over the number of a class's training images. They are scaled so that
        the mean over the training images is 1. "": all count the same
    evaluate_every : epochs between evaluations on the validation images, or where there are none
        on the test set; the end of a phase has one always
    keep : "last", or "best": the weights of the epoch with the best accuracy on the validation
        images, the first of equals
    mixed_precision : "no", "fp16" (only on a GPU) or "bf16", of teachers and float networks; a
        quantised student stays in float32, whose sums are the DPU's
    compile : compile a teacher that does not learn, and a student of method float, by torch.compile
        (minutes at the start; a C++ compiler on a CPU). Results differ by float rounding
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
    class_weights: str | list[float] = ""
    evaluate_every: int = 1
    keep: str = "last"
    mixed_precision: str = "no"
    compile: bool = False

    def __post_init__(self) -> None:
        _positive(
            batch_size=self.batch_size, lr=self.lr, temperature=self.temperature,
            evaluate_every=self.evaluate_every,
        )  # fmt: skip
        _not_negative(
            epochs=self.epochs,
            teacher_lr=self.teacher_lr, threshold_lr=self.threshold_lr, momentum=self.momentum,
            weight_decay=self.weight_decay, warmup=self.warmup,
            label_smoothing=self.label_smoothing, gradient_clip=self.gradient_clip,
        )  # fmt: skip
        for name in ("freeze_thresholds", "freeze_norms", "warmup", "label_smoothing", "momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        if isinstance(self.class_weights, str):
            if self.class_weights not in ("", "balanced"):
                raise ValueError(f"class_weights {self.class_weights!r} is not balanced or a list")
        elif not all(0 < weight < math.inf for weight in self.class_weights):
            raise ValueError(f"class_weights are {self.class_weights}; they must be positive")
        if self.keep not in ("last", "best"):
            raise ValueError(f"keep {self.keep!r} is not last or best")
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
                f"[student] weights are missing: {self.method} starts from a trained network's"
            )
        if not self.training.epochs and not self.student.weights:
            raise ValueError("[student] weights are missing: with epochs = 0 nothing is trained")
        if self.training.keep == "best" and not self.data.validates:
            raise ValueError('keep = "best" needs [data] validation, which says what is best')
        if self.needs_teacher and not (self.teacher.network and self.teacher.weights):
            raise ValueError(f"method {self.method!r} needs [teacher] network and weights")

    @property
    def plan(self) -> tuple[Phase, ...]:
        """The phases: the method's, or those given; none without epochs."""
        if not self.training.epochs:
            return ()
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
    *tables, last = key.strip().split(".")
    if not equals or not last:
        raise ConfigError(f"--set {change}: write table.key=value")
    for name in tables:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {change}: {name} is no table")
    table[last] = toml_file.parse_value(text)


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
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    lists = [kind for kind in kinds if get_origin(kind) is list]
    if len(kinds) > 1 and isinstance(value, list) and lists:
        return _value(lists[0], value, where)
    if get_origin(hint) is list:
        if not isinstance(value, list):
            raise ConfigError(f"{where} must be a list")
        return [_value(get_args(hint)[0], item, where) for item in value]
    if get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be a table")
        return value
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = tuple(kind for kind in kinds if kind not in lists)
    if not isinstance(value, plain) or (isinstance(value, bool) and bool not in kinds):
        names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
        names |= dict.fromkeys(lists, "a list")
        wanted = " or ".join(names.get(kind, str(kind)) for kind in kinds)
        raise ConfigError(f"{where} must be {wanted}, not {value!r}")
    return value
