"""Speed of a QKD step: our student, the same in Brevitas, and the network in float.

A step is that of tutoring: student forward and backward, teacher forward, SGD. All contenders
have the same float network, teacher, images and optimiser; they take turns in one process,
with the memory settings of `tutelage train`. `float` is plain PyTorch without compilation.
Ours has three variants: a teacher that computes in every step, one in bfloat16, and one whose
logits are cached, as for images that are the same in every epoch.

    OMP_NUM_THREADS=2 python -m tests.benchmarks.training
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.benchmarks.extent import FULL, Extent
from tutelage.host.networks import create
from tutelage.host.quantise.quantisers import Bits
from tutelage.host.quantise.student import Student
from tutelage.host.train.allocator import keep_freed_memory
from tutelage.host.train.methods import TUTORING, phase_losses
from tutelage.host.train.progress import stepped

STUDENT, TEACHER = "densenet-small", {"growth_rate": 16}
BATCH, ROUNDS, STEPS = 128, 7, 6
SHAPE = (1, 28, 28)
OURS, OTHERS = ("tutelage", "tutelage_bf16_teacher", "tutelage_kept_logits"), ("float", "brevitas")

Teach = Callable[[Tensor], Tensor]


def _step(student: torch.nn.Module, teach: Teach, batch: int) -> Callable[[], None]:
    """One training step on random images; the time does not depend on the values."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, *SHAPE, generator=generator) * 2 - 1
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,), generator=generator)
    student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(student.parameters(), 1e-5, momentum=0.9)
    student.train()

    def work() -> None:
        with torch.no_grad():
            taught = teach(images)
        loss, _ = phase_losses(TUTORING, student(images), taught, labels, 4.0)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return work


def _teachers(batch: int) -> tuple[Teach, Teach, Teach]:
    """The teacher in float32, in bfloat16, and as cached logits."""
    teacher = create(STUDENT, in_channels=SHAPE[0], **TEACHER).eval()
    teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    kept, rows = torch.zeros(20 * batch, 10), torch.randperm(20 * batch)[:batch]

    def in_bfloat16(images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits: Tensor = teacher(images)
        return logits.float()

    return teacher, in_bfloat16, lambda _: kept[rows]


def _contenders(bits: int, batch: int) -> dict[str, Callable[[], None]]:
    network = create(STUDENT, in_channels=SHAPE[0])
    teacher, *others = _teachers(batch)
    found = {
        name: _step(Student(network, SHAPE, Bits(bits, bits)), teach, batch)
        for name, teach in zip(OURS, (teacher, *others), strict=True)
    }
    try:
        from tutelage.host.peers.brevitas_peer import brevitas_student

        # Without a phase that collects statistics, which would be even slower.
        peer = brevitas_student(network, SHAPE, bits, bits, collect_steps=1)
        found["brevitas"] = _step(peer, teacher, batch)
    except ImportError:
        pass
    return found | {"float": _step(network, teacher, batch)}


def _steps_per_second(work: Callable[[], None], steps: int) -> float:
    work()
    start = time.perf_counter()
    for _ in range(steps):
        work()
    return steps / (time.perf_counter() - start)


def report(extent: Extent = FULL, bits: int = 4) -> dict[str, Any]:
    """Return images per second of each contender, and ours relative to the others, as medians."""
    keep_freed_memory()
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
    for other in (name for name in OTHERS if name in speeds):
        for ours in OURS:
            pairs = zip(speeds[ours], speeds[other], strict=True)
            found[f"{ours}_speed_against_{other}"] = round(
                statistics.median(a / b for a, b in pairs), 2
            )
    return {"step": f"tutoring, W{bits}A{bits}, batch {batch}", "student": STUDENT, **found,
            "threads": torch.get_num_threads()}  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(report(), indent=2))
