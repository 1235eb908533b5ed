"""Quantisers that a run can train with, by their name in its configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from tutelage.host.quantise.ptq.post_training import PostTraining, post_training
from tutelage.host.quantise.quantisers import Bits
from tutelage.host.quantise.student import Student


class QuantisedStudent(Protocol):
    """Interface of a quantised network that training needs beyond nn.Module."""

    def freeze_norms(self, frozen: bool) -> None:
        """Let batch norms use, and not update, their running statistics, as when deployed."""

    def thresholds(self) -> dict[str, nn.Parameter]:
        """Return the parameters that are log2 of thresholds, by name."""


@dataclass(frozen=True)
class StudentKind:
    """A quantiser.

    Attributes
    ----------
    make : returns the student, an nn.Module that is a QuantisedStudent, from a network trained in
        float, the (C, H, W) of its images, the bit widths, the images' fix point and the
        activations to replace (`tutelage.host.quantise.trace.trace`). Raises ValueError or
        ImportError
    prepare : calibrates a student with inputs (N, C, H, W), before training, and leaves the scales
        of the channels of some layers, given by their names, as they are; None if the first
        steps of training do so
    has_dpu_form : whether the student's arithmetic is the DPU's
    """

    make: Callable[[nn.Module, tuple[int, int, int], Bits, int, Mapping[str, str]], nn.Module]
    prepare: Callable[[Any, Tensor, PostTraining, Sequence[str]], None] | None = None
    has_dpu_form: bool = False


def _brevitas(
    network: nn.Module, shape: tuple[int, int, int], bits: Bits, input_fix_point: int,
    replace: Mapping[str, str],
) -> nn.Module:  # fmt: skip
    from tutelage.host.peers.brevitas_peer import brevitas_student

    return brevitas_student(
        network, shape, bits.weights, bits.activations, bits.first, bits.last,
        input_fix_point=input_fix_point, replace=replace, joined_bits=bits.joined,
    )  # fmt: skip


STUDENT_KINDS = {
    "tqt": StudentKind(Student, post_training, has_dpu_form=True),
    "brevitas": StudentKind(_brevitas),
}
