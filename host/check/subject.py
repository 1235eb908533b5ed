"""The subject of a check: a network by its name, or a planned training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from tutelage.core.errors import TutelageError
from tutelage.core.images.image_files import class_folders
from tutelage.host.explore.network_operations import read_shape
from tutelage.host.networks import create_with
from tutelage.host.train.config import Config, Network, make_config, read_config
from tutelage.host.train.data import DataSet
from tutelage.host.train.data.formats.folder import TooFewImages
from tutelage.host.train.loop import load_data
from tutelage.host.train.students import load_weights, make_network, trained_network

DEFAULT_INPUT = "3x32x32"

_COLOURS = {1: "grey", 3: "rgb"}
"""Channels of a network's input -> colour setting of the pictures in a folder."""


class CheckError(TutelageError):
    """The options of a check are wrong or do not go together; the message is one line."""


@dataclass(frozen=True)
class Request:
    """The options of a check.

    Attributes
    ----------
    model : "module:function", "file.py:function", a preset, an .xmodel or its model directory, or a
        run's .toml
    input : "CxHxW" of a network's images; "": those of the data, or `DEFAULT_INPUT`
    weights, part, skip : see `tutelage.host.train.weights.load`
    options : keyword arguments of the network's function
    images : directory of images for calibration and comparison; subdirectories are classes
    mean, std : normalisation of the images, as in a run's [data]
    limit : largest number of images for calibration, and for comparison
    board : name of the board
    allow_cpu : accept a network even if the CPU computes a part of it
    replace : activations to replace, see `tutelage.host.quantise.trace.trace`
    """

    model: str
    input: str = ""
    weights: str = ""
    part: str = ""
    skip: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    images: Path | None = None
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    limit: int = 200
    board: str = "zcu104"
    allow_cpu: bool = False
    replace: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """The network to check, and its data if there are any.

    Attributes
    ----------
    shape : (C, H, W) of its images
    network : with its trained weights, if these are available
    config : configuration of a run that quantises the network; None without trained weights
    data : images for calibration, and for comparison; None without images
    replace : activations to replace
    notes : lines of text for the user
    """

    shape: tuple[int, int, int]
    network: nn.Module
    config: Config | None
    data: tuple[DataSet, DataSet] | None
    replace: Mapping[str, str]
    notes: tuple[str, ...] = ()


def load_subject(request: Request) -> Subject:
    """Create the network of a request for anything but an .xmodel, and open its data.

    Raises
    ------
    CheckError
        The options of the request do not go together.
    ConfigError, NetworkError, CheckpointError, DataError
        The run, the network, its weights or its data cannot be used.
    """
    if request.images is not None and not request.weights:
        raise CheckError("--images compares a trained network; give its --weights too")
    if request.model.endswith(".toml"):
        return _of_run(request)
    spec = _network(request)
    shape = read_shape(request.input or DEFAULT_INPUT)
    if request.images is None:
        return _without_data(spec, shape)
    if shape[0] not in _COLOURS:
        raise CheckError(
            f"--input {request.input}: the pictures of --images have 3 channels, or 1 in grey; "
            "check this network without --images"
        )
    return _with_pictures(request, spec, shape)


def _with_pictures(request: Request, spec: Network, shape: tuple[int, int, int]) -> Subject:
    """Return a network with the pictures of a directory, labelled if it has class directories.

    With one picture per class the set cannot be split in two, so the labels are not used.
    """
    assert request.images is not None
    path = request.images.expanduser()
    data = {"path": str(path), "size": list(shape[1:]), "colour": _COLOURS[shape[0]],
            "mean": list(request.mean), "std": list(request.std)}  # fmt: skip

    def config(kind: str) -> Config:
        tables = {"method": "ptq", "student": asdict(spec), "data": {**data, "kind": kind}}
        return make_config(tables, "the options")

    if not (path.is_dir() and class_folders(path)):
        return _with_data(config("images"), request.limit)
    try:
        return _with_data(config("folder"), request.limit)
    except TooFewImages:
        note = f"{path}: one image per class is too few to use the labels; compared without them"
        return replace(_with_data(config("images"), request.limit), notes=(note,))


def _network(request: Request) -> Network:
    try:
        return Network(
            request.model, request.weights, dict(request.options), request.part,
            list(request.skip), dict(request.replace),
        )  # fmt: skip
    except ValueError as error:
        raise CheckError(str(error)) from error


def _of_run(request: Request) -> Subject:
    given = {"--weights": request.weights, "--option": request.options, "--part": request.part,
             "--images": request.images, "--skip": request.skip, "--mean": request.mean,
             "--std": request.std}  # fmt: skip
    if wrong := [name for name, value in given.items() if value]:
        raise CheckError(f"{wrong[0]} is for networks only; set it in {request.model} instead")
    changes = [f"student.replace.{old}={new}" for old, new in request.replace.items()]
    config = read_config(Path(request.model), changes)
    spec = config.student
    notes: tuple[str, ...] = ()
    if spec.weights and not Path(spec.weights).expanduser().exists():
        notes = (f"{spec.weights} does not exist yet; checked without weights",)
        spec = replace(spec, weights="")
    if request.input or not spec.weights:
        shape = read_shape(request.input) if request.input else None
        return replace(_planned(config, spec, shape), notes=notes)
    return _with_data(replace(config, method="ptq"), request.limit)


def _planned(config: Config, spec: Network, shape: tuple[int, int, int] | None) -> Subject:
    """Return the network of a run whose weights are not trained yet; only its shape matters."""
    if shape is not None:
        return _without_data(spec, shape)
    first, _ = load_data(config)
    return Subject(first.shape, make_network(spec, first), None, None, spec.replace)


def _without_data(spec: Network, shape: tuple[int, int, int]) -> Subject:
    network = create_with(spec.network, spec.options, {"in_channels": shape[0]})
    if not isinstance(network, nn.Module):
        raise CheckError(f"{spec.network} returns {type(network).__name__}, not a torch.nn.Module")
    load_weights(network, spec, shape)
    return Subject(shape, network, None, None, spec.replace)


def _with_data(config: Config, limit: int) -> Subject:
    first, test = load_data(config)
    data = first.take(limit), test.take(limit)
    network = trained_network(config.student, first)
    return Subject(first.shape, network, config, data, config.student.replace)
