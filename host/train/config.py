"""The TOML file of a training run, checked before anything is loaded.

    method = "qkd"                 # float, ptq, qat, qat+kd, sqakd, qkd
    seed = 0

    [data]
    kind = "folder"                # idx (MNIST, Fashion-MNIST), cifar10, cifar100, folder,
    path = "photos"                # webdataset; images: without labels, for trained networks
    size = 32                      # pixels, or [height, width], of pictures in folders and shards
    mean = [0.5]                   # of pixels in 0..1, as in torchvision; without mean and std the
    std = [0.5]                    # input is (v - 128) / 128
    validation = 0.1               # share of the training images, or a directory of images, to
                                   # evaluate on during the run
    # colour, limit, in_memory_mib, workers: host/train/data/settings.py

    [augmentation]                 # all keys: host/train/data/augmentation.py
    flip = true
    shift = 2
    random_resized_crop = 0.3
    mixup = 0.2

    [student]
    network = "densenet-small"     # a preset, "module:function" or "file.py:function" of your own
    weights = "runs/student/student.safetensors"   # initial weights: a float run's, or a file of
                                                   # your own (.safetensors, .pth, .pt, .bin);
                                                   # optional for method float
    options = { growth_rate = 8 }                  # arguments of the function or class
    # part = "model_ema"           # part of a file that has several; default: the first that fits
    # skip = ["fc."]               # prefixes of tensor names that keep their random initial values
    # replace = { silu = "hardswish" }   # activations that the DPU lacks, and their replacements in
    #                              # the quantised student, which fine-tunes them

    [teacher]                      # required if a phase has a teacher
    network = "densenet-wide"
    weights = "runs/teacher/student.safetensors"   # of the float run that trained it

    [quantisation]
    weights = 4
    activations = 4
    # joined = 8                   # bits of the inputs of a concat
    # start = "runs/w8a8/student.safetensors"   # a student of more bits, in place of [student]
    #                              # weights
    # equalise = true, rounding = "adaround", bias_correction = true: applied before training, see
    # host/quantise/ptq

    [training]
    epochs = 6
    lr = 0.02
    # ema = 0.999, real_steps = 0.5, damping = 1e-2, freeze_oscillations = 0.02: see `Training`

    [features]                     # feature maps to distil from the teacher
    layers = ["features.denseblock1", "features.denseblock2"]   # host/train/features.py
    weight = 2.0

Other keys have the defaults below. ``[[phases]]`` replaces the method's phases, see
host/train/methods.py. With ``epochs = 0`` nothing is trained: a quantising method then does the
same as ptq, and float evaluates the weights. Paths, including that of a network's Python file, are
relative to the working directory. A run writes ``student.safetensors``, the weights after its last
epoch (or its best, see `Training`), and ``teacher.safetensors`` if a teacher was trained; other
runs can start from either. ``results.json`` has the accuracy and the confusions of each class,
``log.csv`` one line for each epoch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core import toml_file
from tutelage.host.quantise.graph.passes.replacements import check_replacements
from tutelage.host.quantise.parameter_groups import THRESHOLD_LR
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
    """A network, its options and its initial weights.

    Attributes
    ----------
    network : a preset, "module:function" or "file.py:function", see
        `tutelage.host.networks.create`
    weights : file of the initial weights: a run's student.safetensors or teacher.safetensors, or
        weights of your own as .safetensors, .pth, .pt or .bin
        (`tutelage.host.train.weights.load`)
    options : keyword arguments of the network's function or class
    part : which of the file's tables of tensors to load, such as "model_ema", or a prefix of its
        names; "": the first that fits the network
    skip : prefixes of tensor names, such as "fc."; tensors of the network with such a name keep
        their random initial values, and those of the file are ignored
    replace : activations to exchange when the network is quantised, such as silu = "hardswish"
        (`tutelage.host.quantise.trace.trace`); a float run trains the network unchanged
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
    """Bit widths, and the post-training quantisation that comes before any training.

    Attributes
    ----------
    weights, activations : bits of all layers but the first and the last, 2 to 8
    first, last : bits of the first layer's weights and of the images, and of the last layer's
        weights, input and output, 2 to 8
    joined : bits of the inputs of a concat, which the DPU stores in 8 bits whatever their number of
        levels; 0: as other activations. In single runs on CIFAR-10, 8 was more accurate at W4A4,
        W3A3 and W2A2
    start : student.safetensors of a student that is already quantised, for example with more bits;
        its weights, norms and channel scales replace [student] weights, and its thresholds are
        calibrated again
    quantiser : "tqt" is the quantiser of this project; "brevitas" trains the same network with
        Brevitas instead, for comparison; it calibrates itself, without the keys below
    calibration_images : number of training images to calibrate with
    calibration : how thresholds are chosen, "mse" or "minmax"
        (`tutelage.host.quantise.ptq.post_training.PostTraining`)
    equalise : whether to equalise the ranges of channels across layers first, except those of the
        layers of [features], which are compared with the teacher's
    rounding : "nearest" or "adaround"; "": adaround for method ptq, nearest for methods that train
    bias_correction : whether to correct the biases for the error of the rounded weights; by
        default method ptq does and methods that train do not
    """

    weights: int = 8
    activations: int = 8
    first: int = 8
    last: int = 8
    joined: int = 8
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
        """Return the bit widths in the form that a student takes."""
        return Bits(self.weights, self.activations, self.first, self.last, self.joined)

    def post_training(self, trains: bool) -> PostTraining:
        """Return the settings of the post-training quantisation.

        Parameters
        ----------
        trains : whether training follows
        """
        # A student that starts from another has the channel scales of that one already.
        rounding = self.rounding or ("nearest" if trains else "adaround")
        corrects = not trains if self.bias_correction is None else self.bias_correction
        equalises = self.equalise and not self.start
        return PostTraining(self.calibration, equalises, rounding, corrects)


@dataclass(frozen=True)
class Training:
    """Settings of the training loop.

    Attributes
    ----------
    epochs : number of epochs; with 0 no method trains anything
    batch_size : images of a step, summed over all processes
    lr, teacher_lr : peak learning rates of SGD for the student and the teacher; they rise during
        `warmup` and then fall to zero along a cosine
    threshold_lr : learning rate of Adam for the log2 of the thresholds. They begin 0.5 from the
        next power of two and move by at most about threshold_lr * steps / 2 in a run, so with
        fewer than 1 / threshold_lr steps the calibration's step sizes stay as they are
    momentum : momentum of SGD
    weight_decay : weight decay of SGD, applied to the kernels
    warmup : share of the run in which the learning rates rise to their peaks
    temperature : temperature tau of the distillation
    ema : 0, or the decay of a moving average of the student's weights over the steps, which is
        evaluated and saved in their place (host/train/averaging.py)
    real_steps : share of the run in which the quantisers' step sizes are real numbers; then they
        are rounded to the nearest powers of two. Evaluation always uses powers of two, and so does
        the last epoch
    damping : weight of the loss term that damps oscillations, which rises from 0 to this value in
        the course of the run (host/train/oscillation.py)
    freeze_oscillations : 0, or the frequency, in oscillations per step, above which a weight is
        frozen (host/train/oscillation.py); the threshold starts higher and falls to this value
    freeze_thresholds, freeze_norms : share of the run after which the thresholds, or the running
        statistics of the batch norms, no longer change
    label_smoothing : smoothing of the labels in the cross entropy
    gradient_clip : largest norm of the gradient of the weights, of student and teacher each; 0: no
        limit. Without one the loss of a distilled low-bit student can jump when batch norms freeze
    class_weights : weights of the classes in the cross entropy, in the order of the classes: a
        list, or "balanced" for the reciprocal of each class's number of training images. They are
        scaled to a mean of 1 over the training images. "": all classes have the same weight
    evaluate_every : epochs between evaluations on the validation images, or on the test set if
        there are none; the last epoch of each phase is always evaluated
    keep : which weights are saved: "last", or "best" for those of the epoch with the highest
        accuracy on the validation images (the first of equals)
    mixed_precision : "no" or "bf16", for teachers and float networks; a quantised student stays in
        float32, whose sums equal the DPU's
    compile : use torch.compile for a frozen teacher and for the student of method float. It takes
        minutes at the start, and on a CPU a C++ compiler; results differ by float rounding
    """

    epochs: int = 6
    batch_size: int = 128
    lr: float = 0.02
    teacher_lr: float = 0.005
    threshold_lr: float = THRESHOLD_LR
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
                raise ValueError(
                    f'class_weights {self.class_weights!r} is neither "balanced" nor a list'
                )
        elif not all(0 < weight < math.inf for weight in self.class_weights):
            raise ValueError(f"class_weights are {self.class_weights}; they must be positive")
        if self.keep not in ("last", "best"):
            raise ValueError(f"keep {self.keep!r} is not one of last, best")
        if self.mixed_precision not in ("no", "bf16"):
            raise ValueError(f"mixed_precision {self.mixed_precision!r} is not one of no, bf16")


TQT_TRAINING_KEYS = ("real_steps", "damping", "freeze_oscillations")
"""Keys of [training] that only a student of the quantiser "tqt" supports."""


@dataclass(frozen=True)
class Config:
    """The configuration of a training run.

    Attributes
    ----------
    method : one of float, ptq, qat, qat+kd, sqakd or qkd
    seed : seed of all random numbers of the run
    """

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
                f"[student] weights are missing: method {self.method} starts from a trained network"
            )
        if not self.training.epochs and not starts:
            raise ValueError("[student] weights are missing: with epochs = 0 nothing is trained")
        if self.training.keep == "best" and not self.data.validates:
            raise ValueError('keep = "best" needs [data] validation to compare epochs on')
        if self.needs_teacher and not (self.teacher.network and self.teacher.weights):
            raise ValueError(f"method {self.method!r} needs [teacher] network and weights")
        if self.features.layers and self.plan and not any(p.distil for p in self.plan):
            raise ValueError("[features] need a phase that distils; no phase does")
        if self.student.weights and self.quantisation.start:
            raise ValueError("[student] weights and [quantisation] start are both given: give one")
        self._check_quantiser()

    def _check_quantiser(self) -> None:
        """Refuse settings that only this project's quantiser supports, for another one."""
        quantisation = self.quantisation
        wanted = {"[quantisation] start": quantisation.start}
        wanted |= {f"[training] {key}": getattr(self.training, key) for key in TQT_TRAINING_KEYS}
        own = self.quantises and quantisation.quantiser == "tqt"
        if not own and (name := next((name for name, value in wanted.items() if value), "")):
            raise ValueError(f"{name} needs a student of the quantiser 'tqt'")
        if self.features.layers and self.quantises and not own:
            raise ValueError("[features] need a float student or one of the quantiser 'tqt'")

    @property
    def plan(self) -> tuple[Phase, ...]:
        """The phases: those of [[phases]], or else the method's; empty without epochs."""
        if not self.training.epochs:
            return ()
        return tuple(self.phases) or METHODS[self.method].phases

    @property
    def needs_teacher(self) -> bool:
        """Whether any phase has a teacher."""
        return has_teacher(self.plan)

    @property
    def validation_seed(self) -> int:
        """The seed that chooses the held-out images."""
        return self.seed if self.data.validation_seed < 0 else self.data.validation_seed

    @property
    def quantises(self) -> bool:
        """Whether the student is quantised."""
        return METHODS[self.method].quantises


def read_config(path: Path, changes: list[str] | None = None) -> Config:
    """Read the configuration of a run from a TOML file.

    Parameters
    ----------
    changes : changes to the file's values, "table.key=value" in TOML's notation

    Raises
    ------
    ConfigError
        The file cannot be read, or is not a valid configuration.
    """
    table = read_toml(path)
    for change in changes or []:
        apply_change(table, change)
    return make_config(table, str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises
    ------
    ConfigError
        The file cannot be read, or is not TOML.
    """
    try:
        return toml_file.read_toml(path)
    except toml_file.TomlError as error:
        raise ConfigError(str(error)) from error


def make_config(table: Mapping[str, Any], where: str = "configuration") -> Config:
    """Return the configuration that a TOML table describes.

    Parameters
    ----------
    where : the place that error messages begin with, such as the file's name

    Raises
    ------
    ConfigError
        A key is unknown or missing, or a value is of the wrong type or out of range.
    """
    return from_table(Config, table, where)
