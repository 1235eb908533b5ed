"""Figures of a model's card, models/<name>/README.md, from their sources."""

from __future__ import annotations

from pathlib import Path

from tutelage.core.board_profile import DEFAULT_BOARD
from tutelage.core.digits import digits
from tutelage.dpu.predict.prediction import latency_figure, predict_file
from tutelage.host.compile.target import load_target
from tutelage.host.export.model_directory import Checkpoint


def card_rows(loaded: Checkpoint, compiled: Path) -> list[str]:
    """Return the rows of a card's table: network, training, accuracy, and cost on the DPU.

    Parameters
    ----------
    loaded : the model's checkpoint
    compiled : the checkpoint's .xmodel, exported and compiled for `DEFAULT_BOARD`

    Raises
    ------
    DpuError
        The compiled file cannot be used.
    """
    config, student = loaded.config, loaded.student
    shape, classes = "x".join(map(str, student.input_shape)), student.layer(student.output).shape[0]
    prediction = predict_file(compiled, DEFAULT_BOARD)
    time, low, high = (digits(value, 2) for value in latency_figure(prediction).ends)
    rows = {
        "network": f"{config.student.network}, {loaded.parameters:,} parameters, "
        f"{shape} to {classes} classes",
        "training": f"{config.method} at {student.bits.label}, {config.training.epochs} epochs, "
        f"seed {config.seed}",
        loaded.measure: f"{loaded.accuracy:.2f} % of the test set",
        f"compiled for the {load_target(DEFAULT_BOARD).name}": f"{digits(_kilobytes(compiled))} kB",
        "predicted there": f"{time} ms ({low} to {high}) per image with one thread, DPU at "
        f"{prediction.board.clock_mhz:g} MHz",
    }
    return [f"| {name} | {text} |" for name, text in rows.items()]


def _kilobytes(file: Path) -> int:
    return round(file.stat().st_size / 1000)
