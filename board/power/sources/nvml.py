"""Power readings of NVIDIA's graphics cards from NVML.

Idle cards would count against the one that works, so only those that CUDA programs see are read.
"""

from __future__ import annotations

import math
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from tutelage.board.power.sources.registry import register_source
from tutelage.board.power.sources.source import (
    PC_MAX_WATTS,
    PowerError,
    PowerSource,
    Rail,
    add_total,
)
from tutelage.core.board_profile import Profile
from tutelage.core.errors import one_line

# NVML's reference, nvmlDeviceGetPowerUsage: mW; accurate to within 5 % on Fermi and Kepler; the
# average of 1 s on Ampere (except GA100) and newer. No accuracy is documented of cards after
# Kepler. Both are assumed of all cards.
_NVML_STEP_WATTS = 1e-3
_NVML_RELATIVE_ERROR = 0.05
_NVML_AVERAGE_SECONDS = 1.0

_VISIBLE = "CUDA_VISIBLE_DEVICES"


class NvmlSource(PowerSource):
    """Graphics cards, and their sum if there are several.

    Parameters
    ----------
    nvml : the module pynvml, initialised
    devices : NVML's handles of the cards, by index
    """

    name = "nvml"

    def __init__(self, nvml: Any, devices: dict[int, Any]):
        self._nvml = nvml
        self._devices = list(devices.values())
        parts = [f"GPU{index}" for index in devices]
        rails = [
            Rail(name, _NVML_STEP_WATTS, PC_MAX_WATTS, relative_error=_NVML_RELATIVE_ERROR,
                 lag_seconds=_NVML_AVERAGE_SECONDS)
            for name in parts
        ]  # fmt: skip
        total = add_total(rails, parts)
        super().__init__(f"NVML, graphics only: {' + '.join(parts)}", rails, total)

    def read(self) -> list[float]:
        values = [self._milliwatts(device) * 1e-3 for device in self._devices]
        return values + [sum(values)] * (len(self.rails) - len(values))

    def _milliwatts(self, device: Any) -> float:
        try:
            return float(self._nvml.nvmlDeviceGetPowerUsage(device))
        except Exception:  # NVMLError, and ctypes' own
            return math.nan

    def close(self) -> None:
        self._nvml.nvmlShutdown()


@register_source("nvml", preference=40)
def open_nvml(profile: Profile, sysfs: Path) -> PowerSource:
    """Return the NVIDIA cards that CUDA programs use; profile and `sysfs` are ignored.

    Raises
    ------
    PowerError
        nvidia-ml-py or the driver is missing, or one of the cards does not report its power.
    """
    try:
        nvml = import_module("pynvml")
    except ImportError as error:
        raise PowerError("nvidia-ml-py is not installed") from error
    try:
        nvml.nvmlInit()
    except Exception as error:
        raise PowerError(f"NVML does not start: {one_line(error)}") from error
    try:
        devices = _used_devices(nvml)
        for device in devices.values():
            nvml.nvmlDeviceGetPowerUsage(device)
    except Exception as error:
        nvml.nvmlShutdown()
        if isinstance(error, PowerError):
            raise
        raise PowerError(f"NVML reports no power: {one_line(error)}") from error
    return NvmlSource(nvml, devices)


def _used_devices(nvml: Any) -> dict[int, Any]:
    """Return the handles of the cards that CUDA programs use, by NVML's index.

    CUDA_VISIBLE_DEVICES lists indices, or the beginnings of UUIDs, and ends at the first one that
    is invalid (CUDA C++ Programming Guide, "CUDA Environment Variables"). Without it, this is the
    first card, which PyTorch and ONNX Runtime use by default. NVML counts in the order of the bus,
    and so does CUDA if the cards are alike or CUDA_DEVICE_ORDER is PCI_BUS_ID.

    Raises
    ------
    PowerError
        No card is installed, or CUDA_VISIBLE_DEVICES selects no card.
    """
    handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    if not handles:
        raise PowerError("NVML finds no card")
    visible = os.environ.get(_VISIBLE)
    if visible is None:
        return {0: handles[0]}
    found = {}
    for text in map(str.strip, visible.split(",")):
        if text.isdecimal():
            matching = [index for index in range(len(handles)) if index == int(text)]
        else:
            matching = [index for index, handle in enumerate(handles)
                        if text.startswith("GPU-")
                        and _uuid(nvml, handle).startswith(text)]  # fmt: skip
        if len(matching) != 1:
            break
        found[matching[0]] = handles[matching[0]]
    if not found:
        raise PowerError(f"{_VISIBLE}={visible!r} selects no card")
    return found


def _uuid(nvml: Any, handle: Any) -> str:
    uuid = nvml.nvmlDeviceGetUUID(handle)
    return uuid.decode() if isinstance(uuid, bytes) else str(uuid)  # bytes before pynvml 11.5
