"""The law of a layer: student, quantised file, emulation and board's instructions are equal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.core.fixed_point import Array
from tutelage.dpu.compiler.board.graph import compile_for_board
from tutelage.dpu.compiler.emulation import compile_graph, on_cpu
from tutelage.dpu.engine.reference import load_engine
from tutelage.dpu.xmodel.graph import Graph
from tutelage.host.quantise.calibrate import calibrate
from tutelage.host.quantise.quantisers import Bits
from tutelage.host.quantise.student import Student
from tutelage.host.quantise.to_xmodel import to_quantised

ZCU104 = 0x101000016010407

Shapes = Sequence[tuple[int, ...]]


def make_images(shapes: Shapes, count: int = 12, seed: int = 0) -> tuple[Tensor, ...]:
    """Random images on the grid of int8."""
    generator = torch.Generator().manual_seed(seed)
    images = (torch.randint(-128, 128, (count, *shape), generator=generator) for shape in shapes)
    return tuple(image / 128 for image in images)


def seasoned(network: nn.Module, images: Sequence[Tensor]) -> nn.Module:
    """Return the network in evaluation mode, with nontrivial statistics and factors of norms."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(getattr(module, "running_mean", None), Tensor):
            for parameter in module.parameters(recurse=False):
                values = torch.rand(parameter.shape, generator=generator) + 0.25
                parameter.data = values
    with torch.no_grad():
        for _ in range(3):
            network.train()(*images)
    return network.eval()


def outputs_of(found: Any) -> list[Tensor]:
    """Return the outputs of a network or a student, flattened and each once, as in a file."""
    given = list(_leaves(found))
    return [y for n, y in enumerate(given) if not any(y is other for other in given[:n])]


def _leaves(found: Any) -> Iterator[Tensor]:
    if isinstance(found, Tensor):
        yield found
    elif found is not None:
        for part in found.values() if isinstance(found, dict) else found:
            yield from _leaves(part)


def run_graph(graph: Graph, engine: str, images: Sequence[Tensor]) -> list[Array]:
    """Return a graph's outputs, with maps as (N, H, W, C)."""
    maps = [image if image.dim() == 4 else image.unsqueeze(2) for image in images]
    inputs = [image.permute(0, 2, 3, 1).contiguous().numpy() for image in maps]
    model = load_engine(graph, engine)
    found = model.run_all(*inputs)
    return [found[op.get_name()] for op in model.program.outputs]


def as_filed(student: Student, images: Sequence[Tensor]) -> list[Array]:
    """Return a student's outputs, each once, with the order of axes of a file."""
    with torch.no_grad():
        found = student(*images)
    given = [found] if isinstance(found, Tensor) else found
    values = dict(zip(student.outputs, given, strict=True))
    maps = {name for name in values if student.layer(name).channels_last}
    return [y.permute(0, 2, 3, 1).numpy() if y.ndim == 4 and name in maps else y.numpy()
            for name, y in values.items()]  # fmt: skip


def check_law(
    network: nn.Module,
    shapes: Shapes,
    bits: Bits | None = None,
    cpu: bool = False,
    float_error: float | None = 1e-4,
    board: bool = True,
    seed: int = 0,
) -> Student:
    """Verify that all forms give the same outputs after a training step; return the student.

    Parameters
    ----------
    cpu : whether ops may stay on the CPU
    float_error : largest difference of the student without rounding from the network; None
        if it differs by design
    board : whether a board's instructions are compared too, for a few images
    """
    images = make_images(shapes, seed=seed)
    network = seasoned(network, images)
    shape = shapes[0] if len(shapes) == 1 else shapes
    student = Student(network, shape, bits).eval()
    if float_error is not None:
        _check_float(student, network, images, float_error)
    calibrate(student, images)
    _train(student, images)
    wanted = as_filed(student, images)
    assert all(len(np.unique(y)) > 2 for y in wanted)
    quantised = to_quantised(student, "law")
    assert cpu or not on_cpu(quantised), on_cpu(quantised)
    compiled = compile_graph(quantised)
    for graph in (quantised, compiled):
        for engine in ("fast", "reference"):
            _compare(run_graph(graph, engine, images), wanted, engine)
    if board:
        found = compile_for_board(quantised, ZCU104)
        assert cpu or not found.on_cpu, found.on_cpu
        few = [image[:2] for image in images]
        _compare(run_graph(found.graph, "instructions", few), [y[:2] for y in wanted], "board")
    return student


def _check_float(
    student: Student, network: nn.Module, images: Sequence[Tensor], most: float
) -> None:
    student.observer = lambda name, values: None
    with torch.no_grad():
        pairs = zip(outputs_of(student(*images)), outputs_of(network(*images)), strict=True)
        for found, wanted in pairs:
            torch.testing.assert_close(found, wanted, rtol=most, atol=most)
    student.observer = None


def _train(student: Student, images: Sequence[Tensor]) -> None:
    student.train()
    optimiser = torch.optim.SGD(student.parameters(), 1e-3)
    sum(y.float().square().mean() for y in outputs_of(student(*images))).backward()  # type: ignore[union-attr]
    optimiser.step()
    student.eval()


def _compare(found: list[Array], wanted: list[Array], name: str) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(ours.reshape(theirs.shape), theirs, err_msg=name)
