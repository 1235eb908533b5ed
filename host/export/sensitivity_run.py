"""The student and the images whose sensitivity `tutelage sensitivity` reports."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from tutelage.host.export.model_directory import load_student, read_state
from tutelage.host.quantise.student import Student
from tutelage.host.train.config import ConfigError, read_config
from tutelage.host.train.loop import STUDENT, load_data
from tutelage.host.train.students import make_student


def student_and_images(run: Path, changes: list[str], count: int) -> tuple[Student, Tensor]:
    """Return a quantised student and some images of its test set, normalised.

    Parameters
    ----------
    run : a run's directory, a student.safetensors, or a run's TOML file
    changes : "table.key=value", of a TOML file
    count : of images

    Raises
    ------
    ConfigError, CheckpointError, DataError
        The run is not quantised by a quantiser with a DPU form, or cannot be used.
    """
    if run.suffix == ".toml":
        # Rounded for good, weights would show no error of their own.
        plain = ["quantisation.rounding=nearest", "quantisation.bias_correction=false"]
        config = read_config(run, [*plain, *changes])
        train, test = load_data(config)
        student = make_student(config, train)
        if not isinstance(student, Student):
            advice = '--set method=ptq, and quantiser = "tqt"'
            raise ConfigError(f"{run}: nothing is quantised for the DPU here: {advice}")
        return student.eval(), test.take(count).inputs()
    path = run / STUDENT if run.is_dir() else run
    if changes:
        raise ConfigError(f"--set changes a RUN.toml; {path} is a finished run")
    config, state = read_state(path)
    _, test = load_data(config)
    return load_student(path, config, state, test).student, test.take(count).inputs()
