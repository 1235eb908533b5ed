#!/usr/bin/env python3
"""Classify what a camera, a video, an image or a directory of images shows, on the DPU."""

# ruff: noqa: E402  (the imports need the path that is set before them)

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a script, where `import app` would look in app/ only
    sys.path[:] = [str(ROOT), *(entry for entry in sys.path if entry != str(ROOT / "app"))]

from app.figures import Figures, summary_lines
from app.model import COLOURS, CROPS, Classifier, load_classifier, override
from app.outputs import Output, OutputError, Terminal, open_output
from app.pipeline import Lane, Pipeline
from app.sources import CameraError, Source, SourceError, open_source
from board.dpu import ModelError
from board.profile import load_profile

DONE, FAILED, WRONG_USE = 0, 1, 2
DEMO_MODEL = ROOT / "app" / "demo"

EXAMPLES = """\
examples:
  classify.py --camera                                      the first camera, until Ctrl-C
  classify.py --source photos/ --output results.csv         every image below photos/
  classify.py --source walk.mp4 --output seen.mp4 --quiet   a video, annotated
  classify.py --source digits/ --model net.xmodel --plugin ops.py --json figures.json

Images in sub-directories named like a label count as labelled: the accuracy is reported.
Without a board the DPU is emulated, bit for bit; the summary says which one it was.
Exit status: 0 done, 1 failed, 2 wrong use.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the application; return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return classify(options)
    except BrokenPipeError:  # an OSError, but the reader's own doing
        raise
    except (CameraError, OSError) as error:
        return _complain(str(error), FAILED)
    except (ModelError, SourceError, OutputError) as error:
        return _complain(str(error), WRONG_USE)
    except KeyboardInterrupt:
        return _complain("interrupted", FAILED)


def classify(options: argparse.Namespace) -> int:
    """Open everything, run every frame through, report; return the exit status."""
    _check_writable(options.json)
    with ExitStack() as stack:
        source = open_source(options.source)
        stack.callback(source.close)
        classifier = _classifier(options)
        lanes = [Lane(classifier, options.top) for _ in range(options.threads)]
        for lane in lanes:
            lane.warm_up()
        outputs = [open_output(uri, source.fps) for uri in options.output]
        if not options.quiet and options.json != "-":
            outputs.append(Terminal(max(map(len, classifier.labels))))
        for output in outputs:
            stack.callback(output.close)
        report = _run(Pipeline(source, lanes, options.frames), outputs)
    report = {**_circumstances(options, source, classifier), **report}
    _publish(report, options.json)
    return _status(report)


def _check_writable(json_path: str | None) -> None:
    """Refuse a file for the figures before the run, not after it."""
    if json_path is None or json_path == "-":
        return
    try:
        Path(json_path).open("a", encoding="utf-8").close()
    except OSError as error:
        raise OutputError(f"{json_path}: {error.strerror or error}") from error


def _classifier(options: argparse.Namespace) -> Classifier:
    classifier = load_classifier(options.model, options.plugin)
    return override(
        classifier,
        labels=_read_labels(options.labels) if options.labels else None,
        colour=options.colour,
        mean=options.mean,
        scale=options.scale,
        crop=options.crop,
    )


def _read_labels(path: Path) -> list[str]:
    """Return the lines of a file, one label each; empty lines at the end do not count."""
    try:
        return path.read_text(encoding="utf-8").rstrip().splitlines()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise ModelError(f"{path}: not a text file in UTF-8") from None


def _run(pipeline: Pipeline, outputs: Sequence[Output]) -> dict[str, Any]:
    """Take every result out of the pipeline; return the figures."""
    figures = Figures()
    with _stopped_by_signals(pipeline) as received:
        for result in pipeline:
            figures.add(result)
            for output in outputs:
                output.add(result)
    return {
        **figures.report(),
        "interrupted": bool(received),
        "error": str(pipeline.error) if pipeline.error else None,
    }


@contextmanager
def _stopped_by_signals(pipeline: Pipeline) -> Iterator[list[int]]:
    """Let Ctrl-C and SIGTERM end the reading; a second one ends the program at once."""
    received: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)

    def stop(number: int, _frame: object) -> None:
        received.append(number)
        pipeline.stop()
        for each in signals:
            signal.signal(each, before[each])

    before = {each: signal.signal(each, stop) for each in signals}
    try:
        yield received
    finally:
        for each in signals:
            signal.signal(each, before[each])


def _circumstances(
    options: argparse.Namespace, source: Source, classifier: Classifier
) -> dict[str, Any]:
    """Return what the figures were taken with."""
    network, form = classifier.network, classifier.form
    return {
        "provider": network.provider,
        "model": {
            "name": classifier.name,
            "path": str(network.path),
            "target": network.target,
            "dpu": network.dpu_name,
            "input": list(network.input.dims),
            "fix_point": network.input.fix_point,
            "classes": len(classifier.labels),
            "colour": form.colour,
            "mean": list(form.mean),
            "scale": list(form.scale),
            "crop": form.crop,
            "activation": classifier.activation,
            "provenance": classifier.provenance,
        },
        "source": source.name,
        "threads": options.threads,
    }


def _publish(report: dict[str, Any], json_path: str | None) -> None:
    """Print the summary, and write the figures where they were asked for."""
    # With the figures on standard output nothing else may be there.
    summary = sys.stderr if json_path == "-" else sys.stdout
    print("\n".join(summary_lines(report)), file=summary, flush=True)
    if json_path is None:
        return
    # default=str: provenance may hold TOML's dates.
    text = json.dumps(report, indent=2, ensure_ascii=False, default=str) + "\n"
    if json_path == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        Path(json_path).write_text(text, encoding="utf-8")


def _status(report: dict[str, Any]) -> int:
    if report["error"]:
        return FAILED
    nothing_asked_for = report["interrupted"] and not report["frames"]["in"]
    return DONE if report["frames"]["classified"] or nothing_asked_for else FAILED


def _complain(text: str, status: int) -> int:
    print(f"classify: {text}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="classify.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_argument_group("where images come from (one of)")
    one = source.add_mutually_exclusive_group(required=True)
    one.add_argument(
        "--camera",
        dest="source",
        nargs="?",
        const="/dev/video0",
        type=_camera,
        metavar="N",
        help="camera number N, the first one without N",
    )
    one.add_argument(
        "--source",
        metavar="URI",
        help="a directory of images, an image, a video file, or /dev/videoN",
    )
    source.add_argument("--frames", type=_at_least_one, metavar="N", help="stop after N frames")
    _add_model_options(parser.add_argument_group("the model"))
    _add_output_options(parser.add_argument_group("results"))
    return parser


def _add_model_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model",
        type=Path,
        default=DEMO_MODEL,
        metavar="PATH",
        help="model directory (model.xmodel and model.toml) or .xmodel file; default: the demo",
    )
    group.add_argument(
        "--plugin",
        type=Path,
        metavar="FILE",
        help="Python file with functions op_<type>(inputs, attrs) for operators run on the CPU",
    )
    group.add_argument(
        "--threads",
        type=_at_least_one,
        default=load_profile().dpu_cores,
        metavar="N",
        help="threads, each with a DPU runner and two jobs in flight; default: %(default)s",
    )
    group.add_argument("--labels", type=Path, metavar="FILE", help="labels, one per line")
    group.add_argument("--colour", choices=list(COLOURS), help="channel order the model takes")
    group.add_argument(
        "--mean", type=float, nargs="+", metavar="M", help="taken off pixels 0..255, per channel"
    )
    group.add_argument(
        "--scale", type=float, nargs="+", metavar="S", help="then multiplied with, per channel"
    )
    group.add_argument("--crop", choices=CROPS, help="center: the middle part; none: stretch")


def _add_output_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--output",
        action="append",
        default=[],
        metavar="FILE",
        help="write results to FILE.jsonl or .csv, or an annotated video .mp4 or .avi; repeatable",
    )
    group.add_argument(
        "--json", metavar="FILE", help="write the summary's figures as JSON; - is standard output"
    )
    group.add_argument(
        "--top", type=_at_least_one, default=1, metavar="K", help="show the K best classes"
    )
    group.add_argument("--quiet", action="store_true", help="no line per frame, only the summary")


def _at_least_one(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return number


def _camera(text: str) -> str:
    if text.isdigit():
        return f"/dev/video{text}"
    if text.startswith("/dev/video"):
        return text
    raise argparse.ArgumentTypeError(f"{text} is not a camera number; files go to --source")


def run() -> int:
    """Run as a program: a reader of the output that goes away (`| head`) is no error to tell."""
    try:
        status = main()
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


if __name__ == "__main__":
    sys.exit(run())
