"""Post-training quantisation with NNCF, OpenVINO's own quantiser, for comparison.

NNCF 3.4 (https://github.com/openvinotoolkit/nncf, Apache-2.0) takes a float `openvino.Model` and
calibration images. Its defaults are kept: 8 bits, weights per channel, activations per tensor with
any scale and zero point, and bias correction. The DPU, in contrast, has power-of-two scales and no
zero points.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray


def quantise(model: Any, images: NDArray[np.float32]) -> Any:
    """Return the int8 `openvino.Model` of a float model with one input.

    Parameters
    ----------
    model : float `openvino.Model`, whose input is images (N, C, H, W)
    images : normalised images (N, C, H, W), all of which are used for calibration

    Raises
    ------
    ImportError
        NNCF is not installed.
    """
    try:
        nncf: Any = import_module("nncf")
    except ModuleNotFoundError as error:
        if error.name != "nncf":
            raise  # let the error of a broken dependency through
        raise ImportError("nncf is not installed: pip install nncf") from error
    batches = [image[np.newaxis] for image in images]
    return nncf.quantize(model, nncf.Dataset(batches), subset_size=len(batches))


def version() -> str:
    """Return NNCF's version; "" if it is not installed."""
    from importlib import metadata

    try:
        return metadata.version("nncf")
    except metadata.PackageNotFoundError:
        return ""
