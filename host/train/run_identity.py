"""Which configurations are of the same run, wherever the runs that it starts from are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tutelage.host.train.config import Config, ConfigError, read_config
from tutelage.host.train.data.settings import Data

WEIGHTS = "student.safetensors"
"""File in a run's directory that other runs start from."""


_READING = {name: getattr(Data(), name) for name in ("workers", "in_memory_mib")}


def identity(config: Config) -> Config:
    """Return a configuration that is equal for runs with the same result.

    It has the names of runs in place of the paths of their weights, since their directory can be
    moved or its path be spelled differently; paths of other weights are kept. How images are read
    has its default, because weights do not depend on it.
    """
    return replace(
        config,
        data=replace(config.data, **_READING),
        student=replace(config.student, weights=_run_name(config.student.weights)),
        teacher=replace(config.teacher, weights=_run_name(config.teacher.weights)),
        quantisation=replace(config.quantisation, start=_run_name(config.quantisation.start)),
    )


def is_run_of(file: Path, config: Config) -> bool:
    """Return whether a TOML file has the configuration of the same run."""
    try:
        return identity(read_config(file)) == identity(config)
    except ConfigError:  # of an older version, for example
        return False


def starts(config: Config) -> list[Path]:
    """Return the paths of the weights that a run starts from or learns from."""
    named = (config.student.weights, config.teacher.weights, config.quantisation.start)
    return [Path(path) for path in named if path]


def _run_name(path: str) -> str:
    """Return the name of the run whose weights a file has, or the path if it is another file."""
    return Path(path).parent.name or path if Path(path).name == WEIGHTS else path
