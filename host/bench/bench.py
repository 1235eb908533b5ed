"""The comparison: a process for each platform, each of which every repetition measures in turn.

A process waits on its standard input while others are measured. The order of the platforms is
rotated by one with each repetition, so that slow changes of the machine affect all of them alike.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.core.results.bench_json import (
    ABSENT,
    CPU,
    DONE,
    DPU,
    FAILED,
    GPU,
    INTERRUPTED,
    BenchImages,
    BenchModel,
    BenchResults,
    BenchRow,
    BenchSettings,
    MeterFacts,
)
from tutelage.core.results.figure import MEASURED
from tutelage.core.results.intervals import difference, median_figure
from tutelage.core.results.percentiles import PERCENTS
from tutelage.core.results.run_json import Percentiles
from tutelage.core.text import counted
from tutelage.host.bench.dpu_rows import predicted_row
from tutelage.host.bench.duration import BATCHES, IDLE_SECONDS, TRY_SECONDS, expected
from tutelage.host.bench.environment import cpu_name, machine_facts
from tutelage.host.bench.given_watts import give_watts
from tutelage.host.bench.meter import Meter, median_reading
from tutelage.host.bench.platform import CATALOGUE, PEERS, REFERENCE_NAME
from tutelage.host.bench.process import JsonProcess, ProcessError
from tutelage.host.bench.subject import Subject
from tutelage.host.bench.subject_files import UNKNOWN, XMODEL_FILE, Images
from tutelage.host.bench.thesis import thesis_table
from tutelage.host.train.progress import Steps

_PREPARE_SECONDS = 900.0  # torch.compile of a large network takes minutes
_SPARE_SECONDS = 300.0  # for an answer, beyond the length of the windows
_MOST_OTHER_CORES = 0.1
_LEAST_SAME_CLASS = 98.0  # percent; the rounding of halves costs a student about half a percent
_LEAST_FRAMES = 100  # of SingleStream; with fewer the 99th percentile is the maximum

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Bench:
    """One comparison.

    Parameters
    ----------
    settings : platforms, windows and repetitions
    subject : the student to compare
    images : the images to classify
    measured : rows of `tutelage.host.bench.dpu_rows.read_runs`
    say : called with each line of progress for the user
    meter_arguments : further arguments of `tutelage.board.power`
    """

    def __init__(
        self,
        settings: BenchSettings,
        subject: Subject,
        images: Images,
        measured: Sequence[BenchRow] = (),
        say: Callable[[str], None] = print,
        meter_arguments: Sequence[str] = (),
    ) -> None:
        self._settings, self._subject, self._images = settings, subject, images
        self._say, self._meter_arguments = say, meter_arguments
        self._cpus = sorted(os.sched_getaffinity(0))[: settings.threads]
        self._began = _now()
        self._machine = machine_facts(self._cpus, settings.threads)
        self._processes: dict[str, JsonProcess] = {}
        self._meters: dict[str, Meter] = {}
        self._reference: NDArray[np.int64] | None = None
        self._reference_absent = ""
        self._state = "running"
        self._platforms = {name: self._new_row(name) for name in settings.platforms}
        dpu = list(measured)
        if not any(row.family == DPU for row in dpu):
            dpu.append(predicted_row(subject, settings.board))
        self._dpu = dpu

    @property
    def rows(self) -> list[BenchRow]:
        """Rows of the platforms, then of the DPUs, in the order of the tables."""
        return [*self._platforms.values(), *self._dpu]

    def _new_row(self, name: str) -> BenchRow:
        entry = CATALOGUE[name]
        return BenchRow(name, entry.title, entry.family, MEASURED, "tutelage bench", self._began,
                   f"this machine, {cpu_name()}", INTERRUPTED, "not reached")  # fmt: skip

    def go(self) -> None:
        """Measure; after Ctrl-C the rows have the repetitions that are complete."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            stack.callback(self._close)
            try:
                self._measure(folder)
                self._state = "done"
            except KeyboardInterrupt:
                self._state = INTERRUPTED
            self._finish(folder)

    def _measure(self, folder: Path) -> None:
        settings, rows = self._settings, self._platforms.values()
        self._say(expected(settings, self._subject).text)
        asked = PEERS & set(self._platforms)
        notes = self._subject.write(folder, self._images, peers=bool(asked))
        for name in asked:
            self._platforms[name].concerns += notes
        families = {CATALOGUE[name].family for name in self._platforms}
        for family in (CPU, GPU):
            if family in families:
                self._meters[family] = Meter(family, folder, self._meter_arguments)
        self._measure_idle()
        self._take_reference(folder)
        with Steps(len(rows)) as steps:
            for row in rows:
                steps.begin("preparing")
                self._say(f"preparing {row.title}")
                self._guarded(row, partial(self._prepare, row, folder))
        names = list(self._processes)
        with Steps(settings.repetitions * len(names)) as steps:
            for number in range(settings.repetitions):
                self._say(f"repetition {number + 1} of {settings.repetitions}")
                turn = number % len(names) if names else 0
                for name in names[turn:] + names[:turn]:
                    steps.begin(name)
                    if name in self._processes:
                        row = self._platforms[name]
                        self._guarded(row, partial(self._repeat, row))

    def _measure_idle(self) -> None:
        """Measure idle power, if there is a meter, before any platform's process starts."""
        meters = [meter for meter in self._meters.values() if meter.source != "none"]
        if meters:
            seconds = min(IDLE_SECONDS, 5 * self._settings.seconds)
            self._say(f"measuring idle power for {seconds:g} s")
            start = time.monotonic()
            time.sleep(seconds)
            for meter in meters:
                meter.take_idle(start, time.monotonic())

    def _guarded(self, row: BenchRow, step: Callable[[], None]) -> None:
        """Run a step of a platform; if it fails, end this row only."""
        try:
            step()
        except ProcessError as error:
            row.state, row.reason = FAILED, f"{error} ({_after(len(row.repetitions))})"
            self._say(f"{row.id}: failed: {row.reason}")
            process = self._processes.pop(row.id, None)
            if process:
                process.close()

    # ---- one platform

    def _start(self, name: str, folder: Path) -> dict[str, Any]:
        threads = str(self._settings.threads)
        # With more than one compiling thread PyTorch keeps a pool of processes.
        variables = {
            **dict.fromkeys(_THREAD_VARIABLES, threads),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
        }
        cpus = ",".join(map(str, self._cpus))
        command = ["tutelage.host.bench.worker", name, str(folder), threads, cpus]
        self._processes[name] = JsonProcess(command, folder / f"{name}.log", variables)
        return self._processes[name].ask({"do": "prepare"}, _PREPARE_SECONDS)

    def _take_reference(self, folder: Path) -> None:
        """Classify every image with the quantised student, whose process ends before any window."""
        try:
            answer = self._start(REFERENCE_NAME, folder)
            self._reference_absent = answer.get("absent", "")
            if not self._reference_absent:
                self._reference = self._classes(REFERENCE_NAME, folder)
        except ProcessError as error:
            self._reference_absent = str(error)
        finally:
            process = self._processes.pop(REFERENCE_NAME, None)
            if process:
                process.close()

    def _classes(self, name: str, folder: Path) -> NDArray[np.int64]:
        path = folder / f"{name}.npy"
        self._processes[name].ask({"do": "logits", "output": str(path)}, _PREPARE_SECONDS)
        return np.asarray(np.load(path, allow_pickle=False).argmax(1), np.int64)

    def _prepare(self, row: BenchRow, folder: Path) -> None:
        answer = self._start(row.id, folder)
        if "absent" in answer:
            row.state, row.reason = ABSENT, answer["absent"]
            self._processes.pop(row.id).close()
            return
        row.by = f"tutelage bench, {answer['version']}"
        row.device, row.threads = answer["device"], answer["threads"]
        row.model_file, row.model_bytes = answer["model_file"], answer["model_bytes"]
        if answer["concern"]:
            row.concerns.append(answer["concern"])
        classes = self._classes(row.id, folder)
        row.accuracy, row.accuracy_by = self._accuracy(classes), "this platform, on these images"
        if self._reference is not None:
            row.same_class = round(100 * float(np.mean(classes == self._reference)), 4)
            self._compare_classes(row, row.same_class)
        self._try_batches(row)
        row.batch = int(max(row.batch_trials, key=row.batch_trials.__getitem__))

    def _try_batches(self, row: BenchRow) -> None:
        """Measure the speed of each batch size, up to those whose batch takes a whole window."""
        for batch in BATCHES:
            known = row.batch_trials.values()
            if known and batch / max(known) > max(TRY_SECONDS, self._settings.seconds):
                break
            request = {
                "do": "try",
                "batch": batch,
                "seconds": min(TRY_SECONDS, self._settings.seconds),
            }
            tried = self._processes[row.id].ask(request, _PREPARE_SECONDS)
            row.batch_trials[str(batch)] = round(tried["fps"], 2)

    def _compare_classes(self, row: BenchRow, same_class: float) -> None:
        if same_class < _LEAST_SAME_CLASS and not self._subject.made_up:
            row.concerns.append(f"its class differs from the quantised student's for "
                                f"{100 - same_class:.1f} % of the images")  # fmt: skip

    def _accuracy(self, classes: NDArray[np.int64]) -> float | None:
        known = self._images.labels != UNKNOWN
        if not known.any():
            return None
        return round(100 * float(np.mean(classes[known] == self._images.labels[known])), 4)

    def _repeat(self, row: BenchRow) -> None:
        settings = self._settings
        request = {"do": "measure", "batch": row.batch, "seconds": settings.seconds,
                   "warm_up": settings.warm_up}  # fmt: skip
        timeout = 2 * (settings.seconds + settings.warm_up) + _SPARE_SECONDS
        found = self._processes[row.id].ask(request, timeout)
        meter = self._meters[row.family]
        for window in (found["single_stream"], found["offline"]):
            window |= meter.window(window["start_s"], window["end_s"], window["frames"])
        row.repetitions.append(found)

    # ---- the end

    def _finish(self, folder: Path) -> None:
        """Compute the figures of the complete repetitions."""
        for row in self._platforms.values():
            if row.repetitions:
                self._take_in(row)
            if row.state == INTERRUPTED and len(row.repetitions) == self._settings.repetitions:
                row.state, row.reason = DONE, ""
            elif row.state == INTERRUPTED and row.repetitions:
                row.reason = _after(len(row.repetitions))
        xmodel = folder / XMODEL_FILE
        for row in self._dpu:
            self._take_emulated_accuracy(row, xmodel)
        for row in self.rows:
            if row.id in self._settings.watts:
                give_watts(row, self._settings.watts[row.id])

    def _take_in(self, row: BenchRow) -> None:
        single = [r["single_stream"] for r in row.repetitions]
        offline = [r["offline"] for r in row.repetitions]
        row.latency_ms = _percentiles([window["latency_ms"] for window in single])
        row.network_latency_ms = _percentiles([window["network_latency_ms"] for window in single])
        row.fps = median_figure([w["fps"] for w in offline], "fps")
        row.network_fps = median_figure([w["network_fps"] for w in offline], "fps")
        row.watts = median_reading(offline, "watts", "W")
        row.joules_per_frame = median_reading(offline, "joules_per_frame", "J")
        row.memory_mib = max(r["memory_mib"] for r in row.repetitions)
        meter = self._meters[row.family]
        if row.watts.value is None:
            row.power_reason = meter.reason or "too many readings are missing"
        else:
            row.power_source, row.power_scope = meter.source, meter.scope
            row.idle_watts = meter.idle
            row.watts_above_idle = difference(row.watts, meter.idle, "W")
        row.concerns += _window_warnings([*single, *offline], min(w["frames"] for w in single))

    def _take_emulated_accuracy(self, row: BenchRow, xmodel: Path) -> None:
        """Set a DPU's accuracy to the emulation's, which is the same bit for bit."""
        if row.same_student is False or self._reference is None:
            row.accuracy_by = self._reference_absent or "another student"
            return
        row.accuracy, row.same_class = self._accuracy(self._reference), 100.0
        row.accuracy_by = "the emulation, on these images"
        if row.id == "dpu-predicted" and xmodel.exists():
            row.model_file, row.model_bytes = xmodel.name, xmodel.stat().st_size

    def _close(self) -> None:
        for process in self._processes.values():
            process.close()
        for meter in self._meters.values():
            meter.close()
        self._processes.clear()

    def results(self) -> BenchResults:
        """Return all figures, the content of bench.json."""
        rows, subject, images = self.rows, self._subject, self._images
        labelled = int((images.labels != UNKNOWN).sum())
        return BenchResults(
            state=self._state,
            started=self._began,
            ended=_now(),
            model=BenchModel(subject.name, str(subject.path), subject.checkpoint,
                             asdict(subject.form)),
            images=BenchImages(images.source, len(images.labels), labelled),
            setting=self._settings,
            environment=self._machine,
            power={family: MeterFacts(meter.source, meter.reason, meter.idle)
                   for family, meter in self._meters.items()},
            rows=rows,
            thesis=thesis_table(rows),
            notes=subject.notes,
        )  # fmt: skip


def _percentiles(windows: Sequence[Mapping[str, float]]) -> Percentiles:
    """Return the medians over the windows of SingleStream of each percentile of latency, ms."""
    names = [f"p{percent}" for percent in PERCENTS]
    return Percentiles(*(median_figure([each[name] for each in windows], "ms") for name in names))


def _window_warnings(windows: Sequence[Mapping[str, Any]], least_frames: int) -> list[str]:
    """Return reasons to doubt a platform's figures, from its windows."""
    found = []
    others = sorted(w["other_cores"] + w["stolen_cores"] for w in windows)
    disturbed = [cores for cores in others if cores > _MOST_OTHER_CORES]
    if disturbed:
        found.append(f"disturbed: other processes took up to {others[-1]:.2f} cores in "
                     f"{len(disturbed)} of {counted(len(windows), 'window')}")  # fmt: skip
    if least_frames < _LEAST_FRAMES:
        found.append(f"few frames: {least_frames} in a window of SingleStream are too few for p99")
    return found


def _after(repetitions: int) -> str:
    if not repetitions:
        return "before the first repetition was complete"
    return f"{counted(repetitions, 'repetition')} complete"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
