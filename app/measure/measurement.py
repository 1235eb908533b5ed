"""The whole measurement: baseline, then warm-up, window and rest for every step, then the end.

Frames are timed and rails are read in the same process, on one monotonic clock. Doubts about a
window are stored with it; conditions that rule out a measurement are checked before it begins.
After every window all figures are on the disk.
"""

from __future__ import annotations

import gc
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tutelage.app.measure import recorder as recording
from tutelage.app.measure import store as storing
from tutelage.app.measure.core_use import CoreUse
from tutelage.app.measure.facts import first_results
from tutelage.app.measure.plan import REFUSALS, MeasurementSettings, Step
from tutelage.app.measure.readings import READ_SECONDS, Readings, extremes
from tutelage.app.measure.recorder import COLUMNS, FrameRecorder
from tutelage.app.measure.step_figures import idle_power, step_figures
from tutelage.app.measure.store import Store, StoreError
from tutelage.app.measure.summary import summary
from tutelage.app.measure.warnings import runner_warnings, window_warnings
from tutelage.app.model import Classifier
from tutelage.app.pipeline.lane import Lane
from tutelage.app.pipeline.pipeline import FAILURES_IN_A_ROW, Pipeline, time_limit_of
from tutelage.app.pipeline.result import Result
from tutelage.app.sources.frames import Frame
from tutelage.app.sources.load_patterns import LoadPattern, LoadPatternSource
from tutelage.board import condition
from tutelage.board.condition import Condition, ConditionWatch, concerns
from tutelage.board.model_parts import ModelError
from tutelage.board.power import Power
from tutelage.board.realtime import Realtime
from tutelage.core.board_profile import Profile, thread_hazards
from tutelage.core.errors import MeasureError, error_text, first_line
from tutelage.core.results.figure import Figure
from tutelage.core.results.run_json import (
    DONE,
    RUN_FILE,
    RUNNING,
    Concern,
    IdleResults,
    RunResults,
    SensorWarning,
    StepResults,
    run_text,
)
from tutelage.core.text import counted

_LOOK_SECONDS = 0.25
_CHECK_SECONDS = 3.0  # duration of one check of the machine before the measurement
_MOST_CHECKS = 5  # checks are repeated while other processes are busy
_SPARE_SECONDS = 0.5  # frames are issued for this long after the window
_COOL_C = 5.0  # a rest lasts until the chip is at most this much warmer than at the start,
_LONGEST_REST = 5  # but at most this many times the cool-down
_SPARE_BYTES = 16 << 20  # of disk space for all files but frames.csv
_FRAME_BYTES = 90  # of a line in frames.csv
_MOST_IDLE_CHANGE = 0.01  # between the two idle baselines, relative


@dataclass(frozen=True)
class _Course:
    """What is known of a step's window besides its frames and the sensors' readings.

    Attributes
    ----------
    busy : utilisation of the DPU's cores, 0 to 1; None if unknown
    faults : the warning about the runners, if there is one
    arrived : indices of the frames that arrived; "server" only
    """

    busy: float | None
    faults: list[Concern]
    arrived: range | None


class Measurement:
    """One measurement of one model.

    Parameters
    ----------
    settings, classifier : the plan and the model
    samples : the frames that are issued in turn
    power : power sampler, not started
    profile : board profile
    files : directory of the results
    say : function that prints a line for the user

    Attributes
    ----------
    run : all results so far, the content of run.json
    """

    def __init__(
        self,
        settings: MeasurementSettings,
        classifier: Classifier,
        samples: list[Frame],
        power: Power,
        profile: Profile,
        files: Store,
        say: Callable[[str], None],
    ) -> None:
        self._settings, self._classifier, self._samples = settings, classifier, samples
        self._power, self._profile, self._files = power, profile, files
        self._say = say
        watch = ConditionWatch()
        self._readings = Readings(watch, power, files)
        self._phase = ""
        self._pipeline: Pipeline | None = None
        self._stop_asked = False
        self._steps = list(settings.steps)
        self.run: RunResults = first_results(
            settings, classifier, len(samples), power, profile, watch
        )

    @property
    def measuring(self) -> bool:
        """Whether frames are being issued, in a warm-up or a window."""
        return self._pipeline is not None

    def stop(self) -> None:
        """End the measurement and discard the current window; safe in a signal handler."""
        self._stop_asked = True
        if self._pipeline:
            self._pipeline.stop()

    def go(self) -> None:
        """Measure everything.

        Raises
        ------
        MeasureError
            The measurement was refused, stopped or interrupted. Complete windows are stored.
        """
        try:
            self._check()
            self._measure()
            self.run.state = DONE
        except StoreError as error:
            self.run.error = f"cannot store the results: {error}"
            raise MeasureError(self.run.error) from error
        except Exception as error:
            self.run.error = first_line(error)
            raise
        finally:
            if self.run.state == RUNNING:
                self.run.state = "stopped" if self._stop_asked else "failed"
            self._end()

    # ---- phases

    def _check(self) -> None:
        """Refuse conditions that spoil the figures; leave out steps that may reset the board."""
        lane = Lane(self._classifier)
        self._job_seconds = lane.warm_up()
        self._leave_out_hazards()
        found = [*self._look_around(), *self._disk()]
        refused = [f"{c.name}: {c.text}" for c in found if c.name not in self._settings.accepted
                   and c.name in REFUSALS]  # fmt: skip
        if refused:
            self.run.state = "refused"
            raise MeasureError("; ".join(refused) + " (--accept NAME measures anyway)")
        self.run.notes += [f"before the start: {c.name}: {c.text}" for c in found]
        if not self._steps:
            raise MeasureError("all steps were left out; nothing to measure")
        self._start_c = self._readings.conditions[-1].temperature_c

    def _look_around(self) -> list[Concern]:
        """Return the concerns about the machine's state.

        Repeats the check while other processes are busy, since those that started this one may
        take a while to end.
        """
        for _ in range(1 if "disturbed" in self._settings.accepted else _MOST_CHECKS):
            start, end = self._pass("check", _CHECK_SECONDS)
            found = self._concerns(self._readings.between(start, end), at_rest=True)
            if not any(concern.name == "disturbed" for concern in found):
                break
        return found

    def _leave_out_hazards(self) -> None:
        if self.run.emulation:
            return
        machine, kept = self.run.machine.board, []
        for step in self._steps:
            found = [hazard for hazard in thread_hazards(self._profile, machine, step.threads)
                     if hazard.name not in self._settings.accepted]  # fmt: skip
            for hazard in found[:1]:
                self._note(f"{step.name}: left out: {hazard.name}: {hazard.text}; {hazard.remedy}; "
                           f"then --accept {hazard.name}")  # fmt: skip
            if not found:
                kept.append(step)
        self._steps = kept

    def _disk(self) -> list[Concern]:
        """Compare the free space with the size of frames.csv at the DPU's full speed."""
        phases, free = self._settings.phases, shutil.disk_usage(self._files.folder).free
        frames = phases.total(len(self._steps)) * self._profile.dpu_cores / self._job_seconds
        needed = _SPARE_BYTES + _FRAME_BYTES * round(frames)
        if free >= needed:
            return []
        return [Concern("disk", f"{free >> 20} MiB are free, {needed >> 20} may be needed")]

    def _measure(self) -> None:
        phases = self._settings.phases
        self._files.event("plan", steps=[step.name for step in self._steps],
                          seconds=phases.total(len(self._steps)))  # fmt: skip
        self._power.start()
        self._readings.begin_power()
        idle = self._idle("before")
        for number, step in enumerate(self._steps):
            if number:
                self._rest()
            self._measure_step(number, step, idle)
        self._rest()
        after = self._idle("after")
        if idle.value is not None and after.value is not None:
            chance = math.hypot(idle.half_width or 0.0, after.half_width or 0.0)
            change = after.value - idle.value
            if abs(change) > max(_MOST_IDLE_CHANGE * idle.value, chance):
                self._note(f"the idle power changed by {change:+.2f} W meanwhile: figures above "
                           "idle are uncertain by as much")  # fmt: skip

    def _idle(self, when: str) -> Figure:
        start, end = self._pass(f"idle {when}", self._settings.phases.idle)
        idle = idle_power(self._power, start, end)
        found = self._concerns(self._readings.between(start, end), at_rest=True)
        self.run.idle[when] = IdleResults(idle, *self._window(start, end), found)
        self._save()
        return idle

    def _rest(self) -> None:
        """Wait until the chip has cooled down to its initial temperature, within limits."""
        least = self._settings.phases.cool_down
        start, _ = self._pass("cool-down", least)
        while True:
            now = self._readings.conditions[-1].temperature_c
            if now is None or self._start_c is None or now <= self._start_c + _COOL_C:
                return
            if time.monotonic() >= start + _LONGEST_REST * least:
                break
            self._pass("cool-down", READ_SECONDS)
        self._note(f"the chip did not cool down: {now:.0f} C after {_LONGEST_REST * least:g} s of "
                   f"rest, {self._start_c:.0f} C at the start")  # fmt: skip

    def _pass(self, phase: str, seconds: float) -> tuple[float, float]:
        """Wait without work; return the start and the end, monotonic time, s."""
        self._begin(phase, seconds)
        start = time.monotonic()
        while (left := start + seconds - time.monotonic()) > 0:
            if self._stop_asked:
                raise MeasureError("stopped")
            time.sleep(min(left, _LOOK_SECONDS))
            self._readings.look()
        return start, time.monotonic()

    def _measure_step(self, number: int, step: Step, idle: Figure) -> None:
        phases, recorder = self._settings.phases, FrameRecorder()
        realtime = Realtime(self._settings.realtime) if self._settings.realtime else None
        try:
            lanes = [Lane(self._classifier, 1, self._settings.in_flight)
                     for _ in range(step.threads)]  # fmt: skip
            slowest = max(self._ready(lane) for lane in lanes)
            load = LoadPattern(step.scenario, phases.warm_up + phases.seconds + _SPARE_SECONDS,
                        qps=step.qps, bound_ms=step.bound_ms)  # fmt: skip
            self._begin(step.name, phases.warm_up + phases.seconds, step=number)
            gc.collect()  # before the warm-up, since it takes long in a large process
            start = time.monotonic() + phases.warm_up
            course = self._run_pipeline(lanes, load, recorder, slowest, start)
            pace = realtime.report(self._classifier.network) if realtime else None
        finally:
            if realtime:
                realtime.end()
        self._take_in(number, step, recorder, start, idle, course, pace)

    def _ready(self, lane: Lane) -> float:
        """Warm a lane up. The model has run before, so an error here is the DPU's."""
        try:
            return lane.warm_up()
        except ModelError as error:
            raise MeasureError(str(error)) from error

    def _run_pipeline(
        self,
        lanes: Sequence[Lane],
        load: LoadPattern,
        recorder: FrameRecorder,
        slowest: float,
        start: float,
    ) -> _Course:
        """Run a load to its end.

        Parameters
        ----------
        slowest : longest warm-up job of the lanes, s
        start : start of the window, monotonic time, s

        Raises
        ------
        MeasureError
            The load ended early, or a thread was given up.
        """
        source = LoadPatternSource(self._settings.images, self._samples, load)

        def consume(result: Result) -> None:
            recorder.add(result)
            source.add(result)

        pipeline = Pipeline(source, lanes, consume, time_limit=time_limit_of(slowest),
                            cores=self._profile.dpu_cores)  # fmt: skip
        use = CoreUse(pipeline, start, start + self._settings.phases.seconds)
        self._pipeline = pipeline
        # Up to the end of the run, since a runner that does not answer is noticed late.
        before = _fault_counts(pipeline)
        gc.freeze()  # else each collection would traverse all objects made at start-up

        def look() -> None:
            nonlocal before
            use.look()
            self._readings.look()
            if time.monotonic() < start:
                before = _fault_counts(pipeline)
            # `stop` may have been called before there was a pipeline. A backlog of "server" at the
            # end of the window is not worked off: its rate was too high.
            over = time.monotonic() > use.end + _SPARE_SECONDS
            if over or self._stop_asked or pipeline.given_up:
                pipeline.stop()

        try:
            pipeline.run(look, _LOOK_SECONDS)
        finally:
            self._pipeline = None
            gc.unfreeze()
        self._refuse_incomplete(pipeline)
        after = _fault_counts(pipeline)
        faults = runner_warnings(*(b - a for a, b in zip(before, after, strict=True)))
        arrived = source.arrivals(start, use.end) if load.scenario == "server" else None
        return _Course(use.share(), faults, arrived)

    def _refuse_incomplete(self, pipeline: Pipeline) -> None:
        """Raise MeasureError if a load ended early, or did not have all its threads to the end."""
        if self._stop_asked:
            raise MeasureError("stopped")
        if pipeline.error:
            raise MeasureError(error_text(pipeline.error))
        if pipeline.given_up:
            raise MeasureError(
                f"{self._phase}: {counted(pipeline.given_up, 'thread')} given up, since the "
                f"runners failed {FAILURES_IN_A_ROW} times in a row: "
                f"{error_text(pipeline.runner_error)}"
            )

    def _take_in(
        self,
        number: int,
        step: Step,
        recorder: FrameRecorder,
        start: float,
        idle: Figure,
        course: _Course,
        pace: dict[str, Any] | None,
    ) -> None:
        """Compute a step's figures and store them with its frames."""
        seconds = self._settings.phases.seconds
        end = start + seconds
        rows = recorder.rows()
        figures = step_figures(rows, start, end, self._power, idle, course.arrived)
        readings = self._readings.between(start - self._settings.phases.warm_up, end)
        # The emulation causes no load in a kernel driver, so all of that load is other work.
        others = self._concerns(readings, at_rest=self.run.emulation)
        found = [*others, *window_warnings(figures, step, seconds, pace), *course.faults]
        start_s, end_s = self._window(start, end)
        self.run.steps.append(StepResults(
            name=step.name, start_s=start_s, end_s=end_s, dpu_utilisation=course.busy,
            realtime=pace, conditions=extremes(readings), concerns=found, **asdict(step),
            **vars(figures),
        ))  # fmt: skip
        rows[:, recording.DONE] -= self._files.origin
        self._files.append(storing.FRAMES, ("step", *COLUMNS),
                           ((number, *row.tolist()) for row in rows))  # fmt: skip
        self._save()
        self._files.event("step", name=step.name, fps=figures.fps.value,
                          latency_ms=figures.latency_ms.p50.value,
                          watts=figures.power.watts.value,
                          concerns=[concern.name for concern in found])  # fmt: skip

    # ---- observation and storage

    def _begin(self, phase: str, seconds: float, **details: Any) -> None:
        if phase != self._phase:
            self._files.event("phase", name=phase, seconds=seconds, **details)
        self._phase = phase

    def _concerns(self, readings: Sequence[Condition], at_rest: bool) -> list[Concern]:
        clocks, machine = self.run.clocks, self.run.machine.board or ""
        # The profile's limit is that of its board's chip; a PC's limit is unknown.
        limit = self._profile.limit_c if self._profile.name in machine else None
        return concerns(readings, limit, clocks.governor, clocks.highest_mhz, at_rest)

    def _window(self, start: float, end: float) -> tuple[float, float]:
        origin = self._files.origin
        return round(start - origin, 6), round(end - origin, 6)

    def _note(self, text: str) -> None:
        self.run.notes.append(text)
        self._say(text)

    def _save(self) -> None:
        """Write everything to the disk; called outside of the windows."""
        self._readings.save()
        self._publish()

    def _publish(self) -> None:
        found = [SensorWarning(*warning) for warning in self._power.doubts()]
        for warning in found[len(self.run.power.doubts) :]:
            self._say(warning.text)
        self.run.power.doubts = found
        self._files.write_text(RUN_FILE, run_text(self.run))
        self._files.write_text(storing.SUMMARY, summary(self.run))

    def _end(self) -> None:
        self._power.stop()
        self.run.seconds = round(time.monotonic() - self._files.origin, 3)
        step = condition.wall_clock_step(self._readings.conditions)
        if abs(step) >= condition.MOST_CLOCK_STEP_SECONDS:
            self.run.notes.append(f"the wall clock was set by {step:+.1f} s meanwhile; "
                                     "durations are not affected")  # fmt: skip
        # One by one: a full disk may have no room for the readings, but for the final state.
        for act in (self._files.free_reserve, self._readings.save, self._publish, self._seal):
            try:
                act()
            except StoreError as error:
                self._say(f"{error}; the figures of complete windows are stored")

    def _seal(self) -> None:
        self._files.event("end", state=self.run.state, error=self.run.error)
        self._files.seal()


def _fault_counts(pipeline: Pipeline) -> tuple[int, int, int]:
    return pipeline.restarts, pipeline.hangs, pipeline.retried
