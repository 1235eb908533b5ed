"""One run of the application: set up the pipeline, run it, and report."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.app.model import Classifier
from tutelage.app.options import Options
from tutelage.app.outputs.by_uri import open_output, output_opener
from tutelage.app.outputs.fan_out import Outputs
from tutelage.app.outputs.output import Output, OutputError
from tutelage.app.outputs.registry import OutputContext
from tutelage.app.pipeline.gauges import Gauges
from tutelage.app.pipeline.lane import Lane
from tutelage.app.pipeline.pipeline import Pipeline, time_limit_of
from tutelage.app.pipeline.result import Result
from tutelage.app.pipeline.run_figures import RunFigures
from tutelage.app.sources.by_uri import open_source
from tutelage.app.sources.frames import shown_path
from tutelage.app.sources.load_patterns import (
    LoadPattern,
    LoadPatternSource,
    decoded_frames,
    verdict,
)
from tutelage.board.power import Power, open_power
from tutelage.board.provider import find_provider
from tutelage.board.realtime import Realtime, pace_facts
from tutelage.board.system import board_facts
from tutelage.core.board_profile import load_profile, thread_advice
from tutelage.core.errors import error_text

if TYPE_CHECKING:
    from tutelage.app.web import WebOutput

_LOOK_SECONDS = 0.2
_PAGE_STAYS_SECONDS = 3600.0  # after the run, without a viewer
_SCENARIO_SECONDS = 10.0
_TOP_ON_PAGE = 5


class Run:
    """A run whose source and runners are open and warmed up; `go` opens its outputs.

    Parameters
    ----------
    options : options of the command line
    classifier : the model
    stack : exit stack to which the run adds everything that it opens
    say : function that prints a line for the user

    Attributes
    ----------
    pipeline : the pipeline of this run

    Raises
    ------
    SourceError, ModelError, PowerError
        The source, model or power sensor cannot be opened; the message is one line.
    """

    def __init__(
        self,
        options: Options,
        classifier: Classifier,
        stack: ExitStack,
        say: Callable[[str], None],
    ) -> None:
        self._options = options
        self._say = say
        self._stop_asked = self._interrupted = False
        self._page: WebOutput | None = None
        self._classifier = classifier
        self._realtime = Realtime(options.realtime) if options.realtime else None
        if self._realtime:
            stack.callback(self._realtime.end)
        source = open_source(options.source, options.reconnect, options.live or None)
        stack.callback(source.close)
        self._origin = source
        self._load = _load(options)
        self._source, self._left_out = source, ""
        if self._load:
            samples, self._left_out = decoded_frames(source)
            self._source = LoadPatternSource(source.name, samples, self._load)
        self._top = options.top or (_TOP_ON_PAGE if options.wants_page else 1)
        self._figures = RunFigures()
        self._cores = load_profile().dpu_cores
        self.pipeline = self._make_pipeline()
        if not find_provider().is_emulation:
            machine = board_facts()["board"]
            for line in thread_advice(load_profile(), str(machine or ""), options.threads):
                say(line)
        self._power = self._open_power(stack)
        self._gauges = Gauges(self.pipeline, self._cores, self._power)
        self._outputs = Outputs(say)
        stack.callback(self._outputs.close)

    def _make_pipeline(self) -> Pipeline:
        options = self._options
        lanes = [
            Lane(self._classifier, self._top, options.in_flight) for _ in range(options.threads)
        ]
        slowest = max(lane.warm_up() for lane in lanes)
        return Pipeline(
            self._source,
            lanes,
            self._consume,
            limit=options.frames,
            workers=_workers(options),
            time_limit=options.time_limit or time_limit_of(slowest),
            cores=self._cores,
        )

    @property
    def reader_gone(self) -> bool:
        """Whether the reader of standard output has closed it."""
        return self._outputs.reader_gone

    def _open_power(self, stack: ExitStack) -> Power | None:
        if not self._options.power:
            return None
        power = open_power(self._options.power)
        stack.callback(power.close)
        self._idle = power.measure_idle(self._options.idle)
        power.start()
        return power

    def _open_outputs(self) -> None:
        """Open the outputs, the live table last, since it takes over the terminal."""
        options = self._options
        uris = list(options.output)
        if options.web is not None:
            uris.append(f"web:{options.web}")
        shown_elsewhere = options.quiet or options.json == "-" or "-" in uris
        if not shown_elsewhere and "terminal" not in uris:
            uris.append("terminal")
        self._check_files([*uris, options.json or "-"])
        for uri in uris:  # a refusal must come before the first file is overwritten
            if not _is_page(uri):
                output_opener(uri)
        for uri in sorted(uris, key="terminal".__eq__):
            self._outputs.open(uri, self._open_output(uri))

    def _check_files(self, uris: list[str]) -> None:
        """Raise OutputError if an output would overwrite the source or another output."""
        written: set[Path] = set()
        for uri in uris:
            if uri in ("-", "terminal", "window") or _is_page(uri):
                continue
            path = Path(uri).resolve()
            if self._origin.reads(path):
                raise OutputError(f"{uri}: the source would be overwritten; give another file")
            if path in written and path != Path(os.devnull):
                raise OutputError(f"{uri}: would be written twice; give each output its own file")
            written.add(path)

    def _open_output(self, uri: str) -> Output:
        if _is_page(uri):
            return self._open_page(uri.partition(":")[2])
        context = OutputContext(
            fps=self._source.fps,
            length=self._length,
            top=self._options.top or 1,
            label_width=max(map(len, self._classifier.labels)),
            gauges=self._gauges.read,
            say=self._say,
            stop=self.stop,
        )
        return open_output(uri, context=context)

    def _open_page(self, address: str) -> Output:
        from tutelage.app.web import WebOutput, find_token, parse_address

        try:
            host, port = parse_address(address)
        except ValueError as error:
            raise OutputError(f"--web {address}: {error}") from None
        token = find_token(host, self._options.web_token_file, self._options.web_token)
        facts = {**self._circumstances(), "board": board_facts()}
        text = None if token is None else token.text
        self._page = page = WebOutput(host, port, text, facts, self._gauges.read, self._length)
        # A token that the user supplied must not appear in terminals and journals.
        kept = token is not None and not token.shown
        self._page_url = page.address if kept else page.url
        self._say(f"the live page is at {self._page_url}")
        return page

    @property
    def _length(self) -> int | None:
        limits = [each for each in (self._source.length, self._options.frames) if each is not None]
        return min(limits, default=None)

    def _consume(self, result: Result) -> None:
        self._figures.add(result)
        self._outputs.add(result)
        if isinstance(self._source, LoadPatternSource):
            self._source.add(result)

    def _look(self) -> None:
        self._gauges.look()
        self._outputs.look()
        if self._outputs.reader_gone:
            self.pipeline.stop()

    def stop(self) -> None:
        """End the run after the frames in flight; safe in a signal handler."""
        self._stop_asked = True
        self.pipeline.stop()

    def go(self) -> None:
        """Open the outputs and run to the end. A page with a viewer stays until `stop`.

        Raises
        ------
        OutputError
            An output cannot be opened; the message is one line.
        """
        self._open_outputs()  # not earlier, since a viewer of the page may stop the run immediately
        # Exempt the objects of start-up from collections. A collection now would take as long as a
        # hundred frames and find next to nothing.
        gc.freeze()
        self._figures = RunFigures()  # its clock starts here, as the gauges' does
        self._gauges.restart()
        self.pipeline.run(self._look, self._outputs.look_seconds)
        gc.unfreeze()
        self._interrupted = self._stop_asked
        if self._power:
            self._power.stop()
        self._gauged = {**self._gauges.report(), "pace": pace_facts(self._options.realtime)}
        if self._realtime:
            self._gauged["realtime"] = self._realtime.report(self._classifier.network)
        if self._page:
            self._end_page(self._page)

    def _end_page(self, page: WebOutput) -> None:
        """Show the end on the page, and keep the page for its recordings if the run is complete.

        After an error the program ends at once, so that a service is restarted.
        """
        error = self._error()
        if error is None and (self._interrupted or not page.visited):
            return
        page.end_run(error)
        if error is not None:
            return
        self._say(
            f"the run has ended; its page stays at {self._page_url}; Ctrl-C ends it, "
            f"or {_PAGE_STAYS_SECONDS / 60:.0f} minutes without a viewer"
        )
        while not self._stop_asked and page.unseen_seconds < _PAGE_STAYS_SECONDS:
            self._outputs.look()
            time.sleep(_LOOK_SECONDS)

    def _error(self) -> str | None:
        """Return the error that ended the run early; None without one."""
        error = self.pipeline.error
        return error_text(error) if error else None

    def report(self) -> dict[str, Any]:
        """Return all figures of the run. The outputs must be closed."""
        figures = self._figures.report()
        left_out = [self._left_out] if self._left_out else []
        figures["frames"]["dropped"] = self.pipeline.dropped
        figures["frames"]["in"] += self.pipeline.dropped
        return {
            **self._circumstances(),
            **figures,
            **self._gauged,
            "scenario": self._load and verdict(self._load, figures),
            "power": self._power_report(),
            "source_figures": {**self._origin.report(), **self._source.report()},
            "outputs": self._outputs.report(),
            "warnings": [*self._classifier.notes, *self._origin.warnings(), *left_out],
            "interrupted": self._interrupted,
            "error": self._error(),
        }

    def _power_report(self) -> dict[str, Any] | None:
        if self._power is None:
            return None
        frames, figures = self._figures.classified, self._figures
        return self._power.report(figures.start, figures.last, frames, self._idle or None)

    def _circumstances(self) -> dict[str, Any]:
        """Return the facts about the run: provider, model, source and threads."""
        network, form = self._classifier.network, self._classifier.form
        return {
            "provider": network.provider,
            "model": {
                "name": self._classifier.name,
                "path": shown_path(network.path),
                "target": network.target,
                "dpu": network.dpu_name,
                "input": list(network.input.dims),
                "fix_point": network.input.fix_point,
                "classes": len(self._classifier.labels),
                "colour": form.colour,
                "mean": list(form.mean),
                "scale": list(form.scale),
                "crop": form.crop,
                "activation": self._classifier.activation,
                "provenance": self._classifier.provenance,
            },
            "source": self._source.name,
            "live": self._source.live,
            "threads": self._options.threads,
            "in_flight": self._options.in_flight,
        }


def _load(options: Options) -> LoadPattern | None:
    if not options.scenario:
        return None
    return LoadPattern(
        options.scenario,
        seconds=options.duration or _SCENARIO_SECONDS,
        qps=options.qps or 0.0,
        bound_ms=options.latency_bound,
    )


def _workers(options: Options) -> int:
    """Return the number of decoding threads: by default one for each CPU beyond the lanes'."""
    if options.workers is not None:
        return options.workers
    return max(0, len(os.sched_getaffinity(0)) - options.threads)


def _is_page(uri: str) -> bool:
    return uri.partition(":")[0] == "web"
