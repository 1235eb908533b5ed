"""The implementation of `tutelage.predict`: the time of any network on a board.

    tutelage.predict("models/mine/model.xmodel").latency_seconds
    tutelage.predict(torchvision.models.resnet18(), input_shape=(3, 224, 224)).fps()

PyTorch is imported only if `input_shape` is given.
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
    network : path of an .xmodel; or, with `input_shape`, a PyTorch network or the name of a preset,
        such as "densenet-121"; or operations (`tutelage.dpu.predict.operations`)
    board : file name of the board's profile
    input_shape : (C, H, W) of one image

    Returns
    -------
    Prediction
        Its times are in seconds

    Raises
    ------
    DpuError
        The file or the board cannot be used, or `network` has another type.
    UnsupportedOp
        A PyTorch network contains an operation that the DPU does not support. A ValueError.
    NetworkError
        There is no such preset. A ValueError.
    """
    if input_shape is not None:
        from tutelage.host.explore.network_operations import create_operations, network_operations

        if isinstance(network, str):
            return predict(create_operations(network, "x".join(map(str, input_shape))), board)
        return predict(network_operations(network, input_shape), board)
    if isinstance(network, (str, os.PathLike)):
        return predict_file(Path(network), board)
    return predict(operations_in(network, "without input_shape the network is"), board)
