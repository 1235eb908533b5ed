"""One training loop for every method: float, ptq, qat, qat+kd, sqakd, qkd.

    result = train(read_config(Path("qkd.toml")), Path("runs/qkd"))

The phases are data (host/train/methods.py). All random numbers depend on (seed, epoch, step), so
that a run that is killed at any moment and resumed ends with the same weights as one that is not,
and several processes (`accelerate launch -m tutelage train ...`) compute the same as one: each
takes its slice of the same global batch, batch norms use the statistics of the whole batch, and
gradients are averaged.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from tutelage.core.errors import FAILED, TutelageError
from tutelage.core.text import counted
from tutelage.host.networks.norm import synchronise
from tutelage.host.quantise.student import Student
from tutelage.host.train.allocator import keep_freed_memory
from tutelage.host.train.averaging import Average
from tutelage.host.train.class_weights import class_weights
from tutelage.host.train.compiling import Compiled
from tutelage.host.train.config import Config, ConfigError
from tutelage.host.train.data import DataSet
from tutelage.host.train.evaluation import Evaluation
from tutelage.host.train.feeding import Fed, Feed
from tutelage.host.train.forewarning import warn_of_obstacle
from tutelage.host.train.kept_logits import KeptLogits, can_keep
from tutelage.host.train.labelling import labels_of
from tutelage.host.train.methods import Phase, epochs_of
from tutelage.host.train.optimisers import learning_rates, make_optimisers
from tutelage.host.train.oscillation import Freezing, rising
from tutelage.host.train.precision import autocast, make_accelerator
from tutelage.host.train.progress import Progress, Silent
from tutelage.host.train.results import RunResults, class_results, write_run_results
from tutelage.host.train.run_data import load_data, run_data
from tutelage.host.train.run_files import CHECKPOINT, LOG, STUDENT, TEACHER, RunFiles
from tutelage.host.train.seeds import seed_of
from tutelage.host.train.students import prepare_epoch, student_and_layers, trained_network
from tutelage.host.train.teaching import Teaching

__all__ = [
    "CHECKPOINT", "LOG", "STUDENT", "TEACHER",
    "Interrupted", "TrainingResult", "TrainingRun", "load_data", "train",
]  # fmt: skip


@dataclass(frozen=True)
class TrainingResult:
    """Result of a run, with the weights that it saved.

    Attributes
    ----------
    accuracy : of the student on the test set, in percent
    teacher_accuracy : of a teacher that was trained, on the test set, in percent; else None
    history : the rows of log.csv, one for each epoch
    seconds : duration of the run
    results : the content of results.json: accuracy by class and more
    """

    accuracy: float
    teacher_accuracy: float | None
    history: list[dict[str, Any]]
    seconds: float
    results: RunResults


class Interrupted(TutelageError):
    """The run was stopped by Ctrl-C; the text says how to continue it."""

    status = FAILED


def train(
    config: Config,
    output: Path,
    resume: bool = False,
    progress: Progress | None = None,
    data: tuple[DataSet, DataSet] | None = None,
) -> TrainingResult:
    """Train as `config` says.

    Parameters
    ----------
    output : directory for checkpoints, log and results
    resume : continue from output/checkpoint.safetensors if it exists
    progress : displays the progress; by default nothing is displayed
    data : training and test set, if they are already loaded

    Raises
    ------
    ConfigError, DataError, CheckpointError, NetworkError
        The run cannot be started, or the checkpoint is of another configuration.
    Interrupted
        Ctrl-C was pressed.
    """
    started = time.monotonic()
    run = TrainingRun(config, output, data, progress or Silent())
    if resume and (output / CHECKPOINT).exists():
        run.resume()
    try:
        run.go()
        return run.finish(time.monotonic() - started)
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped after {counted(run.epoch, 'epoch')}; continue with --resume"
        ) from None
    finally:
        run.progress.end()
        run.feed.close()


class TrainingRun:
    """A run in progress: its networks, optimisers, data and history.

    Parameters
    ----------
    config : of the run
    output : directory for checkpoints, log and results
    data : training and test set, if they are already loaded
    progress : displays the progress

    Raises
    ------
    ConfigError, DataError, CheckpointError, NetworkError
        The run cannot be started.
    """

    def __init__(
        self,
        config: Config,
        output: Path,
        data: tuple[DataSet, DataSet] | None,
        progress: Progress,
    ) -> None:
        self.config, self.output, self.progress = config, output, progress
        self.accelerator = make_accelerator()
        if self.accelerator.device.type == "cpu":
            keep_freed_memory()
        self.plan = _plan(config)
        self.sets = run_data(config, data)
        self.train_set = self.sets.train
        self._check_batch()
        self.feed = Feed(config, self.sets, self.accelerator)
        torch.manual_seed(config.seed)
        student, layers = student_and_layers(config, self.train_set)
        if self.plan and self.accelerator.is_main_process:
            warn_of_obstacle(student, self.train_set.shape, config.student.replace)
        self.student = self._place(student)
        self.teacher = self._make_teacher()
        self.optimisers = make_optimisers(config, self.student, self.teacher)
        self.student = self.accelerator.prepare(self.student)
        if self.teacher is not None and "teacher" in self.optimisers:
            self.teacher = self.accelerator.prepare(self.teacher)
        weights = self._on_device(class_weights(config.training, self.train_set))
        self.average = self._make_average()
        self.freezing = self._make_freezing()
        compiles, learns = config.training.compile, "teacher" in self.optimisers
        passes = (
            self._pass(self.student, compiles and not config.quantises),
            self._pass(self.teacher, compiles and not learns and not config.features.layers),
        )
        self.kept_logits = self._kept_logits(passes[1])
        bare_teacher = self.teacher and self.accelerator.unwrap_model(self.teacher)
        self.teaching = Teaching(
            config, *passes, self._bare_student, bare_teacher, layers, weights, self.kept_logits
        )  # fmt: skip
        self.files = RunFiles(output, config, self._stateful(), self.optimisers)
        self.epoch = 0
        self.history: list[dict[str, Any]] = []
        self._tested: Evaluation | None = None  # of the current weights

    # -- making --------------------------------------------------------------------------

    def _check_batch(self) -> None:
        size, processes = self.config.training.batch_size, self.accelerator.num_processes
        if size % processes:
            raise ConfigError(f"batch_size {size} does not divide among {processes} processes")
        if self.plan and len(self.train_set) < size:
            there = counted(len(self.train_set), "training image")
            raise ConfigError(
                f"there are {there}, fewer than batch_size, which is {size}: give a smaller "
                "[training] batch_size"
            )

    def _place(self, network: nn.Module) -> nn.Module:
        synchronise(network)
        network.to(self.accelerator.device)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _on_device(self, tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(self.accelerator.device)

    def _learners(self) -> dict[str, nn.Module]:
        """Return the networks that are trained, by name, without wrappers for several processes."""
        found = {"student": self._bare_student}
        if "teacher" in self.optimisers:
            found["teacher"] = self.accelerator.unwrap_model(self.teacher)
        return found

    def _make_teacher(self) -> nn.Module | None:
        if not self.config.needs_teacher:
            return None
        return self._place(trained_network(self.config.teacher, self.train_set))

    def _make_average(self) -> Average | None:
        decay = self.config.training.ema
        return Average(self._bare_student, decay) if decay and self.plan else None

    def _make_freezing(self) -> Freezing | None:
        student = self._bare_student
        if not self.config.training.freeze_oscillations or not isinstance(student, Student):
            return None
        return Freezing(student).to(self.accelerator.device)

    def _stateful(self) -> dict[str, nn.Module]:
        """Return the modules that a checkpoint saves, by name."""
        found = self._learners()
        if self.average is not None:
            found["average"] = self.average.network
        if self.freezing is not None:
            found["freezing"] = self.freezing
        return found

    def _kept_logits(self, teach: Callable[[Tensor], Tensor]) -> KeptLogits | None:
        processes = self.accelerator.num_processes
        if self.teacher is None or not can_keep(self.config, self.plan, self.train_set, processes):
            return None
        return KeptLogits(self.feed, teach)

    def _pass(self, network: nn.Module | None, compiles: bool) -> Callable[[Tensor], Any]:
        return Compiled(network) if compiles and network is not None else cast("Any", network)

    # -- the loop --------------------------------------------------------------------------

    def go(self) -> None:
        """Train the remaining epochs."""
        if self.accelerator.is_main_process:
            self.output.mkdir(parents=True, exist_ok=True)
        self.progress.begin(self.config.method, len(self.plan), self.epoch)
        while self.epoch < len(self.plan):
            row = self._train_epoch(self.plan[self.epoch])
            if self._is_time_to_evaluate():
                row |= self._evaluate()
            self.epoch += 1
            self.history.append({"epoch": self.epoch, **row})
            if self.accelerator.is_main_process:
                if self._is_best():
                    self.files.save_best(self.epoch)
                self.files.save(self.epoch, self.history)
            self.progress.epoch(self.history[-1])

    def _train_epoch(self, phase: Phase) -> dict[str, Any]:
        seed, process = self.config.seed, self.accelerator.process_index
        torch.manual_seed(seed_of(seed, self.epoch, "dropout", process))
        self._set_modes(phase)
        self._update_kept_logits(phase)
        self._tested = None
        totals = torch.zeros(3, device=self.accelerator.device)  # loss, right, images
        start, steps = time.monotonic(), self.feed.steps
        for step, batch in enumerate(self.feed.batches(self.epoch)):
            progress = (self.epoch + step / steps) / len(self.plan)
            self._schedule(progress)
            totals += self._step(phase, batch, progress)
            self._follow(self.epoch * steps + step, progress)
            if step % 20 == 0 or step == steps - 1:
                done = (step + 1) * self.config.training.batch_size
                self.progress.step(step + 1, steps, phase.name, totals.tolist(), done, start)
        loss, right, count = self.accelerator.reduce(totals, "sum").tolist()
        seconds = time.monotonic() - start
        return {
            "phase": phase.name,
            "loss": round(loss / count, 5),
            "train_accuracy": round(100 * right / count, 3),
            "images_per_second": round(count / seconds, 1),
        }

    def _set_modes(self, phase: Phase) -> None:
        self.student.train()
        if self.teacher is not None:
            self.teacher.train(phase.teacher == "learns")
        if self.config.quantises:
            prepare_epoch(self._bare_student, self.config.training, self.epoch, len(self.plan))

    def _update_kept_logits(self, phase: Phase) -> None:
        """Compute a frozen teacher's logits before the epoch, because both use the same reader."""
        if self.kept_logits is None:
            return
        if phase.teacher == "learns":
            self.kept_logits.forget()
        elif phase.teacher == "frozen":
            with autocast(self.config, self.accelerator):
                self.kept_logits.compute()

    def _schedule(self, progress: float) -> None:
        """Set the learning rates for `progress` (0..1) of the run."""
        rates = learning_rates(self.config.training, progress)
        for name, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = rates[name]

    def _step(self, phase: Phase, batch: Fed, progress: float) -> Tensor:
        """Train one step; return the sum of the losses, correct predictions and images, (3,)."""
        with autocast(self.config, self.accelerator):
            losses = self.teaching.losses(phase, *batch, progress=progress)
        self.accelerator.backward(losses.total)
        self._clip(phase)
        for name, optimiser in self.optimisers.items():
            if name != "teacher" or phase.teacher == "learns":
                optimiser.step()
            optimiser.zero_grad()
        with torch.no_grad():
            likeliest = batch.labels if batch.labels.ndim == 1 else batch.labels.argmax(1)
            right = (losses.logits.argmax(1) == likeliest).sum()
            count = float(len(batch.labels))
            return torch.stack(
                [losses.student * count, right.float(), right.new_full((), count).float()]
            )

    def _follow(self, step: int, progress: float) -> None:
        """Restore frozen weights and update the average after a step of the student."""
        student = self._bare_student
        if self.freezing is not None and isinstance(student, Student) and progress:
            threshold = self.config.training.freeze_oscillations / rising(progress)
            self.freezing.hold(student, threshold)
        if self.average is not None:
            self.average.update(student, step)

    def _clip(self, phase: Phase) -> None:
        """Clip the gradient of the weights; for thresholds Adam makes its scale irrelevant."""
        most = self.config.training.gradient_clip
        for name in ("student", "teacher") if most else ():
            if name in self.optimisers and (name == "student" or phase.teacher == "learns"):
                groups = self.optimisers[name].param_groups
                weights = [weight for group in groups for weight in group["params"]]
                self.accelerator.clip_grad_norm_(weights, most)

    def _is_time_to_evaluate(self) -> bool:
        """Whether to evaluate: every few epochs, and at the end of each phase."""
        following = self.plan[self.epoch + 1 : self.epoch + 2]
        ends = following != [self.plan[self.epoch]]
        return ends or (self.epoch + 1) % self.config.training.evaluate_every == 0

    def _evaluate(self) -> dict[str, Any]:
        """Return accuracies on the validation images, or on the test set if there are none."""
        prefix = "validation_" if self.sets.validation else ""
        found = self.feed.validate(self._judged)
        if not self.sets.validation:
            self._tested = found
        row = {f"{prefix}accuracy": found.accuracy}
        if self.plan[self.epoch].teacher == "learns":
            row[f"{prefix}teacher_accuracy"] = self.feed.validate(
                self._learners()["teacher"]
            ).accuracy
        return row

    def _is_best(self) -> bool:
        """Whether the last epoch is the best so far and the best is to be kept."""
        return self.config.training.keep == "best" and self._best()["epoch"] == self.epoch

    def _best(self) -> dict[str, Any]:
        """Return the row of the best epoch so far, the first of equals; epoch 0 if none."""
        rows = [row for row in self.history if "validation_accuracy" in row]
        return max(rows, key=lambda row: row["validation_accuracy"], default={"epoch": 0})

    @property
    def _judged(self) -> nn.Module:
        """The network that is evaluated and saved: the student, or its average."""
        return self._bare_student if self.average is None else self.average.network

    @property
    def _bare_student(self) -> nn.Module:
        return self.accelerator.unwrap_model(self.student)

    # -- files -----------------------------------------------------------------------------

    def resume(self) -> None:
        """Load the last checkpoint.

        Raises
        ------
        CheckpointError
            The checkpoint cannot be read, or is of another configuration.
        ConfigError
            The configuration in the checkpoint is not valid.
        """
        self.epoch, self.history = self.files.resume()

    def finish(self, seconds: float) -> TrainingResult:
        """Write the student, and a teacher that was trained; return the result.

        Parameters
        ----------
        seconds : duration of the run
        """
        kept = self._keep()
        tested = self._tested or self.feed.evaluate(self._judged)
        teacher = self._teacher_accuracy()
        results = RunResults(
            self.config.method, self.epoch, kept["epoch"], len(tested), tested.accuracy,
            tested.top5_accuracy, self._validated(kept), teacher,
            class_results(self.sets.test.classes, tested), labels_of(self.config),
        )  # fmt: skip
        if self.average is not None:
            self._bare_student.load_state_dict(self.average.network.state_dict())
        if self.accelerator.is_main_process:
            self.files.finish({"student": tested.accuracy, "teacher": teacher}, self.history)
            write_run_results(self.output, results)
        return TrainingResult(tested.accuracy, teacher, self.history, seconds, results)

    def _keep(self) -> dict[str, Any]:
        """Load the weights of the best epoch if they are to be kept; return the kept row."""
        if not self.history:
            return {"epoch": 0}
        if self.config.training.keep == "last" or self._best()["epoch"] == self.epoch:
            return self.history[-1]
        # The main process has written the file, perhaps to a disk of another machine.
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process or self.files.has_best:
            self.files.take_best()
        return self._best()

    def _validated(self, kept: dict[str, Any]) -> float | None:
        """Return the accuracy on the validation images, even if nothing was trained."""
        if "validation_accuracy" in kept or not self.sets.validation:
            return kept.get("validation_accuracy")
        return self.feed.validate(self._judged).accuracy

    def _teacher_accuracy(self) -> float | None:
        """Return the accuracy on the test set of a teacher that was trained, else None."""
        if self.sets.validation:
            learnt = any(phase.teacher == "learns" for phase in self.plan)
            return self.feed.evaluate(self._learners()["teacher"]).accuracy if learnt else None
        # The teacher has not changed since it was last evaluated, at the end of such a phase.
        taught = [row["teacher_accuracy"] for row in self.history if "teacher_accuracy" in row]
        return taught[-1] if taught else None


def _plan(config: Config) -> list[Phase]:
    try:
        return epochs_of(config.plan, config.training.epochs)
    except ValueError as error:
        raise ConfigError(f"[training] {error}") from error
