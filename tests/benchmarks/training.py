"""How fast a QKD step is: our student against the same one as a Brevitas QAT model.

A step is what tutoring does: student forward and backward, teacher forward, SGD. Both contenders
have the same float network, teacher, images and optimiser; they take turns within one process.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from tests.benchmarks.extent import FULL, Extent
from tutelage.host.networks import create
from tutelage.host.quantise.quantisers import Bits
from tutelage.host.quantise.student import Student
from tutelage.host.train.methods import TUTORING, phase_losses
from tutelage.host.train.progress import stepped

STUDENT, TEACHER = "densenet-small", {"growth_rate": 16}
BATCH, ROUNDS, STEPS = 128, 7, 6
SHAPE = (1, 28, 28)


def _step(student: torch.nn.Module, teacher: torch.nn.Module, batch: int) -> Callable[[], None]:
    """One training step on random images; what is timed does not depend on the values."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, *SHAPE, generator=generator) * 2 - 1
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,), generator=generator)
    optimiser = torch.optim.SGD(student.parameters(), 1e-5, momentum=0.9)
    student.train()
    teacher.eval()

    def work() -> None:
        with torch.no_grad():
            taught = teacher(images)
        loss, _ = phase_losses(TUTORING, student(images), taught, labels, 4.0)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return work


def _contenders(bits: int, batch: int) -> dict[str, Callable[[], None]]:
    network = create(STUDENT, in_channels=SHAPE[0])
    teacher = create(STUDENT, in_channels=SHAPE[0], **TEACHER)
    teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ours = Student(network, SHAPE, Bits(bits, bits))
    ours.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = {"tutelage": _step(ours, teacher, batch)}
    try:
        from tutelage.host.peers.brevitas_peer import brevitas_student

        # Without a phase that collects statistics, which is slower still.
        peer = brevitas_student(network, SHAPE, bits, bits, collect_steps=1)
        peer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        found["brevitas"] = _step(peer, teacher, batch)
    except ImportError:
        pass
    return found


def _steps_per_second(work: Callable[[], None], steps: int) -> float:
    work()
    start = time.perf_counter()
    for _ in range(steps):
        work()
    return steps / (time.perf_counter() - start)


def report(extent: Extent = FULL, bits: int = 4) -> dict[str, Any]:
    """Images per second of each contender and the ratio; medians over rounds in turn."""
    batch, steps = min(BATCH, extent.images), min(STEPS, extent.repeats)
    contenders = _contenders(bits, batch)
    for work in contenders.values():
        work()
        work()
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in stepped("training", range(min(ROUNDS, extent.repeats))):
        names = list(contenders)
        for name in names if number % 2 else names[::-1]:
            speeds[name].append(batch * _steps_per_second(contenders[name], steps))
    found: dict[str, Any] = {
        f"{name}_images_per_second": round(statistics.median(values), 1)
        for name, values in speeds.items()
    }
    if "brevitas" in speeds:
        pairs = zip(speeds["tutelage"], speeds["brevitas"], strict=True)
        found["speed_ratio"] = round(statistics.median(a / b for a, b in pairs), 2)
    return {"step": f"tutoring, W{bits}A{bits}, batch {batch}", "student": STUDENT, **found,
            "threads": torch.get_num_threads()}  # fmt: skip
