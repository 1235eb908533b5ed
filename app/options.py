"""The command line of the application."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from tutelage.app.messages import PROGRAM
from tutelage.app.outputs.by_uri import outputs_help
from tutelage.app.pipeline.pipeline import DEFAULT_TIME_LIMIT
from tutelage.app.sources.camera import is_camera
from tutelage.app.sources.load_patterns import LOAD_PATTERNS
from tutelage.app.sources.registry import SOURCES
from tutelage.board.power.sources.registry import source_names
from tutelage.core.board_profile import load_profile
from tutelage.core.deployed_model import default_model
from tutelage.core.errors import WRONG_USE
from tutelage.core.images.input_form import COLOURS, CROPS

SCRIPT = "classify.py"
MOST_THREADS = 64
SOURCE_VARIABLE, TOKEN_VARIABLE = "TUTELAGE_SOURCE", "TUTELAGE_WEB_TOKEN"
"""Environment variables for secrets, since all users of a machine can see command lines."""

DESCRIPTION = """\
Classify images from a camera, a video, a stream or a directory on the DPU.
Without a board the DPU is emulated, bit for bit; the summary says which was used."""


class _Parser(argparse.ArgumentParser):
    """Parser that answers wrong use with one line of advice instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        exclusive = "not allowed with argument" in message  # argparse's own words
        self.refuse(message, "; give one of them" if exclusive else f"\ntry: {self.prog} --help")

    def refuse(self, message: str, advice: str) -> NoReturn:
        """End the program."""
        self.exit(WRONG_USE, f"{PROGRAM}: {message}{advice}\n")


@dataclass
class Options:
    """The checked options; None if an option was not given and has no default.

    Each field is the option of the same name in `--help`, which gives the units. `source` is also
    set by --camera; `web_token` comes from the environment only.
    """

    source: str
    frames: int | None
    live: bool
    reconnect: float
    model: Path
    plugin: Path | None
    labels: Path | None
    colour: str | None
    mean: list[float] | None
    scale: list[float] | None
    crop: str | None
    web: str | None
    web_token_file: Path | None
    json: str | None
    top: int | None
    quiet: bool
    threads: int
    in_flight: int
    workers: int | None
    time_limit: float | None
    realtime: str | None
    power: str | None
    idle: float
    scenario: str | None
    duration: float | None
    qps: float | None
    latency_bound: float | None
    output: list[str] = field(default_factory=list)
    web_token: str | None = None

    @property
    def wants_page(self) -> bool:
        """Whether the live page is requested, by --web or as an output."""
        return self.web is not None or any(uri.split(":")[0] == "web" for uri in self.output)


def read_options(arguments: Sequence[str] | None = None, program: str = SCRIPT) -> Options:
    """Return the options of a command line, completed from the environment.

    Parameters
    ----------
    arguments : command line without the program's name; None for that of this process
    program : the program's name in help and advice

    Raises
    ------
    SystemExit
        The options are wrong, or include --help. The text has been printed.
    """
    parser = _make_parser(program)
    options = Options(**vars(parser.parse_args(arguments)))
    _check(options, parser)
    return options


def command_line_parser(program: str) -> argparse.ArgumentParser:
    """Return the parser of the application's options."""
    return _make_parser(program)


def _make_parser(program: str) -> _Parser:
    parser = _Parser(
        prog=program,
        description=DESCRIPTION,
        epilog=_epilog(program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        usage="%(prog)s (--camera [N] | --source URI) [options]",
    )
    _add_source(parser.add_argument_group("source (--camera or --source is required)"))
    _add_model(parser.add_argument_group("the model"))
    _add_outputs(parser.add_argument_group("results"))
    _add_running(parser.add_argument_group("running"))
    _add_measuring(parser.add_argument_group("measuring"))
    return parser


def _epilog(program: str) -> str:
    return f"""\
sources (URI of --source):
{SOURCES.help_text()}

outputs (URI of --output, may be repeated):
{outputs_help()}

examples:
  {program} --camera --web                      the first camera, live page on localhost:8080
  {program} --camera --web 0.0.0.0 --web-token-file token    for other machines, with a fixed token
  {program} --camera 1,size=1280x720,fps=30     the second camera, with size and rate
  {program} --source photos/ --output out.csv   every image below photos/
  {program} --source walk.mp4 --output seen.mp4 --quiet      a video, annotated
  {program} --source digits/ --model net.xmodel --plugin ops.py --json figures.json
  {program} --source photos/ --scenario server --qps 200 --latency-bound 15
  ffmpeg -i walk.mp4 -f mjpeg - | {program} --source - --output - > seen.jsonl

Images in sub-directories named after a label count as labelled: the accuracy is reported.
If a camera is faster than the DPU, its oldest frames are dropped and counted; frames of
files never are. A camera that is lost and does not come back ends the run with status 1.
Ctrl-C finishes the frames in flight and ends the run; a second Ctrl-C ends it at once.
Exit status: 0 done, 1 failed (also if an output failed), 2 wrong use.
"""


def _check(options: Options, parser: _Parser) -> None:
    """Complete the options from the environment; end the program if they contradict each other."""
    # Removed from the environment, so that child processes do not inherit secrets.
    source = os.environ.pop(SOURCE_VARIABLE, None)
    options.web_token = os.environ.pop(TOKEN_VARIABLE, None)
    if options.source is None:
        options.source = source
    if options.source is None:
        parser.refuse(
            "no source; give --camera or --source",
            f"\ntry: {parser.prog} --camera, or: {parser.prog} --source photos/ (--help has more)",
        )
    if "" in (options.source, *options.output):
        parser.error("a source or output is empty; is a shell variable not set?")
    if options.scenario == "server" and options.qps is None:
        parser.error("--scenario server needs the arrivals per second, such as --qps 100")
    if options.scenario != "server" and (options.qps or options.latency_bound):
        parser.error("--qps and --latency-bound need --scenario server")
    if options.duration and not options.scenario:
        parser.error("--duration needs --scenario; --frames N ends any run after N frames")
    if options.web_token_file and not options.wants_page:
        parser.error("--web-token-file needs --web")
    if options.json == "-" and "-" in options.output:
        parser.error("--json - and --output - would share standard output; give one a file")


def _add_source(group: argparse._ArgumentGroup) -> None:
    # `_check` verifies that one is given, so that typing errors are reported first.
    one = group.add_mutually_exclusive_group()
    one.add_argument(
        "--camera",
        dest="source",
        nargs="?",
        const="/dev/video0",
        type=_camera,
        metavar="N",
        help="camera number N (default: the first); with options: "
        "N,size=1280x720,fps=30,format=MJPG",
    )
    one.add_argument(
        "--source",
        metavar="URI",
        help="one of the sources listed below; default: $TUTELAGE_SOURCE, which keeps a URL's "
        "password out of the process list",
    )
    group.add_argument("--frames", type=_at_least_one, metavar="N", help="stop after N frames")
    group.add_argument(
        "--live",
        action="store_true",
        help="treat a file or standard input as live: drop the oldest frames rather than wait",
    )
    group.add_argument(
        "--reconnect",
        type=_not_negative,
        default=60.0,
        metavar="S",
        help="wait S seconds for a lost camera or stream; 0: end at once; default: %(default)g",
    )


def _add_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model",
        type=Path,
        default=default_model(),
        metavar="PATH",
        help="model directory (model.xmodel and model.toml) or .xmodel file; "
        "default: on a board the deployed one, else the demo",
    )
    group.add_argument(
        "--plugin",
        type=Path,
        metavar="FILE",
        help="Python file with functions op_<type>(inputs, attrs) for CPU ops",
    )
    group.add_argument(
        "--labels", type=Path, metavar="FILE", help="labels, one line for each class"
    )
    group.add_argument("--colour", choices=list(COLOURS), help="channel order of the model's input")
    group.add_argument(
        "--mean",
        type=float,
        nargs="+",
        metavar="M",
        help="mean subtracted from pixels 0..255; per channel, or one for all",
    )
    group.add_argument(
        "--scale",
        type=float,
        nargs="+",
        metavar="S",
        help="factor applied after subtracting --mean; per channel, or one for all",
    )
    group.add_argument(
        "--crop",
        choices=CROPS,
        help="part of an image: center (the central part) or none (the whole image, stretched)",
    )


def _add_outputs(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--output",
        action="append",
        default=[],
        metavar="URI",
        help="one of the outputs listed below; may be repeated",
    )
    group.add_argument(
        "--web",
        nargs="?",
        const="",
        metavar="HOST:PORT",
        help="serve the live page; default: 127.0.0.1:8080; other addresses need a token",
    )
    group.add_argument(
        "--web-token-file",
        type=Path,
        metavar="FILE",
        help="read the live page's token from a private file, which is created if missing; "
        "default: $TUTELAGE_WEB_TOKEN, or else a new token for each run",
    )
    group.add_argument(
        "--json", metavar="FILE", help="write all figures as JSON; - is standard output"
    )
    group.add_argument(
        "--top",
        type=_at_least_one,
        metavar="K",
        help="show the K best classes in records, tables and on the page; default: 1, "
        "or 5 with the live page",
    )
    group.add_argument("--quiet", action="store_true", help="print only the summary")


def _add_running(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--threads",
        type=_threads,
        default=2 * load_profile().dpu_cores,
        metavar="N",
        help="threads, each with a DPU runner; default: %(default)s, two for each core of the "
        "DPU: one preprocesses while the other waits for the core",
    )
    group.add_argument(
        "--in-flight",
        type=_threads,
        default=1,
        metavar="N",
        help="jobs that each runner has at once; default: %(default)s; larger numbers are useful "
        "only if VART's execute_async returns before its job is done, which it does not on an edge "
        "board",
    )
    group.add_argument(
        "--workers",
        type=_workers,
        metavar="N",
        help="additional threads that decode image files and JPEGs; default: CPUs beyond --threads",
    )
    group.add_argument(
        "--time-limit",
        type=_positive,
        metavar="S",
        help="replace a runner that has not answered within S seconds; "
        f"default: {DEFAULT_TIME_LIMIT:g}, or 20 times the first job if that is longer",
    )
    group.add_argument(
        "--realtime",
        metavar="BOARD",
        help="slow the emulation down to the predicted speed of a board, such as zcu104",
    )


def _add_measuring(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--power",
        nargs="?",
        const="auto",
        choices=("auto", *source_names()),
        help="measure power: the board's rails, or a PC's sensors",
    )
    group.add_argument(
        "--idle",
        type=_not_negative,
        default=0.0,
        metavar="S",
        help="first measure the idle power for S seconds, to report the energy above idle",
    )
    group.add_argument(
        "--scenario",
        choices=LOAD_PATTERNS,
        help="issue frames from memory repeatedly, in one of MLPerf's load patterns",
    )
    group.add_argument(
        "--duration", type=_positive, metavar="S", help="length of a scenario, s; default: 10"
    )
    group.add_argument(
        "--qps", type=_positive, metavar="R", help="mean arrivals per second, for scenario server"
    )
    group.add_argument(
        "--latency-bound",
        type=_positive,
        metavar="MS",
        help="latency that 99%% of the frames must not exceed, for scenario server",
    )


def _whole(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least {least}")
    return number


def _at_least_one(text: str) -> int:
    return _whole(text, 1)


def _threads(text: str) -> int:
    if _whole(text, 1) > MOST_THREADS:
        raise argparse.ArgumentTypeError(f"{text} is too many; {MOST_THREADS} at most")
    return int(text)


def _workers(text: str) -> int:
    return 0 if _whole(text, 0) == 0 else _threads(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def _not_negative(text: str) -> float:
    return 0.0 if text in ("0", "0.0") else _positive(text)


def _camera(text: str) -> str:
    if is_camera(text):
        return text
    raise argparse.ArgumentTypeError(f"{text} is not a camera number; give files as --source")
