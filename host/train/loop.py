"""One training loop for every method: float, ptq, qat, qat+kd, sqakd, qkd.

    result = train(read_config(Path("qkd.toml")), Path("runs/qkd"))

The phases are data (host/train/methods.py). Everything random comes from (seed, epoch, step), so
that a run that was killed at any moment and resumed ends with the same weights as an undisturbed
one, and several processes (`accelerate launch -m tutelage train ...`) do what one would: each takes
its slice of the same global batch, batch norms run over all of them, gradients are averaged.
"""

from __future__ import annotations

import csv
import io
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tutelage.core.errors import FAILED, TutelageError
from tutelage.core.files import write_file
from tutelage.host.networks.norm import synchronise
from tutelage.host.train import checkpoint
from tutelage.host.train.config import Config, ConfigError, make_config
from tutelage.host.train.data import SPLITS, DataSet, load
from tutelage.host.train.data.batching import batches
from tutelage.host.train.data.data_set import normalise
from tutelage.host.train.evaluation import accuracy
from tutelage.host.train.forewarning import warn_of_obstacle
from tutelage.host.train.labelling import labelled
from tutelage.host.train.methods import Phase, epochs_of, phase_losses
from tutelage.host.train.optimisers import learning_rates, make_optimisers
from tutelage.host.train.progress import Progress, Silent
from tutelage.host.train.student_kinds import QuantisedStudent
from tutelage.host.train.students import make_student, trained_network

CHECKPOINT, STUDENT, TEACHER, LOG = (
    "checkpoint.safetensors", "student.safetensors", "teacher.safetensors", "log.csv",
)  # fmt: skip


@dataclass(frozen=True)
class TrainingResult:
    """What a run ended with; accuracies in percent of the test set, after the last epoch."""

    accuracy: float
    teacher_accuracy: float | None
    history: list[dict[str, Any]]
    seconds: float


class Interrupted(TutelageError):
    """Ctrl-C; the text says how to go on."""

    status = FAILED


def train(
    config: Config,
    output: Path,
    resume: bool = False,
    progress: Progress | None = None,
    data: tuple[DataSet, DataSet] | None = None,
) -> TrainingResult:
    """Train as `config` says; checkpoints, log and results go to `output`.

    Parameters
    ----------
    resume : go on from output/checkpoint.safetensors where there is one
    progress : what is shown meanwhile; nothing by default
    data : training and test set, where they are loaded already

    Raises
    ------
    ConfigError, DataError, CheckpointError
        The run cannot be started, or the checkpoint is of another one.
    Interrupted
        Ctrl-C.
    """
    started = time.monotonic()
    run = TrainingRun(config, output, data, progress or Silent())
    if resume and (output / CHECKPOINT).exists():
        run.resume()
    try:
        run.go()
    except KeyboardInterrupt:
        raise Interrupted(f"stopped after {run.epoch} epochs; go on with --resume") from None
    return run.finish(time.monotonic() - started)


class TrainingRun:
    """The state of a run between epochs."""

    def __init__(
        self,
        config: Config,
        output: Path,
        data: tuple[DataSet, DataSet] | None,
        progress: Progress,
    ) -> None:
        self.config, self.output, self.progress = config, output, progress
        self.accelerator = _accelerator(config)
        self.plan = _plan(config)
        self.train_set, self.test_set = data or load_data(config)
        self._check_batch()
        torch.manual_seed(config.seed)
        student = make_student(config, self.train_set)
        if self.plan and self.accelerator.is_main_process:
            warn_of_obstacle(student, self.train_set.shape)
        self.student = self._place(student)
        self.teacher = self._make_teacher()
        self.optimisers = make_optimisers(config, self.student, self.teacher)
        self.student = self.accelerator.prepare(self.student)
        if self.teacher is not None and "teacher" in self.optimisers:
            self.teacher = self.accelerator.prepare(self.teacher)
        self.epoch = 0
        self.history: list[dict[str, Any]] = []

    # -- making --------------------------------------------------------------------------

    def _check_batch(self) -> None:
        size, processes = self.config.training.batch_size, self.accelerator.num_processes
        if size % processes:
            raise ConfigError(f"batch_size {size} does not divide among {processes} processes")
        if self.plan and len(self.train_set) < size:
            raise ConfigError(f"{len(self.train_set)} training images, batch_size is {size}")

    def _place(self, network: nn.Module) -> nn.Module:
        synchronise(network)
        network.to(self.accelerator.device)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _make_teacher(self) -> nn.Module | None:
        if not self.config.needs_teacher:
            return None
        return self._place(trained_network(self.config.teacher, self.train_set))

    # -- the loop --------------------------------------------------------------------------

    def go(self) -> None:
        """Train what is left of the plan."""
        if self.accelerator.is_main_process:
            self.output.mkdir(parents=True, exist_ok=True)
        self.progress.begin(self.config.method, len(self.plan), self.epoch)
        while self.epoch < len(self.plan):
            row = self._train_epoch(self.plan[self.epoch])
            if self._is_time_to_evaluate():
                row |= self._evaluate()
            self.epoch += 1
            self.history.append({"epoch": self.epoch, **row})
            self._save()
            self.progress.epoch(self.history[-1])

    def _train_epoch(self, phase: Phase) -> dict[str, Any]:
        config, training = self.config, self.config.training
        torch.manual_seed(_seed(config.seed, self.epoch, "dropout", self.accelerator.process_index))
        order = batches(len(self.train_set), training.batch_size, config.seed, self.epoch)
        generator = torch.Generator().manual_seed(_seed(config.seed, self.epoch, "augmentation"))
        self._set_modes(phase)
        totals = torch.zeros(3, device=self.accelerator.device)  # loss, right, images
        start = time.monotonic()
        for step, indices in enumerate(order):
            images, labels = self._batch(indices, generator)
            self._schedule((self.epoch + step / len(order)) / len(self.plan))
            totals += self._step(phase, images, labels)
            if step % 20 == 0 or step == len(order) - 1:
                done = (step + 1) * training.batch_size
                self.progress.step(step + 1, len(order), phase.name, totals.tolist(), done, start)
        loss, right, count = self.accelerator.reduce(totals, "sum").tolist()
        seconds = time.monotonic() - start
        return {
            "phase": phase.name,
            "loss": round(loss / count, 5),
            "train_accuracy": round(100 * right / count, 3),
            "images_per_second": round(count / seconds, 1),
        }

    def _batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """This process's slice of a global batch; random numbers are drawn for all of it."""
        share = len(indices) // self.accelerator.num_processes
        mine = slice(
            share * self.accelerator.process_index, share * (self.accelerator.process_index + 1)
        )
        drawn = self.config.augmentation.draw(len(indices), generator)
        images = self.train_set.images[indices[mine]]
        images = self.config.augmentation.apply(images, {k: v[mine] for k, v in drawn.items()})
        device = self.accelerator.device
        images = normalise(images, self.train_set.form).to(device)
        return images, self.train_set.labels[indices[mine]].to(device)

    def _set_modes(self, phase: Phase) -> None:
        self.student.train()
        if self.teacher is not None:
            self.teacher.train(phase.teacher == "learns")
        if self.config.quantises:
            progress = self.epoch / len(self.plan)
            student = cast("QuantisedStudent", self._bare_student)
            student.freeze_norms(progress >= self.config.training.freeze_norms)

    def _schedule(self, progress: float) -> None:
        """Set the learning rates of `progress` (0..1) of the run."""
        rates = learning_rates(self.config.training, progress)
        for name, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = rates[name]

    def _step(self, phase: Phase, images: Tensor, labels: Tensor) -> Tensor:
        """One step of all that learn; returns summed loss, right answers and images."""
        with self.accelerator.autocast():
            logits = self.student(images)
            taught = self._taught(phase, images)
            student_loss, teacher_loss = phase_losses(
                phase, logits, taught, labels, self.config.training.temperature,
                self.config.training.label_smoothing,
            )  # fmt: skip
        total = student_loss if teacher_loss is None else student_loss + teacher_loss
        self.accelerator.backward(total)
        self._clip(phase)
        for name, optimiser in self.optimisers.items():
            if name != "teacher" or phase.teacher == "learns":
                optimiser.step()
            optimiser.zero_grad()
        with torch.no_grad():
            right = (logits.argmax(1) == labels).sum()
            count = float(len(labels))
            return torch.stack(
                [student_loss * count, right.float(), right.new_full((), count).float()]
            )

    def _clip(self, phase: Phase) -> None:
        """Bound the weights' gradient; thresholds have Adam, which minds no scale."""
        most = self.config.training.gradient_clip
        for name in ("student", "teacher") if most else ():
            if name in self.optimisers and (name == "student" or phase.teacher == "learns"):
                groups = self.optimisers[name].param_groups
                weights = [weight for group in groups for weight in group["params"]]
                self.accelerator.clip_grad_norm_(weights, most)

    def _taught(self, phase: Phase, images: Tensor) -> Tensor | None:
        """The teacher's logits, with a graph only where it learns."""
        if phase.teacher == "none" or self.teacher is None:
            return None
        if phase.teacher == "learns":
            return self.teacher(images)
        with torch.no_grad():
            return self.teacher(images)

    def _is_time_to_evaluate(self) -> bool:
        """Every few epochs, and at the end of each phase."""
        following = self.plan[self.epoch + 1 : self.epoch + 2]
        ends = following != [self.plan[self.epoch]]
        return ends or (self.epoch + 1) % self.config.training.evaluate_every == 0

    def _evaluate(self) -> dict[str, Any]:
        device = self.accelerator.device
        found = {"accuracy": accuracy(self._bare_student, self.test_set, device)}
        learns = self.epoch < len(self.plan) and self.plan[self.epoch].teacher == "learns"
        if learns and self.teacher is not None:
            teacher = self.accelerator.unwrap_model(self.teacher)
            found["teacher_accuracy"] = accuracy(teacher, self.test_set, device)
        return found

    @property
    def _bare_student(self) -> nn.Module:
        return self.accelerator.unwrap_model(self.student)

    # -- files -----------------------------------------------------------------------------

    def _save(self) -> None:
        if not self.accelerator.is_main_process:
            return
        parts = {"student": self._bare_student.state_dict()}
        if "teacher" in self.optimisers:
            parts["teacher"] = self.accelerator.unwrap_model(self.teacher).state_dict()
        for name, optimiser in self.optimisers.items():
            parts[f"optimiser.{name}"] = checkpoint.optimiser_tensors(optimiser)
        state = {"epoch": self.epoch, "history": self.history, "config": asdict(self.config)}
        checkpoint.save(self.output / CHECKPOINT, parts, state)
        _write_log(self.output / LOG, self.history)

    def resume(self) -> None:
        """Go back to where the last checkpoint was written.

        Raises
        ------
        CheckpointError
            It is of another configuration.
        ConfigError
            Its configuration is not one.
        """
        path = self.output / CHECKPOINT
        parts, state = checkpoint.load(path)
        # By today's defaults, which an older version's checkpoint may lack.
        before = asdict(make_config(state["config"], str(path)))
        other = [k for k, v in asdict(self.config).items() if before[k] != v]
        if other:
            text = f"{path}: of a run with another {', '.join(other)}; take another --output"
            raise checkpoint.CheckpointError(text)
        checkpoint.put(self._bare_student, parts["student"], path)
        if "teacher" in self.optimisers:
            checkpoint.put(self.accelerator.unwrap_model(self.teacher), parts["teacher"], path)
        for name, optimiser in self.optimisers.items():
            checkpoint.put_optimiser(optimiser, parts.get(f"optimiser.{name}", {}))
        self.epoch, self.history = state["epoch"], state["history"]

    def finish(self, seconds: float) -> TrainingResult:
        """Write the student (and a teacher that learnt) for use; returns the result."""
        last = self.history[-1] if self.history else self._evaluate()
        taught = [row["teacher_accuracy"] for row in self.history if "teacher_accuracy" in row]
        result = TrainingResult(
            last["accuracy"], taught[-1] if taught else None, self.history, seconds
        )
        if self.accelerator.is_main_process:
            self.output.mkdir(parents=True, exist_ok=True)
            state = {"config": asdict(self.config), "accuracy": result.accuracy}
            parts = {"student": self._bare_student.state_dict()}
            checkpoint.save(self.output / STUDENT, parts, state)
            if "teacher" in self.optimisers:
                # Under the name by which any run starts from it.
                parts = {"student": self.accelerator.unwrap_model(self.teacher).state_dict()}
                state = {"config": asdict(self.config), "accuracy": result.teacher_accuracy}
                checkpoint.save(self.output / TEACHER, parts, state)
        self.progress.end()
        return result


# -- pieces that the run is made of -----------------------------------------------------------


def load_data(config: Config) -> tuple[DataSet, DataSet]:
    """Training and test set; images without labels get those of the student's float network."""
    data = config.data
    path = Path(data.path).expanduser() if data.path else None
    first, test = (load(data.kind, path, split, data.size, data.mean, data.std) for split in SPLITS)
    return labelled(config, first.take(data.limit), test)


def _accelerator(config: Config) -> Accelerator:
    """One accelerator; precision below float32 is for GPUs only."""
    wanted = config.training.mixed_precision
    if wanted != "no" and not torch.cuda.is_available():
        raise ConfigError(f"mixed_precision {wanted!r} needs a GPU; there is none")
    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=wanted)


def _plan(config: Config) -> list[Phase]:
    try:
        return epochs_of(config.plan, config.training.epochs)
    except ValueError as error:
        raise ConfigError(f"[training] {error}") from error


def _seed(seed: int, epoch: int, purpose: str, process: int = 0) -> int:
    """A seed of its own for each epoch, purpose and process."""
    mixed = seed
    for value in (epoch, sum(purpose.encode()), process):
        # Multiplier and increment of Knuth's MMIX generator.
        mixed = (mixed * 6364136223846793005 + 1442695040888963407 + value) % 2**63
    return mixed


def _write_log(path: Path, history: list[dict[str, Any]]) -> None:
    """The history as CSV, atomically."""
    columns = list(dict.fromkeys(key for row in history for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(history)
    write_file(path, text.getvalue())
