"""Power readings of NVIDIA's graphics cards from NVML."""

from __future__ import annotations

import math
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

# NVML's nvmlDeviceGetPowerUsage: mW, "accurate to within +/- 5% of current power draw".
_NVML_STEP_WATTS = 1e-3
_NVML_RELATIVE_ERROR = 0.05


class NvmlSource(PowerSource):
    """The graphics cards, and their sum if there are several."""

    name = "nvml"

    def __init__(self, nvml: Any, devices: list[Any]):
        self._nvml = nvml
        self._devices = devices
        parts = [f"GPU{number}" for number in range(len(devices))]
        rails = [
            Rail(name, _NVML_STEP_WATTS, PC_MAX_WATTS, relative_error=_NVML_RELATIVE_ERROR)
            for name in parts
        ]
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
    """Return the NVIDIA cards that report their power; profile and `sysfs` are ignored.

    Raises
    ------
    PowerError
        nvidia-ml-py or the driver is missing, or no card reports its power.
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
        count = nvml.nvmlDeviceGetCount()
        devices = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        if not devices:
            raise PowerError("NVML finds no card")
        for device in devices:
            nvml.nvmlDeviceGetPowerUsage(device)
    except Exception as error:
        nvml.nvmlShutdown()
        if isinstance(error, PowerError):
            raise
        raise PowerError(f"NVML reports no power: {one_line(error)}") from error
    return NvmlSource(nvml, devices)
