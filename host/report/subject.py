"""What a report is about: a model, the training run behind it, and how both were found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tutelage.core.errors import DpuError
from tutelage.core.files import sha256_of
from tutelage.core.locations import DEMO_MODEL
from tutelage.core.model_name import model_name
from tutelage.core.model_package import (
    COMPILED,
    DESCRIPTION,
    QUANTISED,
    Description,
    read_description,
)
from tutelage.dpu.predict.measured_power import model_sums
from tutelage.host.report.errors import UNREADABLE, ReportError, reason
from tutelage.host.report.training_run import TrainingRun, read_training
from tutelage.host.train.results import RESULTS
from tutelage.host.train.run_files import STUDENT

MODELS, RUNS = Path("models"), Path("runs")
"""Folders in which a model and a training run are looked for where none is named."""

_CHECKPOINT = "checkpoint_sha256"


@dataclass(frozen=True)
class Subject:
    """The model of a report.

    Attributes
    ----------
    model : compiled or quantised .xmodel; None where only a training run is known
    description : of the model's directory; None where it has none that can be read
    training : the run that trained it; None where it is not known
    training_error : why a run that was found cannot be used
    how : how they were found where they were not named, for the reader
    """

    model: Path | None
    description: Description | None = None
    training: TrainingRun | None = None
    training_error: str = ""
    how: str = ""

    @property
    def name(self) -> str:
        """Of the model, by its directory, or by its run where there is no model yet."""
        if self.model is None:
            return self.training.folder.resolve().name if self.training else ""
        return model_name(self.model.parent) if self.description else self.model.stem

    @property
    def place(self) -> Path | None:
        """The model's directory, or its file where it is in none; None without a model."""
        return self.model.parent if self.model and self.description else self.model

    @property
    def provenance(self) -> dict[str, Any]:
        """What the model's description says of its origin, unchecked."""
        return self.description.provenance if self.description else {}

    @cached_property
    def _sums(self) -> frozenset[str]:
        return model_sums(self.model)

    def is_made_from(self, *sums: object) -> bool:
        """Whether one of the SHA-256 is the model's or its checkpoint's."""
        return any(isinstance(each, str) and each in self._sums for each in sums)


def find_subject(model: Path | None, training: Path | None) -> Subject:
    """Find the model and the training run that belong together.

    Parameters
    ----------
    model : an .xmodel or a model directory; None: the one exported from `training`, else the newest
        in `MODELS`, else the demo's
    training : the directory of a run; None: the one of the model's checkpoint, in `RUNS` or
        `MODELS`, or where there is no model, the newest in `RUNS`

    Raises
    ------
    ReportError
        What was named cannot be used.
    """
    if training is not None:
        run, how = _read(training), ""
        if model is None and (model := _newest(_exported_from(training))):
            how = f"{model} was exported from this run."
        return replace(_of_model(model), training=run, how=how)
    if model is not None:
        return _with_training(_of_model(model))
    if newest := _newest(MODELS.glob(f"*/{DESCRIPTION}")):
        how = f"It is the newest model in {MODELS}; `--model` takes another."
        return _with_training(replace(_of_model(newest), how=how))
    if newest := _newest(RUNS.glob(f"*/{RESULTS}")):
        how = f"It is the newest run in {RUNS}; `--training` takes another."
        return Subject(None, training=_read(newest), how=how)
    how = "It is the demo's model: there is no other in models; `--model` takes yours."
    return _with_training(replace(_of_model(DEMO_MODEL), how=how))


def _of_model(model: Path | None) -> Subject:
    if model is None:
        return Subject(None)
    file = model
    if model.is_dir():
        file = model / COMPILED if (model / COMPILED).exists() else model / QUANTISED
    if not file.is_file():
        raise ReportError(f"{file}: cannot be used: no such file")
    description = None
    with suppress(DpuError):  # the file is reported on, whatever is beside it
        description = read_description(file.with_name(DESCRIPTION))
    return Subject(file, description)


def _with_training(found: Subject) -> Subject:
    """Return the subject with the run of the model's checkpoint."""
    wanted = found.provenance.get(_CHECKPOINT)
    for path in _checkpoints() if wanted else ():
        with suppress(OSError):
            if sha256_of(path) != wanted:
                continue
            try:
                return replace(found, training=read_training(path.parent))
            except UNREADABLE as error:
                return replace(found, training_error=reason(path.parent, error))
    return found


def _checkpoints() -> Iterator[Path]:
    for folder in (RUNS, MODELS):
        yield from sorted(folder.glob(f"*/{STUDENT}"))


def _exported_from(training: Path) -> Iterator[Path]:
    """Yield the descriptions of the models that were exported from a run."""
    with suppress(OSError):
        made_from = sha256_of(training / STUDENT)
        for path in MODELS.glob(f"*/{DESCRIPTION}"):
            with suppress(DpuError):
                if read_description(path).provenance.get(_CHECKPOINT) == made_from:
                    yield path


def _read(training: Path) -> TrainingRun:
    try:
        return read_training(training)
    except UNREADABLE as error:
        raise ReportError(reason(training, error)) from error


def _newest(paths: Iterable[Path]) -> Path | None:
    """Return the directory of the newest of these files, None without one."""
    dated: list[tuple[float, Path]] = []
    for path in paths:
        with suppress(OSError):  # gone meanwhile
            dated.append((path.stat().st_mtime, path))
    return max(dated)[1].parent if dated else None
