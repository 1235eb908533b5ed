"""Post-training quantisation by somebody else: NNCF, OpenVINO's own quantiser.

NNCF (https://github.com/openvinotoolkit/nncf, Apache-2.0) 3.4 takes a float network as OpenVINO
has it and images to calibrate with. Its defaults are kept: 8 bits, weights by channel, activations
by tensor with any scale and zero point, biases corrected. The DPU has powers of two and no zero
points.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray


def quantise(model: Any, images: NDArray[np.float32]) -> Any:
    """Return an int8 `openvino.Model` of a float one with one input.

    Parameters
    ----------
    model : `openvino.Model`; images (N, C, H, W)
    images : normalised, (N, C, H, W); all of them calibrate

    Raises
    ------
    ImportError
        NNCF is not installed.
    """
    try:
        nncf: Any = import_module("nncf")
    except ModuleNotFoundError as error:
        if error.name != "nncf":
            raise  # one whose own requirements are broken says so itself
        raise ImportError("nncf is not installed: pip install nncf") from error
    batches = [image[np.newaxis] for image in images]
    return nncf.quantize(model, nncf.Dataset(batches), subset_size=len(batches))


def version() -> str:
    """Return NNCF's version, "" where it is not installed."""
    from importlib import metadata

    try:
        return metadata.version("nncf")
    except metadata.PackageNotFoundError:
        return ""
