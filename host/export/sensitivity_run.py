"""Loading of the student and the images for `tutelage sensitivity`."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from tutelage.host.export.model_directory import load_student, read_state
from tutelage.host.quantise.student import Student
from tutelage.host.train.config import ConfigError, read_config
from tutelage.host.train.loop import STUDENT, load_data
from tutelage.host.train.students import make_student


def student_and_images(
    run: Path, changes: list[str], count: int, network: str = ""
) -> tuple[Student, Tensor]:
    """Return a quantised student and normalised images (N, C, H, W) of its test set.

    Parameters
    ----------
    run : a run's directory, a student.safetensors, or a run's TOML file
    changes : changes to a TOML file, "table.key=value"
    count : number of images
    network : see `tutelage.host.export.model_directory.read_state`

    Raises
    ------
    ConfigError, CheckpointError, DataError
        The run is not quantised by a quantiser with a DPU form, or cannot be used.
    """
    if run.suffix == ".toml":
        # Weights that AdaRound has rounded permanently would have no rounding error.
        plain = ["quantisation.rounding=nearest", "quantisation.bias_correction=false"]
        config = read_config(run, [*plain, *changes])
        train, test = load_data(config)
        student = make_student(config, train)
        if not isinstance(student, Student):
            advice = '--set method=ptq, and quantiser = "tqt"'
            raise ConfigError(f"{run}: does not quantise for the DPU: give {advice}")
        return student.eval(), test.take(count).inputs()
    path = run / STUDENT if run.is_dir() else run
    if changes:
        raise ConfigError(f"--set needs a RUN.toml; {path} is a finished run")
    config, state = read_state(path, network)
    _, test = load_data(config)
    return load_student(path, config, state, test).student, test.take(count).inputs()
