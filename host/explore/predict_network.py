"""The time of any network on a board, behind `tutelage.predict`.

    tutelage.predict("models/mine/model.xmodel").latency_seconds
    tutelage.predict(torchvision.models.resnet18(), input_shape=(3, 224, 224)).fps()

PyTorch is imported for its own networks only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tutelage.core.board_profile import DEFAULT_BOARD
from tutelage.dpu.predict.latency import Prediction, predict
from tutelage.dpu.predict.prediction import operations_in, predict_file


def predict_network(
    network: Any, board: str = DEFAULT_BOARD, input_shape: tuple[int, int, int] | None = None
) -> Prediction:
    """Predict latency, frames per second and the time of each layer on a board's DPU.

    Parameters
    ----------
    network : path of an .xmodel; a PyTorch network or the name of a preset, such as "densenet-121",
        with `input_shape`; or operations (`tutelage.dpu.predict.operations`)
    board : the board, by the file name of its profile
    input_shape : (C, H, W) of one image

    Raises
    ------
    DpuError
        The file or the board cannot be used, or `network` is nothing of that.
    UnsupportedOp, NetworkError
        The DPU does not have an operation of a PyTorch network, or there is no such preset. Both
        are ValueErrors.
    """
    if input_shape is not None:
        from tutelage.host.explore.network_operations import create_operations, network_operations

        if isinstance(network, str):
            return predict(create_operations(network, "x".join(map(str, input_shape))), board)
        return predict(network_operations(network, input_shape), board)
    if isinstance(network, (str, os.PathLike)):
        return predict_file(Path(network), board)
    return predict(operations_in(network, "without input_shape the network is"), board)
