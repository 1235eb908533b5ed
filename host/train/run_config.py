"""Training from a TOML file or its tables, behind `tutelage.train`.

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
    config : a run's TOML file (host/train/config.py documents it), or its tables
    output : directory of checkpoints, log and result
    resume : go on from the last checkpoint where there is one
    progress : what is shown meanwhile, such as `tutelage.host.train.progress.Terminal`

    Returns
    -------
    accuracies in percent of the test set, the history by epoch, and seconds

    Raises
    ------
    ConfigError, DataError, CheckpointError
        The run cannot be started, or the checkpoint is of another one.
    Interrupted
        Ctrl-C.
    """
    tables = make_config(config) if isinstance(config, Mapping) else read_config(Path(config))
    return train(tables, Path(output), resume, progress)
