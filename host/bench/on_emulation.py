"""The emulation of the DPU, for reference logits that equal the DPU's bit for bit; not timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage.dpu.engine.reference import load_engine
from tutelage.host.bench.platform import Floats, Platform, file_facts, model_file
from tutelage.host.bench.subject_files import XMODEL_FILE


class Emulation(Platform):
    """An engine of `tutelage.dpu.engine.reference` that runs the .xmodel."""

    channels_last = True

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._facts: dict[str, Any] = {}

    def prepare(self, folder: Path, threads: int) -> None:
        """Load the student."""
        path = model_file(folder, XMODEL_FILE)
        self._model = load_engine(path, self._engine, threads=threads)
        self._facts = {
            "version": "Tutelage's emulation", "device": "emulation of the DPU", **file_facts(path)
        }  # fmt: skip

    def run(self, images: Floats) -> Floats:
        """See `Platform.run`."""
        return self._model.run(images).reshape(len(images), -1)

    def facts(self) -> dict[str, Any]:
        """See `Platform.facts`."""
        return self._facts
