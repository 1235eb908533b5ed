"""Training from a TOML file or its tables: the implementation of `tutelage.train`.

tutelage.train("student.toml", "runs/student")
tutelage.train({"method": "float", "student": {"network": "densenet-small"}}, "runs/student")
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.host.train.config import make_config, read_config
from tutelage.host.train.loop import TrainingResult, train
from tutelage.host.train.progress import Progress


def run_config(
    config: str | os.PathLike[str] | Mapping[str, Any],
    output: str | os.PathLike[str],
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train a network in float or quantised, with or without a teacher.

    Parameters
    ----------
    config : path of a run's TOML file, whose keys the reference lists as run.toml, or its tables
    output : directory for checkpoints, log and results
    resume : continue from the last checkpoint if there is one
    progress : displays the progress, such as `tutelage.host.train.progress.Terminal`

    Returns
    -------
    TrainingResult
        Accuracies on the test set in percent, the history by epoch, and the duration in seconds

    Raises
    ------
    ConfigError, DataError, CheckpointError, NetworkError
        The run cannot be started, or the checkpoint is of another configuration.
    Interrupted
        Ctrl-C was pressed.
    """
    tables = make_config(config) if isinstance(config, Mapping) else read_config(Path(config))
    return train(tables, Path(output), resume, progress)
