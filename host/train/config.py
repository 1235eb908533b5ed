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
    # colour, limit, in_memory_mib, workers: host/train/data/settings.py

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
    # joined = 8                   # bits of what meets in a concat
    # start = "runs/w8a8/student.safetensors"   # a student of more bits; then no [student] weights
    # equalise = true, rounding = "adaround", bias_correction = true: before training, see
    # host/quantise/ptq

    [training]
    epochs = 6
    lr = 0.02
    # ema = 0.999, real_steps = 0.5, damping = 1e-2, freeze_oscillations = 0.02: see `Training`

    [features]                     # compared with the teacher's where a phase distils
    layers = ["features.denseblock1", "features.denseblock2"]   # host/train/features.py
    weight = 2.0

Everything else has the defaults below. ``[[phases]]`` replaces the method's phases, see
host/train/methods.py. With ``epochs = 0`` nothing is trained: a quantising method then does what
ptq does, and float evaluates the weights. Paths are relative to the working directory, a network's
file too. A run writes ``student.safetensors``, the weights after its last epoch (or its best, see
`Training`), and where a teacher learnt ``teacher.safetensors``: other runs start from either.
``results.json`` has the accuracy by class and what was taken for what, ``log.csv`` a line for each
epoch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core import toml_file
from tutelage.host.quantise.graph.passes.replacements import check_replacements
from tutelage.host.quantise.ptq.post_training import PostTraining
from tutelage.host.quantise.quantisers import Bits
from tutelage.host.train.config_table import ConfigError, apply_change, from_table
from tutelage.host.train.data.augmentation import Augmentation
from tutelage.host.train.data.settings import Data
from tutelage.host.train.features import Features
from tutelage.host.train.methods import METHODS, Phase, has_teacher
from tutelage.host.train.student_kinds import STUDENT_KINDS

__all__ = ["Config", "ConfigError", "Network", "Quantisation", "Training", "make_config",
           "read_config", "read_toml"]  # fmt: skip


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
    joined : bits of activations that meet in a concat, which the DPU holds at 8 bits whatever their
        number of levels; 0: as other activations
    start : the file of a student quantised before, such as one of more bits, whose weights, norms
        and scales of channels this one starts from in place of [student] weights; thresholds are
        measured again
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
    joined: int = 0
    start: str = ""
    quantiser: str = "tqt"
    calibration: str = "mse"
    calibration_images: int = 1000
    equalise: bool = True
    rounding: str = ""
    bias_correction: bool | None = None

    def __post_init__(self) -> None:
        self.bits()
        if self.quantiser not in STUDENT_KINDS:
            raise ValueError(
                f"quantiser {self.quantiser!r} is not one of {', '.join(STUDENT_KINDS)}"
            )
        self.post_training(trains=False)
        _positive(calibration_images=self.calibration_images)

    def bits(self) -> Bits:
        """The bit widths as the student takes them."""
        return Bits(self.weights, self.activations, self.first, self.last, self.joined or None)

    def post_training(self, trains: bool) -> PostTraining:
        """What is done before training, or without any; a student that starts from another has its
        scales of channels already."""
        rounding = self.rounding or ("nearest" if trains else "adaround")
        corrects = not trains if self.bias_correction is None else self.bias_correction
        equalises = self.equalise and not self.start
        return PostTraining(self.calibration, equalises, rounding, corrects)


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
    ema : 0, or the decay of a moving average of the student's weights over the steps, which is
        evaluated and kept in their place (host/train/averaging.py)
    real_steps : share of the run in which the quantisers' steps are real numbers in training; then
        they are set to the nearest powers of two, which evaluation takes always. The last epoch has
        powers of two in any case
    damping : weight of the damping of oscillations, which rises from 0 to it in the course of
        the run (host/train/oscillation.py)
    freeze_oscillations : 0, or from which frequency, in oscillations by step, a weight is held
        (the same); higher at first
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
    ema: float = 0.0
    real_steps: float = 0.0
    damping: float = 0.0
    freeze_oscillations: float = 0.0
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
            damping=self.damping,
        )  # fmt: skip
        for name in ("freeze_thresholds", "freeze_norms", "warmup", "label_smoothing", "momentum",
                     "ema", "real_steps", "freeze_oscillations"):  # fmt: skip
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be between 0 and 1")
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
    features: Features = field(default_factory=Features)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r} is not one of {', '.join(METHODS)}")
        if not self.student.network:
            raise ValueError("[student] network is missing")
        starts = self.student.weights or (self.quantises and self.quantisation.start)
        if self.quantises and not starts:
            raise ValueError(
                f"[student] weights are missing: {self.method} starts from a trained network's"
            )
        if not self.training.epochs and not starts:
            raise ValueError("[student] weights are missing: with epochs = 0 nothing is trained")
        if self.training.keep == "best" and not self.data.validates:
            raise ValueError('keep = "best" needs [data] validation, which says what is best')
        if self.needs_teacher and not (self.teacher.network and self.teacher.weights):
            raise ValueError(f"method {self.method!r} needs [teacher] network and weights")
        if self.features.layers and self.plan and not any(p.distil for p in self.plan):
            raise ValueError("[features] are compared where a phase distils; none does")
        if self.student.weights and self.quantisation.start:
            raise ValueError("[student] weights and [quantisation] start are both given: take one")
        self._check_quantiser()

    def _check_quantiser(self) -> None:
        """Refuse what only this project's own quantiser has."""
        training, quantisation = self.training, self.quantisation
        wanted = {
            "[quantisation] start": quantisation.start,
            "[training] real_steps": training.real_steps,
            "[training] damping": training.damping,
            "[training] freeze_oscillations": training.freeze_oscillations,
        }
        own = self.quantises and quantisation.quantiser == "tqt"
        if not own and (name := next((name for name, value in wanted.items() if value), "")):
            raise ValueError(f"{name} is for students of the quantiser 'tqt'")
        if self.features.layers and self.quantises and not own:
            raise ValueError("[features] are for float students and those of the quantiser 'tqt'")

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
        apply_change(table, change)
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
    return from_table(Config, table, where)
