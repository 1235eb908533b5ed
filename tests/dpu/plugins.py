"""CPU operators of AMD's example models, as a user would write them for --plugin."""

from __future__ import annotations

from typing import Any

import numpy as np


def op_Mylayer(inputs: dict[str, list[np.ndarray]], attrs: dict[str, Any]) -> np.ndarray:
    """PReLU: x where x > 0, else alpha * x."""
    x, alpha = inputs["input"]
    return np.where(x > 0, x, alpha * x)


def op_PPScatterV2(inputs: dict[str, list[np.ndarray]], attrs: dict[str, Any]) -> np.ndarray:
    """PointPillars' scatter: puts each pillar's features at (batch, z, y, x) on the canvas.

    Features come as (1, channels, pillars, 1) or (1, pillars, 1, channels); the canvas is
    (1, channels, ny, nx), as in OpenPCDet's PointPillarScatter.
    """
    features, coordinates = inputs["input"]
    channels, ny, nx = (int(attrs[name]) for name in ("nchannels", "ny", "nx"))
    pillars = (
        features.reshape(channels, -1)
        if features.shape[1] == channels
        else features.reshape(-1, channels).T
    )
    y, x = coordinates.reshape(-1, 4)[:, 2:].astype(np.int64).T
    canvas = np.zeros((1, channels, ny, nx), features.dtype)
    canvas[0, :, y, x] = pillars.T
    return canvas
