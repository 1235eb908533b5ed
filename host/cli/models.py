"""Inspection of models: `tutelage inspect | diff | predict`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.core.commands import needs
from tutelage.core.errors import DONE, FAILED, TutelageError, UnsortedWarning, contradictions
from tutelage.core.images.input_form import COLOURS, InputForm
from tutelage.core.model_package import named_file
from tutelage.host.cli.command import SEVERAL, command
from tutelage.host.cli.options import BoardOptions, JsonOptions, PluginOptions, xmodel_argument
from tutelage.host.cli.output_file import write_file
from tutelage.host.cli.printing import print_json

if TYPE_CHECKING:
    from tutelage.dpu.inspect.code import PartCode
    from tutelage.dpu.predict.latency import Prediction
    from tutelage.dpu.xmodel.graph import Graph

DEFAULT_INPUT = "3x32x32"

_BESIDE = "; default: that of model.toml beside the file, else"


@dataclass(frozen=True, kw_only=True)
class ImageOptions(PluginOptions):
    """Options of sample inputs, for statistics of values."""

    images: Annotated[
        list[str],
        SEVERAL,
        typer.Option(
            metavar="PATH...",
            help="sample inputs, to show saturation, unused bits and dead channels of each layer: "
            "IN.npy as for `run` (NAME=IN.npy for several inputs), or images and directories of "
            "images",
        ),
    ] = field(default_factory=list)
    colour: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(COLOURS),
            help=f"colours of the network's input{_BESIDE} grey or bgr by its channels",
        ),
    ] = None
    mean: Annotated[
        list[float],
        SEVERAL,
        typer.Option(
            metavar="M...", help=f"mean to subtract from pixels 0..255, by channel{_BESIDE} 0"
        ),
    ] = field(default_factory=list)
    scale: Annotated[
        list[float],
        SEVERAL,
        typer.Option(
            metavar="S...", help=f"factor applied after subtracting the mean, by channel{_BESIDE} 1"
        ),
    ] = field(default_factory=list)

    def check(self) -> None:
        """Raise TutelageError if --colour is unknown, or an option lacks --images."""
        if self.colour is not None and self.colour not in COLOURS:
            raise TutelageError(f"--colour {self.colour}: not one of {', '.join(COLOURS)}")
        if not self.images and (self.colour or self.mean or self.scale or self.plugin):
            raise TutelageError("--colour, --mean, --scale and --plugin need --images")


@dataclass(frozen=True, kw_only=True)
class InspectOptions(ImageOptions, JsonOptions):
    """Options of `inspect`."""

    xmodel: Annotated[Path, xmodel_argument("quantised or compiled model")]
    ops: Annotated[bool, typer.Option("--ops", help="also list every op")] = False
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="draw the graph as an SVG file")
    ] = None
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="write the graph and the tables as an HTML page"),
    ] = None
    places: Annotated[
        bool,
        typer.Option(
            "--places",
            help="show when and where each tensor is in banks and DDR memory; executes the DPU "
            "code of a file that is compiled for a board, which takes some seconds",
        ),
    ] = False


@command(
    "inspect",
    "net.xmodel",
    "net.xmodel --images photos/ --html net.html",
    "net.xmodel --images in.npy --json",
    "board.xmodel --places",
)
def inspect(options: InspectOptions) -> int:
    """Describe an .xmodel."""
    from tutelage.dpu.inspect.describe import describe_graph
    from tutelage.dpu.inspect.listing import lines
    from tutelage.dpu.predict.cycles import add_cycles
    from tutelage.dpu.xmodel.graph import Graph

    options.check()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsortedWarning)  # shown as one of the notes
        graph = Graph.deserialize(options.xmodel)
    with contradictions(str(options.xmodel)):
        facts = describe_graph(options.xmodel, graph)
        add_cycles(facts, graph)
        if options.images:
            _add_statistics(facts, graph, options)
        code = _code(facts, graph) if options.places else []
        drawings = _drawings(facts, options, code)
        text = [] if options.json else lines(facts, options.ops)
        text += _place_lines(code) if options.places else []
    for path, content in drawings.items():
        write_file(path, content)
    if options.json:
        print_json(facts)
    else:
        print("\n".join(text))
    return DONE


def _add_statistics(facts: dict[str, Any], graph: Graph, options: InspectOptions) -> None:
    from tutelage.dpu.engine.reference import load_engine
    from tutelage.dpu.inspect.samples import Samples, image_form
    from tutelage.dpu.inspect.statistics import add_statistics
    from tutelage.dpu.ops.reference import load_plugins

    def form(shape: Sequence[int]) -> InputForm:
        return image_form(
            options.xmodel, shape, options.colour, options.mean or None, options.scale or None
        )

    plugins = load_plugins(options.plugin) if options.plugin else {}
    model = load_engine(graph, "fast", plugins, trace=True, name=str(options.xmodel))
    add_statistics(facts, model, Samples(model.program, options.images, form))


def _code(facts: dict[str, Any], graph: Graph) -> list[PartCode]:
    """Return the analysed code of all DPU subgraphs, and add its facts."""
    from tutelage.dpu.inspect.code import analyse

    code = analyse(graph)
    facts["code"] = [part.facts() for part in code]
    return code


def _place_lines(code: list[PartCode]) -> list[str]:
    from tutelage.dpu.inspect.code_listing import place_lines

    return [line for part in code for line in ("", *place_lines(part))]


def _drawings(
    facts: dict[str, Any], options: InspectOptions, code: list[PartCode]
) -> dict[Path, bytes]:
    """Return the contents of the files of --svg and --html."""
    drawings = {}
    if options.svg:
        from tutelage.dpu.inspect.draw import svg

        drawings[options.svg] = svg(facts).encode()
    if options.html:
        from tutelage.dpu.inspect.html_page import page

        drawings[options.html] = page(facts, code).encode()
    return drawings


@dataclass(frozen=True, kw_only=True)
class DiffOptions(JsonOptions):
    """Options of `diff`."""

    a: Annotated[Path, xmodel_argument("quantised or compiled model")]
    b: Annotated[Path, xmodel_argument("model to compare with it")]
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="compare layers instead of ops, as is always done for a quantised and a compiled "
            "file",
        ),
    ] = False


@command("diff", "a.xmodel b.xmodel", "quantised.xmodel model.xmodel --json")
def diff(options: DiffOptions) -> int:
    """Show the differences between two .xmodels.

    Exit status 0: equal, 1: different, or not completely comparable (weights of another DPU), 2: a
    file cannot be read.
    """
    from tutelage.dpu.inspect.diff import diff, lines

    found = diff(options.a, options.b, options.layers)
    if options.json:
        print_json(found)
    else:
        print("\n".join(lines(found)))
    return DONE if found["equal"] else FAILED


@dataclass(frozen=True, kw_only=True)
class PredictOptions(BoardOptions, JsonOptions):
    """Options of `predict`."""

    model: Annotated[
        str,
        typer.Argument(
            metavar="X.xmodel | MODEL | NETWORK",
            help="quantised or compiled model, a model directory, or a PyTorch network: a preset, "
            "such as densenet-121, or your own, MODULE:FUNCTION or FILE.py:FUNCTION; the function "
            "may also return operations of tutelage.dpu.predict.operations",
        ),
    ]
    input: Annotated[
        str | None,
        typer.Option(
            metavar="CxHxW",
            help=f"channels, height, width of a network; default: {DEFAULT_INPUT}",
        ),
    ] = None
    threads: Annotated[
        list[int],
        SEVERAL,
        typer.Option(
            min=1,
            metavar="N...",
            help="further numbers of threads to print the speed for",
        ),
    ] = field(default_factory=list)
    measured: Annotated[
        list[Path],
        typer.Option(
            metavar="RUN",
            help="run.json or bench.json, or its directory, to take the watts from; repeatable; "
            "default: those below results/, else an estimate",
        ),
    ] = field(default_factory=list)


@command(
    "predict",
    "net.xmodel --threads 2 4",
    "densenet-121 --input 3x224x224",
    "mine.py:network --input 1x28x28 --json",
)
def predict(options: PredictOptions) -> int:
    """Predict a network; no weights are needed."""
    from tutelage.dpu.predict.energy import board_power
    from tutelage.dpu.predict.listing import prediction_lines
    from tutelage.dpu.predict.prediction import prediction_facts

    model = named_file(options.model)
    found = _prediction(options, model)
    power = board_power(options.board, model=model, given=options.measured)
    facts = prediction_facts(options.model, found, power, options.threads)
    if options.json:
        print_json(facts)
    else:
        print("\n".join(prediction_lines(facts)))
    return DONE


def _prediction(options: PredictOptions, model: Path | None) -> Prediction:
    from tutelage.dpu.predict.latency import predict
    from tutelage.dpu.predict.prediction import predict_file

    if model is not None:
        if options.input is not None:
            raise TutelageError("--input is for networks; an .xmodel has its own input shape")
        return predict_file(model, options.board)
    with needs("host"):
        from tutelage.host.explore.network_operations import create_operations
    return predict(create_operations(options.model, options.input or DEFAULT_INPUT), options.board)
