"""Files of a run: checkpoint, log, best weights and final weights."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutelage.core.errors import TutelageError
from tutelage.core.files import write_file
from tutelage.host.train import checkpoint
from tutelage.host.train.config import Config, make_config
from tutelage.host.train.run_identity import WEIGHTS, identity

CHECKPOINT, BEST, STUDENT, TEACHER, LOG = (
    "checkpoint.safetensors", "best.safetensors", WEIGHTS, "teacher.safetensors", "log.csv",
)  # fmt: skip


def changed_tables(saved: Mapping[str, Any], config: Config, where: str) -> list[str]:
    """Return the names of the tables and keys in which a saved configuration differs.

    Parameters
    ----------
    saved : the configuration in a checkpoint, of this version or an older one
    config : the configuration to compare it with
    where : the checkpoint's file, for error messages

    Raises
    ------
    ConfigError
        The saved configuration is not valid.
    """
    # With current defaults for keys that an older version's checkpoint lacks.
    before, now = (asdict(identity(each)) for each in (make_config(saved, where), config))
    return [key for key in now if before[key] != now[key]]


class RunFiles:
    """Reader and writer of the files of one run.

    Parameters
    ----------
    folder : of the run
    config : of the run
    networks : the modules to save by name: "student", "teacher" if it learns, and others that have
        state; without wrappers for several processes
    optimisers : by name
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        networks: Mapping[str, nn.Module],
        optimisers: Mapping[str, torch.optim.Optimizer],
    ) -> None:
        self.folder, self._config = folder, config
        self._networks, self._optimisers = networks, optimisers

    def save(self, epoch: int, history: list[dict[str, Any]]) -> None:
        """Write the checkpoint and the log after an epoch."""
        parts = {name: network.state_dict() for name, network in self._networks.items()}
        for name, optimiser in self._optimisers.items():
            parts[f"optimiser.{name}"] = checkpoint.optimiser_tensors(optimiser)
        state = {"epoch": epoch, "history": history, "config": asdict(self._config)}
        checkpoint.save(self.folder / CHECKPOINT, parts, state)
        _write_log(self.folder / LOG, history)

    def resume(self) -> tuple[int, list[dict[str, Any]]]:
        """Load the last checkpoint; return its epoch and history.

        Raises
        ------
        CheckpointError
            The checkpoint cannot be read, or is of another configuration.
        ConfigError
            The configuration in the checkpoint is not valid.
        """
        path = self.folder / CHECKPOINT
        parts, state = checkpoint.load(path)
        try:
            other = changed_tables(state["config"], self._config, str(path))
            if other:
                raise checkpoint.CheckpointError(
                    f"{path}: the checkpoint of a run with another {', '.join(other)}: give "
                    "another --output"
                )
            for name, network in self._networks.items():
                checkpoint.put(network, parts[name], path)
            for name, optimiser in self._optimisers.items():
                checkpoint.put_optimiser(optimiser, parts.get(f"optimiser.{name}", {}))
            return int(state["epoch"]), list(state["history"])
        except TutelageError:
            raise
        except (LookupError, TypeError, ValueError) as error:
            raise checkpoint.CheckpointError(
                f"{path}: damaged, or not the checkpoint of a run: give another --output"
            ) from error

    def save_best(self, epoch: int) -> None:
        """Write the current weights as the best so far."""
        parts = {name: network.state_dict() for name, network in self._networks.items()}
        checkpoint.save(self.folder / BEST, parts, {"epoch": epoch})

    @property
    def has_best(self) -> bool:
        """Whether the file of the best weights exists."""
        return (self.folder / BEST).exists()

    def take_best(self) -> None:
        """Load the best weights.

        Raises
        ------
        CheckpointError
            Their file is missing or damaged.
        """
        for name, network in self._networks.items():
            checkpoint.load_weights(network, self.folder / BEST, name)

    def finish(self, accuracies: Mapping[str, float | None], history: list[dict[str, Any]]) -> None:
        """Write the final weights, student.safetensors and teacher.safetensors, and the log.

        Parameters
        ----------
        accuracies : on the test set, in percent, by the networks' names
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if history:  # a run that was killed after its last checkpoint has no log of that epoch
            _write_log(self.folder / LOG, history)
        for name, file in (("student", STUDENT), ("teacher", TEACHER)):
            if name in self._networks:
                state = {"config": asdict(self._config), "accuracy": accuracies[name]}
                parts = {"student": self._networks[name].state_dict()}
                checkpoint.save(self.folder / file, parts, state)


def _write_log(path: Path, history: list[dict[str, Any]]) -> None:
    """Write the history as CSV, atomically."""
    columns = list(dict.fromkeys(key for row in history for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(history)
    write_file(path, text.getvalue())
