"""Which configurations are of the same run, wherever the runs that it starts from are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tutelage.host.train.config import Config, ConfigError, read_config

WEIGHTS = "student.safetensors"
"""File in a run's directory that other runs start from."""


def with_run_names(config: Config) -> Config:
    """Return a configuration with the names of runs in place of the paths of their weights.

    Two such configurations are equal if the runs are the same, even if their directory was moved or
    its path is spelled differently. Paths of other weights are kept.
    """
    return replace(
        config,
        student=replace(config.student, weights=_run_name(config.student.weights)),
        teacher=replace(config.teacher, weights=_run_name(config.teacher.weights)),
        quantisation=replace(config.quantisation, start=_run_name(config.quantisation.start)),
    )


def is_run_of(file: Path, config: Config) -> bool:
    """Return whether a TOML file has the configuration of the same run."""
    try:
        return with_run_names(read_config(file)) == with_run_names(config)
    except ConfigError:  # of an older version, for example
        return False


def starts(config: Config) -> list[Path]:
    """Return the paths of the weights that a run starts from or learns from."""
    named = (config.student.weights, config.teacher.weights, config.quantisation.start)
    return [Path(path) for path in named if path]


def _run_name(path: str) -> str:
    """Return the name of the run whose weights a file has, or the path if it is another file."""
    return Path(path).parent.name or path if Path(path).name == WEIGHTS else path
