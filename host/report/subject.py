"""The subject of a report: a model, the run that trained it, and how both were found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tutelage.core.deployed_model import model_name
from tutelage.core.errors import DpuError
from tutelage.core.files import sha256_of
from tutelage.core.locations import DEMO_MODEL
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
"""Folders that are searched for a model and a training run if none is named."""

_CHECKPOINT = "checkpoint_sha256"


@dataclass(frozen=True)
class Subject:
    """The model and the training run of a report.

    Attributes
    ----------
    model : compiled or quantised .xmodel; None if only a training run is known
    description : description in the model's directory; None if there is no readable one
    training : run that trained the model, None if unknown
    training_error : reason why a run that was found cannot be used
    how : sentence for the reader on how they were found, "" if they were named
    """

    model: Path | None
    description: Description | None = None
    training: TrainingRun | None = None
    training_error: str = ""
    how: str = ""

    @property
    def name(self) -> str:
        """The model's name by its directory, or its run's name if there is no model yet."""
        if self.model is None:
            return self.training.folder.resolve().name if self.training else ""
        return model_name(self.model.parent) if self.description else self.model.stem

    @property
    def place(self) -> Path | None:
        """The model's directory, or its file if it is not in one; None without a model."""
        return self.model.parent if self.model and self.description else self.model

    @property
    def provenance(self) -> dict[str, Any]:
        """The model's origin according to its description, unchecked."""
        return self.description.provenance if self.description else {}

    @cached_property
    def _sums(self) -> frozenset[str]:
        return model_sums(self.model)

    def is_made_from(self, *sums: object) -> bool:
        """Return whether one of these SHA-256 sums is the model's or its checkpoint's."""
        return any(isinstance(each, str) and each in self._sums for each in sums)


def find_subject(model: Path | None, training: Path | None) -> Subject:
    """Find a model and the training run that it was exported from.

    Parameters
    ----------
    model : .xmodel or model directory; None: the model exported from `training`, or else the newest
        in `MODELS`, or else the demo's
    training : directory of a run; None: the run with the model's checkpoint in `RUNS` or `MODELS`,
        or, if there is no model, the newest in `RUNS`

    Raises
    ------
    ReportError
        The named model or run cannot be used.
    """
    if training is not None:
        run, how = _read(training), ""
        if model is None and (model := _newest(_exported_from(training))):
            how = f"{model} was exported from this run."
        return replace(_of_model(model), training=run, how=how)
    if model is not None:
        return _with_training(_of_model(model))
    if newest := _newest(MODELS.glob(f"*/{DESCRIPTION}")):
        how = f"It is the newest model in {MODELS}; `--model` selects another."
        return _with_training(replace(_of_model(newest), how=how))
    if newest := _newest(RUNS.glob(f"*/{RESULTS}")):
        how = f"It is the newest run in {RUNS}; `--training` selects another."
        return Subject(None, training=_read(newest), how=how)
    how = "It is the demo's model, since there is no other in models; `--model` selects yours."
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
    with suppress(DpuError):  # a bad description does not affect the model
        description = read_description(file.with_name(DESCRIPTION))
    return Subject(file, description)


def _with_training(found: Subject) -> Subject:
    """Return the subject with the run whose checkpoint the model was exported from."""
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
        with suppress(OSError):  # deleted in the meantime
            dated.append((path.stat().st_mtime, path))
    return max(dated)[1].parent if dated else None
