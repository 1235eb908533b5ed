"""Quantise neural networks to 8 bits and run them on a ZCU104's DPU or its exact emulation.

    net = tutelage.load("models/mine")
    print(net.classify("cat.png").top)

    with tutelage.open("walk.mp4") as source, tutelage.output("seen.mp4", source.fps) as output:
        for frame in source:
            output.add(net.classify(frame))

`load`, `open`, `output` and `Power` run on the board too; `predict` needs the `emulation` packages,
`quantise`, `parameter_groups`, `export` and `train` the `host` ones. Each is imported when it is
first used.

The packages `core`, `dpu`, `board`, `app` and `host` are imported as `tutelage.<package>`. In a
checkout they are links in this folder, in a wheel ordinary folders. A release on a board has no
links, nor has a copy that lost them: there the packages are found beside this folder.
"""

from __future__ import annotations

import os
from importlib import import_module

# As typing has it; typing and pathlib would be nearly all of what this import takes.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tutelage.app.image_classifier import ImageClassifier as load
    from tutelage.app.outputs.by_uri import open_output as output
    from tutelage.app.sources.by_uri import open_source as open  # noqa: A004
    from tutelage.board.power import Power
    from tutelage.host.explore.predict_network import predict_network as predict
    from tutelage.host.export.quantised_network import quantise
    from tutelage.host.export.student_directory import export_student as export
    from tutelage.host.quantise.parameter_groups import parameter_groups
    from tutelage.host.train.run_config import run_config as train

__version__ = "0.2.0"
__all__ = [
    "Power", "export", "load", "open", "output", "parameter_groups", "predict", "quantise", "train",
]  # fmt: skip

_HERE = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120
if not os.path.isdir(f"{_HERE}/core"):  # noqa: PTH112
    __path__.append(os.path.dirname(_HERE))  # noqa: PTH120

# Name -> the module that has it, its name there, and the extra that installs what it needs.
_PLACES = {
    "export": ("host.export.student_directory", "export_student", "host"),
    "load": ("app.image_classifier", "ImageClassifier", "pc"),
    "open": ("app.sources.by_uri", "open_source", "pc"),
    "output": ("app.outputs.by_uri", "open_output", "pc"),
    "Power": ("board.power", "Power", "pc"),
    "parameter_groups": ("host.quantise.parameter_groups", "parameter_groups", "host"),
    "predict": ("host.explore.predict_network", "predict_network", "pc"),
    "quantise": ("host.export.quantised_network", "quantise", "host"),
    "train": ("host.train.run_config", "run_config", "host"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute, extra = _PLACES[name]
    try:
        found = getattr(import_module(f"{__name__}.{module}"), attribute)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == __name__:
            raise
        from tutelage.core.commands import installation

        raise ModuleNotFoundError(
            f"{__name__}.{name} needs the package {error.name}: {installation(extra)}",
            name=error.name,
        ) from error
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
