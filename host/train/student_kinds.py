"""The quantisers that a run can train with, by the name in its configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from tutelage.host.quantise.ptq.post_training import PostTraining, post_training
from tutelage.host.quantise.quantisers import Bits
from tutelage.host.quantise.student import Student


class QuantisedStudent(Protocol):
    """What training asks of a quantised network beyond nn.Module."""

    def freeze_norms(self, frozen: bool) -> None:
        """Let batch norms use (and keep) their running statistics, as they are deployed."""

    def thresholds(self) -> dict[str, nn.Parameter]:
        """Return the parameters that are logarithms of thresholds, by name."""


@dataclass(frozen=True)
class StudentKind:
    """A quantiser.

    Attributes
    ----------
    make : from a network trained in float, the (C, H, W) of its images, bit widths, the images' fix
        point and what to replace (`tutelage.host.quantise.trace.trace`); gives an nn.Module that
        is a QuantisedStudent. Raises ValueError or ImportError
    prepare : quantises it from images (N, C, H, W), without training; None where training's first
        steps do
    has_dpu_form : a DPU computes what it computes
    """

    make: Callable[[nn.Module, tuple[int, int, int], Bits, int, Mapping[str, str]], nn.Module]
    prepare: Callable[[Any, Tensor, PostTraining], None] | None = None
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
