"""Compare a model's outputs on this DPU with those of the emulation, byte for byte.

    python -m tutelage.board.outputs_check --model net.xmodel --expected DIR --report outputs.json

DIR has fixed inputs and the emulation's outputs for them (`tutelage.core.expected_outputs`).
`tutelage deploy` copies it with a release and runs this program before it switches to the release.
Each input runs alone first, then all of them run in several threads, which keep all cores of the
DPU busy. The first difference, error or job without an answer ends the comparison. Exit status:
0 all outputs are equal, 1 they are not, 2 wrong use.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.board.jobs import ModelRunner
from tutelage.board.runner import LoadedModel, load
from tutelage.core.errors import DONE, FAILED, TutelageError, first_line
from tutelage.core.expected_outputs import RESULT, ExpectedOutputs, read_expected
from tutelage.core.files import sha256_of, write_file
from tutelage.core.messages import run_command
from tutelage.core.text import LONGEST_NAME, json_text, shown

THREADS, SLOTS = 4, 2
"""Threads of the second pass, two for each core of a ZCU104's DPU, and jobs in flight of each."""

JOB_SECONDS = 60.0
"""Default time limit for a job, or for creating a runner, s."""

_SHOWN = 8  # differing values in a report
_POLL_SECONDS = 0.02


class OutputsError(TutelageError):
    """The outputs differ from the emulation's, or a job failed or did not end."""

    status = FAILED


@dataclass(frozen=True)
class Problem:
    """Reason why a comparison ended: a line of text, and details for the report."""

    text: str
    details: dict[str, Any] = field(default_factory=dict)


class Comparison:
    """Comparison of all inputs, up to the first problem.

    Parameters
    ----------
    model : the loaded model
    expected : its inputs and expected outputs
    seconds : time limit for a job, or for creating a runner, s

    Attributes
    ----------
    jobs : number of jobs with equal outputs
    problem : the first problem; None if there is none so far
    """

    def __init__(self, model: LoadedModel, expected: ExpectedOutputs, seconds: float) -> None:
        self.model, self.expected = model, expected
        self._seconds = seconds
        self._lock = threading.Lock()
        self.jobs = 0
        self.problem: Problem | None = None

    def run(self) -> Problem | None:
        """Run both passes; return the first problem, or None if all outputs are equal.

        A thread whose job does not end is abandoned.
        """
        for how, threads, slots in (
            ("one at a time", 1, 1),
            (f"in {THREADS} threads with {SLOTS} jobs each", THREADS, SLOTS),
        ):
            wanted = self.jobs + threads * len(self.expected.names)
            workers = [_Worker(self, how, slots, first) for first in range(threads)]
            for worker in workers:
                worker.start()
            while self.problem is None and any(worker.is_alive() for worker in workers):
                for worker in workers:
                    if worker.is_overdue(self._seconds):
                        self.stop(Problem(f"{worker.doing}: no answer within {self._seconds:g} s"))
                time.sleep(_POLL_SECONDS)
            if self.jobs != wanted:
                self.stop(Problem(f"{how}: a thread ended before its last job"))
            if self.problem is not None:
                break
        return self.problem

    def stop(self, problem: Problem) -> None:
        """End the comparison with a problem, unless there is an earlier one."""
        with self._lock:
            self.problem = self.problem or problem

    def compare(
        self, runner: ModelRunner, slot: int, result: np.ndarray, index: int
    ) -> Problem | None:
        """Compare the outputs of a collected job with those expected for input `index`.

        Returns
        -------
        The first difference; None if all outputs are equal

        Raises
        ------
        OutputsError
            The runner lacks an expected output.
        """
        found = {name: array[0] for name, array in runner.dpu_outputs(slot).items()}
        found[RESULT] = result
        for name, expected in self.expected.outputs.items():
            if name not in found:
                raise OutputsError(f"the runner gives no output {shown(name, LONGEST_NAME)!r}")
            problem = difference(name, found[name], expected[index])
            if problem is not None:
                return problem
        with self._lock:
            self.jobs += 1
        return None


class _Worker(threading.Thread):
    """A thread with its own runner that runs every input once, starting with number `first`.

    Attributes
    ----------
    doing : description of the current action, for messages
    """

    def __init__(self, comparison: Comparison, how: str, slots: int, first: int) -> None:
        super().__init__(daemon=True)
        self._comparison, self._how, self._slots = comparison, how, slots
        count = len(comparison.expected.names)
        self._order = [(first + i) % count for i in range(count)]
        self._since: float | None = None
        self._begin("creating a runner")

    def run(self) -> None:
        try:
            runner = self._comparison.model.runner(self._slots)
            for start in range(0, len(self._order), self._slots):
                if self._comparison.problem is not None:
                    break
                self._run_jobs(runner, self._order[start : start + self._slots])
        except Exception as error:  # a native library's errors have no common base
            self._comparison.stop(Problem(f"{self.doing}: {first_line(error)}"))
        self._since = None

    def is_overdue(self, seconds: float) -> bool:
        """Return whether the current action has taken more than `seconds`."""
        since = self._since
        return since is not None and time.monotonic() - since > seconds

    def _run_jobs(self, runner: ModelRunner, indexes: list[int]) -> None:
        expected = self._comparison.expected
        for slot, index in enumerate(indexes):
            self._begin(f"input {index} ({expected.names[index]})")
            if runner.input(slot).shape != expected.inputs.shape[1:]:
                raise OutputsError(f"the model takes {runner.input(slot).shape}, not "
                                   f"{expected.inputs.shape[1:]}")  # fmt: skip
            runner.input(slot)[...] = expected.inputs[index]
            runner.submit(slot)
        for slot, index in enumerate(indexes):
            self._begin(f"input {index} ({expected.names[index]})")
            problem = self._comparison.compare(runner, slot, runner.collect(slot), index)
            if problem is not None:
                details = {"input": self.doing, **problem.details}
                self._comparison.stop(Problem(f"{self.doing}: {problem.text}", details))
                return

    def _begin(self, what: str) -> None:
        self.doing = f"{what}, {self._how}"
        self._since = time.monotonic()


def difference(name: str, found: np.ndarray, expected: np.ndarray) -> Problem | None:
    """Return where an output differs from the expected one; None if all bytes are equal."""
    what = f"output {shown(name, LONGEST_NAME)!r}"
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        return Problem(f"{what} is {found.dtype} {list(found.shape)}, expected {expected.dtype} "
                       f"{list(expected.shape)}")  # fmt: skip
    bytes_found, bytes_expected = (
        np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (found, expected)
    )
    wrong = np.flatnonzero(bytes_found != bytes_expected)
    if not wrong.size:
        return None
    flat = list(dict.fromkeys((wrong // found.itemsize).tolist()))[:_SHOWN]
    places = [tuple(int(i) for i in np.unravel_index(place, found.shape)) for place in flat]
    values = [(found[place].item(), expected[place].item()) for place in places]
    text = (
        f"{what} differs in {wrong.size:,} of {bytes_found.size:,} bytes, first at "
        f"{list(places[0])}: got {values[0][0]}, expected {values[0][1]}"
    )
    shown_values = [
        {"place": place, "got": got, "expected": wanted}
        for place, (got, wanted) in zip(places, values, strict=True)
    ]
    return Problem(text, {"output": name, "differing_bytes": int(wrong.size),
                          "bytes": int(bytes_found.size), "values": shown_values})  # fmt: skip


def report(comparison: Comparison) -> dict[str, Any]:
    """Return the outcome for a bug report, without paths."""
    model, expected, problem = comparison.model, comparison.expected, comparison.problem
    return {
        "problem": problem.text if problem else "",
        "details": problem.details if problem else {},
        "inputs": len(expected.names),
        "jobs": comparison.jobs,
        "outputs": list(expected.outputs),
        "left_out": expected.left_out,
        "model_sha256": expected.model_sha256,
        "compiler": expected.compiler,
        "dpu_name": model.dpu_name,
        "fingerprint": model.fingerprint,
        "is_emulation": model.provider.startswith("emulation"),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, write the report and print the outcome; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tutelage.board.outputs_check",
        description="Compare a model's outputs on this DPU with those of the emulation.",
        epilog="Exit status: 0 all outputs are equal, 1 they are not, 2 wrong use.",
    )
    parser.add_argument("--model", type=Path, required=True, metavar="X.xmodel")
    parser.add_argument("--plugin", type=Path, metavar="OPS.py", help="custom CPU operators")
    parser.add_argument("--expected", type=Path, required=True, metavar="DIR",
                        help="inputs and the emulation's outputs")  # fmt: skip
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the outcome as JSON")
    parser.add_argument("--seconds", type=float, default=JOB_SECONDS, metavar="S",
                        help="time limit of a job; default: %(default)g")  # fmt: skip
    options = parser.parse_args(arguments)

    def work() -> int:
        expected = read_expected(options.expected)
        if sha256_of(options.model) != expected.model_sha256:
            raise OutputsError(f"{options.expected}: has the outputs of another model")
        comparison = Comparison(load(options.model, options.plugin), expected, options.seconds)
        problem = comparison.run()
        if options.report:
            write_file(options.report, json_text(report(comparison), indent=1) + "\n")
        if problem is not None:
            raise OutputsError(problem.text)
        print(f"{comparison.jobs} jobs: all outputs equal the emulation's, byte for byte")
        return DONE

    return run_command("outputs_check", work)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a thread that hangs in VART would keep the interpreter from exiting
