"""The search space of `tutelage explore`: the specification and its candidates.

A specification is the TOML file of a training run (host/train/config.py) with an additional table:

    [explore]
    growth_rate = [8, 12, 16]
    depth = [3, 6, [4, 8, 12]]        # layers of each of the [student]'s blocks; or a list with
                                      # the layers of each block
    stem = ["small", "stride2"]
    size = [64, 96]                   # side in pixels; for image folders only
    compression = [0.5]
    bottleneck = [2, 4]
    bits = [[8, 8], [4, 4]]           # weights, activations; not for method float
    float_training = { epochs = 15, lr = 0.1 }   # on top of [training], for the float run

Values left out are those of [student], [data] and [quantisation]; without [explore], `SPACE` is
searched.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.core.errors import TutelageError
from tutelage.dpu.predict.operations import Operation
from tutelage.host.explore.network_operations import densenet_operations
from tutelage.host.networks import PRESETS, NetworkError, create
from tutelage.host.networks.densenet import STEMS, DenseNet
from tutelage.host.train.config import (
    TQT_TRAINING_KEYS,
    Config,
    Quantisation,
    make_config,
    read_toml,
)
from tutelage.host.train.data import load
from tutelage.host.train.data.formats.registry import data_format
from tutelage.host.train.data.loading import height_and_width
from tutelage.host.train.data.settings import Data

SPACE: dict[str, list[Any]] = {
    "growth_rate": [4, 6, 8, 12, 16, 24, 32],
    "depth": [2, 3, 4, 6, 8, 12, [2, 2], [4, 4], [8, 8]],
    "stem": ["small", "stride2", "stride4"],
}
"""The search space of a specification without [explore]."""

DEMO: dict[str, Any] = {
    "method": "qat",
    "data": {"kind": "idx"},
    "augmentation": {"flip": True, "shift": 2},
    "student": {"network": "densenet-small"},
    "training": {"epochs": 15, "lr": 0.02},
    "explore": {**SPACE, "bits": [[8, 8], [4, 4]], "float_training": {"lr": 0.1}},
}
"""The default specification, with the demo's data and student."""

SEARCHED = ("growth_rate", "depth", "stem", "size", "compression", "bottleneck", "bits")
"""Keys of [explore] that list values to search, besides `float_training`."""

_MOST = {"growth_rate": 256, "bottleneck": 16, "size": 4096}
_MOST_LAYERS, _MOST_BLOCKS = 128, 8


class ExploreError(TutelageError):
    """The specification or the budget is invalid; the message is one line."""


# -- the search space ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """A DenseNet-BC: its hyper-parameters (`host.networks.densenet`) and the shape of its images.

    Attributes
    ----------
    growth_rate, block_config, stem, compression, bottleneck : see `DenseNet`
    shape : (C, H, W) of the images
    """

    growth_rate: int
    block_config: tuple[int, ...]
    stem: str
    shape: tuple[int, int, int]
    compression: float
    bottleneck: int

    @property
    def name(self) -> str:
        """Name for files, unique among the candidates of a search."""
        blocks = "x".join(map(str, self.block_config))
        return (
            f"k{self.growth_rate}-d{blocks}-{self.stem}-{self.pixels}"
            f"-c{self.compression!r}-b{self.bottleneck}"
        )

    @property
    def pixels(self) -> str:
        """Width and height of the images, such as "64x48"."""
        return f"{self.shape[2]}x{self.shape[1]}"

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments for the preset "densenet"."""
        return {
            "growth_rate": self.growth_rate,
            "block_config": list(self.block_config),
            "stem": self.stem,
            "compression": self.compression,
            "bottleneck": self.bottleneck,
        }


@dataclass(frozen=True)
class Spec:
    """A specification that has been checked.

    Attributes
    ----------
    table : the training configuration, without [explore] and the student's weights
    config : the same, parsed
    options : the student's options that are not searched
    space : hyper-parameter of a `Candidate` -> its values
    bits : bit widths of weights and activations of each quantised run; empty for method float
    float_training : settings that override [training] for the float run
    classes : number of classes of the data
    """

    table: dict[str, Any]
    config: Config
    options: dict[str, Any]
    space: dict[str, list[Any]]
    bits: list[tuple[int, int]]
    float_training: dict[str, Any]
    classes: int

    def candidates(self) -> Iterator[Candidate]:
        """Yield every combination of the hyper-parameters."""
        keys = ("growth_rate", "depth", "stem", "shape", "compression", "bottleneck")
        for values in itertools.product(*(self.space[key] for key in keys)):
            yield Candidate(*values)

    @property
    def size(self) -> int:
        """Number of combinations."""
        return math.prod(map(len, self.space.values()))

    def operations(self, candidate: Candidate) -> list[Operation]:
        """Return a candidate's operations for one image."""
        return densenet_operations(
            candidate.shape,
            **candidate.options,
            num_classes=self.options.get("num_classes", self.classes),
            init_features=self.options.get("init_features", 0),
        )


def read_spec(path: Path | None) -> Spec:
    """Read and check a specification.

    Parameters
    ----------
    path : of a TOML file; None: the demo's specification, `DEMO`

    Raises
    ------
    ConfigError, ExploreError
        The file cannot be read, or a value in it is invalid.
    DataError
        Its data is missing or cannot be used.
    """
    table = copy.deepcopy(DEMO) if path is None else read_toml(path)
    where = "the demo's specification" if path is None else str(path)
    table.setdefault("explore", copy.deepcopy(SPACE))
    given, student = table.pop("explore"), table.setdefault("student", {})
    if not isinstance(given, dict) or not isinstance(student, dict):
        raise ExploreError(f"{where}: [explore] and [student] must be tables")
    student.setdefault("network", "densenet-small")
    # Weights do not fit another network, so each candidate starts from its own float run.
    student.pop("weights", None)
    config = make_config(_with_student(table, {**student, "weights": "its float run's"}), where)
    try:
        return _checked(table, config, given)
    except ExploreError as error:
        raise ExploreError(f"{where}: {error}") from error


def _with_student(table: Mapping[str, Any], student: dict[str, Any]) -> dict[str, Any]:
    return {**table, "student": student}


def _checked(table: dict[str, Any], config: Config, given: dict[str, Any]) -> Spec:
    for key in given:
        if key not in (*SEARCHED, "float_training"):
            raise ExploreError(f"[explore] has no {key!r}; use {', '.join(SEARCHED)}")
        if key in SEARCHED and not (isinstance(given[key], list) and given[key]):
            raise ExploreError(f"[explore] {key} must be a list that is not empty")
    base = _base(config)
    blocks = len(base["block_config"])
    depths = given.get("depth", [list(base["block_config"])])
    space: dict[str, list[Any]] = {
        "growth_rate": _whole("growth_rate", given.get("growth_rate", [base["growth_rate"]])),
        "depth": [_block_config(depth, blocks) for depth in depths],
        "stem": [_stem(stem) for stem in given.get("stem", [base["stem"]])],
        "compression": [_share(x) for x in given.get("compression", [base["compression"]])],
        "bottleneck": _whole("bottleneck", given.get("bottleneck", [base["bottleneck"]])),
    }
    wanted = _whole("size", given["size"]) if "size" in given else [config.data.size]
    sizes = [height_and_width(size) for size in wanted]
    space = {key: list(dict.fromkeys(values)) for key, values in space.items()}
    space["shape"], classes = _shapes(config.data, list(dict.fromkeys(sizes)))
    searched = ("growth_rate", "block_config", "stem", "compression", "bottleneck")
    options = {key: value for key, value in config.student.options.items() if key not in searched}
    training = given.get("float_training", {})
    if not isinstance(training, dict):
        raise ExploreError("[explore] float_training must be a table")
    spec = Spec(table, config, options, space, _bits(given, config), training, classes)
    for name, each in configurations(spec, next(spec.candidates()), Path()).items():
        make_config(each, f"[explore], {name}")
    return spec


def _base(config: Config) -> dict[str, Any]:
    """Return the student's hyper-parameters, with the defaults of its preset and constructor."""
    name, options = config.student.network, config.student.options
    maker, preset = PRESETS.get(name, (None, {}))
    if maker is not DenseNet:
        presets = ", ".join(preset for preset, (kind, _) in PRESETS.items() if kind is DenseNet)
        raise ExploreError(f"[student] network {name!r} is not a DenseNet preset; use {presets}")
    if options.get("order", "post") != "post":
        raise ExploreError("[student] order 'pre' has norms that the DPU cannot run; use 'post'")
    if "in_channels" in options:
        raise ExploreError("[student] in_channels comes from the data; remove it")
    try:
        create(name, **options)
    except NetworkError as error:
        raise ExploreError(f"[student] {error}") from error
    signature = inspect.signature(DenseNet).parameters.values()
    return {p.name: p.default for p in signature} | preset | options


def _whole(key: str, values: Sequence[Any]) -> list[int]:
    most = _MOST[key]
    for value in values:
        if type(value) is not int or not 1 <= value <= most:
            raise ExploreError(f"[explore] {key} {value!r} is not an integer from 1 to {most}")
    return list(values)


def _block_config(depth: Any, blocks: int) -> tuple[int, ...]:
    layers = depth if isinstance(depth, list) else [depth] * blocks
    whole = all(type(n) is int and 1 <= n <= _MOST_LAYERS for n in layers)
    if not whole or not 1 <= len(layers) <= _MOST_BLOCKS:
        raise ExploreError(
            f"[explore] depth {depth!r}: use 1 to {_MOST_BLOCKS} blocks of 1 to {_MOST_LAYERS} "
            "layers"
        )
    return tuple(layers)


def _stem(stem: Any) -> str:
    if not isinstance(stem, str) or stem not in STEMS:
        raise ExploreError(f"[explore] stem {stem!r} is not one of {', '.join(STEMS)}")
    return stem


def _share(value: Any) -> float:
    if type(value) not in (int, float) or not 0 < value <= 1:
        raise ExploreError(f"[explore] compression {value!r} is not above 0 and at most 1")
    return float(value)


def _bits(given: dict[str, Any], config: Config) -> list[tuple[int, int]]:
    if not config.quantises:
        if "bits" in given:
            raise ExploreError("[explore] bits: method 'float' quantises nothing; remove bits")
        return []
    quantisation = config.quantisation
    found = []
    for pair in given.get("bits", [[quantisation.weights, quantisation.activations]]):
        if not isinstance(pair, list) or [type(n) for n in pair] != [int, int]:
            raise ExploreError(f"[explore] bits {pair!r} is not [weights, activations]")
        try:
            Quantisation(*pair)
        except ValueError as error:
            raise ExploreError(f"[explore] bits {pair!r}: {error}") from error
        found.append((pair[0], pair[1]))
    return list(dict.fromkeys(found))


def _shapes(
    data: Data, sizes: list[tuple[int, int] | None]
) -> tuple[list[tuple[int, int, int]], int]:
    """Return the shapes (C, H, W) of the images, one for each size, and the number of classes."""
    resized = data_format(data.kind).crop != "none"
    shape, classes = _images(data, resized and None not in sizes)
    if not resized:
        if any(size and shape[1:] != size for size in sizes):
            own = f"{shape[2]}x{shape[1]}"
            raise ExploreError(
                f"[explore] size: the images of {data.kind} are {own}, and only those of a folder "
                "or of shards can be resized; remove size"
            )
        return [shape], classes
    return [(shape[0], *size) if size else shape for size in sizes], classes


def _images(data: Data, resized: bool) -> tuple[tuple[int, int, int], int]:
    path = Path(data.path).expanduser() if data.path else None
    if known := data_format(data.kind).known_shape(path):  # so a search needs no data set
        return known
    # Only channels and classes are needed, so no image is kept in memory.
    test = load(data.kind, path, "test", 8 if resized else 0, memory=0)
    return test.shape, len(test.classes)


def configurations(spec: Spec, candidate: Candidate, output: Path) -> dict[str, dict[str, Any]]:
    """Return a candidate's training configurations by name: the float run, then quantised ones.

    Parameters
    ----------
    output : directory in which each run will have a subdirectory of its name
    """
    table = copy.deepcopy(spec.table)
    student = {"network": "densenet", "options": {**spec.options, **candidate.options}}
    resized = data_format(spec.config.data.kind).crop != "none"
    if resized and candidate.shape[1] == candidate.shape[2]:
        table["data"] = {**table["data"], "size": candidate.shape[1]}
    training = table.get("training", {})
    training = {key: value for key, value in training.items() if key not in TQT_TRAINING_KEYS}
    training |= spec.float_training
    name = f"{candidate.name}-float"
    if not spec.bits:
        return {name: {**table, "student": student, "training": training}}
    kept: dict[str, Any] = {
        key: table[key] for key in ("seed", "data", "augmentation") if key in table
    }
    found: dict[str, dict[str, Any]] = {}
    found[name] = {"method": "float", **kept, "student": student, "training": training}
    # The name that `tutelage train` gives it.
    start = {**student, "weights": str(output / name / "student.safetensors")}
    for weights, activations in spec.bits:
        bits = {"weights": weights, "activations": activations}
        quantisation = {**table.get("quantisation", {}), **bits}
        name = f"{candidate.name}-w{weights}a{activations}"
        found[name] = {**table, "student": start, "quantisation": quantisation}
    return found
