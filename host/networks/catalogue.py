"""Networks by name: presets of this package, or functions of the user's own code.

A user's function is named as `module:function`, for a module that Python can import, or as
`file.py:function`, for a file relative to the working directory. The file's folder is appended to
`sys.path`, so that the file can import its neighbours.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from tutelage.core.errors import TutelageError, one_line
from tutelage.host.networks.densenet import DenseNet
from tutelage.host.networks.mobilenet import MobileNetV2
from tutelage.host.networks.resnet import ResNet
from tutelage.host.networks.torchvision_import import import_torchvision

# Each preset: its constructor, and the arguments that differ from the defaults.
PRESETS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    "densenet": (DenseNet, {}),
    "densenetx": (DenseNet, dict(growth_rate=12, block_config=(16, 16, 16))),
    "densenet-121": (DenseNet, dict(growth_rate=32, block_config=(6, 12, 24, 16), stem="imagenet")),
    "densenet-169": (DenseNet, dict(growth_rate=32, block_config=(6, 12, 32, 32), stem="imagenet")),
    "densenet-201": (DenseNet, dict(growth_rate=32, block_config=(6, 12, 48, 32), stem="imagenet")),
    "densenet-tiny": (DenseNet, dict(growth_rate=4, block_config=(2, 2), stem="stride4")),
    "densenet-small": (DenseNet, dict(growth_rate=8, block_config=(3, 3, 3), stem="stride2")),
    "densenet-wide": (DenseNet, dict(growth_rate=24, block_config=(3, 3, 3), stem="stride2")),
    "resnet-8": (ResNet, dict(depths=(1, 1, 1))),
    "resnet-20": (ResNet, dict(depths=(3, 3, 3))),
    "mobilenet-v2": (MobileNetV2, {}),
    "mobilenet-small": (
        MobileNetV2,
        dict(blocks=((1, 8, 1, 1), (4, 16, 2, 2), (4, 24, 2, 2)), width=1.0, head=64),
    ),
}


class NetworkError(TutelageError, ValueError):
    """A network cannot be created by its name; the message is one line."""


def create(name: str, **options: Any) -> nn.Module:
    """Build the preset `name`, or call the user's function of that name, with `options`.

    Parameters
    ----------
    name : a preset, "module:function" or "file.py:function"
    options : keyword arguments of the constructor or function

    Raises
    ------
    NetworkError : the name is unknown, the module or file cannot be loaded or lacks the function,
        or the network does not accept the options
    """
    return create_with(name, options, {})


def is_own(name: str) -> bool:
    """Return whether `name` is a user's network, whose code `create` executes, not a preset's."""
    return name not in PRESETS and ":" in name


def create_with(name: str, options: Mapping[str, Any], offered: Mapping[str, Any]) -> nn.Module:
    """Build a network as `create` does, passing also those of `offered` that it accepts.

    A function without parameters, such as ``def make(): return Net()``, receives none of them. A
    function with ``**kwargs``, such as torchvision's, receives as many as it accepts.

    Parameters
    ----------
    options : keyword arguments that are always passed
    offered : keyword arguments passed if accepted, such as in_channels and num_classes

    Raises
    ------
    NetworkError : see `create`
    """
    maker, defaults = _maker(name)
    failure: Exception = TypeError()
    for more in _choices(maker, offered):
        try:
            return maker(**{**defaults, **more, **options})
        except TypeError as error:
            failure = error
        except Exception as error:  # whatever the user's code raises
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise NetworkError(f"network {name!r}: {kind}{one_line(error)}") from error
    raise NetworkError(f"network {name!r}: {one_line(failure)}") from failure


def _choices(
    maker: Callable[..., nn.Module], offered: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield the subsets of `offered` that a function may accept, the largest first."""
    parameters: Mapping[str, inspect.Parameter] = {}
    with suppress(TypeError, ValueError):  # some built-in callables have no signature
        parameters = inspect.signature(maker).parameters
    named = {key: value for key, value in offered.items() if key in parameters}
    others = [key for key in offered if key not in parameters]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for first in range(len(others)):
            yield {**named, **{key: offered[key] for key in others[first:]}}
    yield named


def _maker(name: str) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
    if name in PRESETS:
        return PRESETS[name]
    if not is_own(name):
        near = difflib.get_close_matches(name, PRESETS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"the presets are {', '.join(PRESETS)}"
        raise NetworkError(
            f"no network {name!r}; {hint} (name your own as 'module:function' or "
            "'file.py:function')"
        )
    place, _, function = name.rpartition(":")
    try:
        module = _imported(place)
    except Exception as error:  # whatever the user's code raises
        text = " ".join(str(error).split())
        raise NetworkError(
            f"network {name!r} cannot be imported: {type(error).__name__}: {text}"
        ) from error
    if not callable(maker := getattr(module, function, None)):
        raise NetworkError(f"network {name!r}: {place} has no function {function!r}")
    return maker, {}


def _imported(place: str) -> ModuleType:
    """Import a module, or a file that ends in .py."""

    def load() -> ModuleType:
        return _load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)

    try:
        return load()
    except RuntimeError:  # torchvision, whose compiled operations do not match PyTorch
        if importlib.util.find_spec("torchvision") is None:
            raise
        import_torchvision()
        return load()


def _load_file(path: Path) -> ModuleType:
    """Import a Python file as a module, at most once per process.

    Raises
    ------
    FileNotFoundError
        The file does not exist.
    """
    path = path.resolve()
    name = f"file:{path}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
