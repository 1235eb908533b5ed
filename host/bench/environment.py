"""Facts about the machine that figures are measured on."""

from __future__ import annotations

import os
import platform
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from tutelage.core.results.bench_json import BenchMachine

psutil: Any = import_module("psutil")  # has no type hints

_PACKAGES = (
    "torch", "onnxruntime", "onnxruntime-gpu", "openvino", "onnx", "numpy",
    "opencv-python-headless", "nncf", "tensorrt", "nvidia-ml-py",
)  # fmt: skip
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_CPU_INFO = Path("/proc/cpuinfo")


def machine_facts(cpus: list[int], threads: int) -> BenchMachine:
    """Return processor, clocks, memory, system and packages; unknown facts are None.

    Parameters
    ----------
    cpus : CPUs that the process of each platform is pinned to
    threads : number of threads that each framework uses
    """
    info = _cpu_info()
    return BenchMachine(
        cpu=cpu_name(),
        threads=threads,
        cores=psutil.cpu_count(logical=False),
        logical_cpus=psutil.cpu_count(),
        pinned_to=cpus,
        governor=_read(_GOVERNOR),
        virtual_machine="hypervisor" in info.get("flags", "").split(),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        load_before=round(os.getloadavg()[0], 2),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        packages={name: _version(name) for name in _PACKAGES},
    )


def has_vnni() -> bool:
    """Return whether the processor has VNNI: sums of unsigned times signed bytes in 32 bits."""
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(_cpu_info().get("flags", "").split())


def cpu_name() -> str:
    """Return the kernel's name of the processor."""
    return _cpu_info().get("model name") or platform.machine()


def _cpu_info() -> dict[str, str]:
    """Return the fields of /proc/cpuinfo for the first CPU."""
    first = (_read(_CPU_INFO) or "").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
