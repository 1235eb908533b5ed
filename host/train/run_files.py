"""The files of a run: checkpoint, log, the best weights, and what it ends with."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutelage.core.files import write_file
from tutelage.host.train import checkpoint
from tutelage.host.train.config import Config, make_config

CHECKPOINT, BEST, STUDENT, TEACHER, LOG = (
    "checkpoint.safetensors", "best.safetensors", "student.safetensors", "teacher.safetensors",
    "log.csv",
)  # fmt: skip


class RunFiles:
    """Reads and writes the files of one run.

    Parameters
    ----------
    folder : of the run
    config : of the run
    networks : what learns by its name, "student" and where it learns "teacher", as it is without
        several processes
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
        """Go back to where the last checkpoint was written; return its epoch and history.

        Raises
        ------
        CheckpointError
            It is of another configuration.
        ConfigError
            Its configuration is not one.
        """
        path = self.folder / CHECKPOINT
        parts, state = checkpoint.load(path)
        # By today's defaults, which an older version's checkpoint may lack.
        before = asdict(make_config(state["config"], str(path)))
        other = [k for k, v in asdict(self._config).items() if before[k] != v]
        if other:
            text = f"{path}: of a run with another {', '.join(other)}; take another --output"
            raise checkpoint.CheckpointError(text)
        for name, network in self._networks.items():
            checkpoint.put(network, parts[name], path)
        for name, optimiser in self._optimisers.items():
            checkpoint.put_optimiser(optimiser, parts.get(f"optimiser.{name}", {}))
        return state["epoch"], state["history"]

    def save_best(self, epoch: int) -> None:
        """Write the weights that are the best so far."""
        parts = {name: network.state_dict() for name, network in self._networks.items()}
        checkpoint.save(self.folder / BEST, parts, {"epoch": epoch})

    @property
    def has_best(self) -> bool:
        """Whether the best weights are there."""
        return (self.folder / BEST).exists()

    def take_best(self) -> None:
        """Go back to the weights that were the best.

        Raises
        ------
        CheckpointError
            They are not there.
        """
        for name, network in self._networks.items():
            checkpoint.load_weights(network, self.folder / BEST, name)

    def finish(self, accuracies: Mapping[str, float | None]) -> None:
        """Write each network for use, under the name by which any run starts from it.

        Parameters
        ----------
        accuracies : in percent of the test set, by the networks' names
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, file in (("student", STUDENT), ("teacher", TEACHER)):
            if name in self._networks:
                state = {"config": asdict(self._config), "accuracy": accuracies[name]}
                parts = {"student": self._networks[name].state_dict()}
                checkpoint.save(self.folder / file, parts, state)


def _write_log(path: Path, history: list[dict[str, Any]]) -> None:
    """The history as CSV, atomically."""
    columns = list(dict.fromkeys(key for row in history for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(history)
    write_file(path, text.getvalue())
