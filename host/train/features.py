"""Distillation of features: teacher and student look at the same places of an image.

Attention transfer (Zagoruyko and Komodakis 2017, arXiv:1612.03928): what is compared of a map is
where its values are large, so that teacher and student may have different numbers of channels and
nothing more has to be learned than the student.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.host.quantise.student import Student

_LARGEST_DIFFERENCE = 1e-3
"""Between a module's result and that of the quantised layer which has the same value, relative to
the largest value."""


@dataclass(frozen=True)
class Features:
    """Which features are compared, and how much that counts.

    The loss of a student that is taught in a phase becomes
    ``labels * CE + distil * (tau^2 * KL + weight * attention_distance)``.

    Attributes
    ----------
    layers : modules of the student's network by their names in PyTorch, such as
        "features.denseblock1"; a quantised student's layer that has such a module's value is found
        by it. [] compares none
    teacher_layers : those of the teacher's network; [] if they have the same names
    weight : of the distance
    """

    layers: list[str] = field(default_factory=list)
    teacher_layers: list[str] = field(default_factory=list)
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.teacher_layers and len(self.teacher_layers) != len(self.layers):
            raise ValueError("layers and teacher_layers are not equally many")
        if self.weight <= 0:
            raise ValueError(f"weight is {self.weight}; it must be positive")


def attention_distance(students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
    """Return the sum over layers of |a_S - a_T|^2, a = q / |q|, averaged over the images.

    q is the map of squares averaged over the channels (N, H W). Of maps of two sizes the larger is
    averaged to the smaller; a vector counts as a map of one row.

    Parameters
    ----------
    students, teachers : maps (N, C, H, W) or vectors (N, C) of the same layers; the teacher's are
        constants
    """
    total = students[0].new_zeros(())
    for student, teacher in zip(students, teachers, strict=True):
        own, other = _squares(student), _squares(teacher.detach())
        height, width = (min(a, b) for a, b in zip(own.shape[2:], other.shape[2:], strict=True))
        size = (height, width)
        first, second = (F.adaptive_avg_pool2d(q, size).flatten(1) for q in (own, other))
        difference = F.normalize(first, dim=1) - F.normalize(second, dim=1)
        total = total + difference.square().sum(1).mean()
    return total


def _squares(values: Tensor) -> Tensor:
    """(N, 1, H, W); of a vector (N, 1, 1, C)."""
    if values.ndim == 2:
        return values.square()[:, None, None]
    return values.square().mean(1, keepdim=True)


class Taps:
    """What some layers of a network computed last.

    Parameters
    ----------
    network : a quantised student, or any other network
    layers : names of a quantised student's layers, or of another network's modules

    Raises
    ------
    ValueError
        There is no such module.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str]) -> None:
        self._layers, self._found = layers, dict[str, Tensor]()
        if isinstance(network, Student):
            network.tap = self._note
            return
        for name in layers:
            module_named(network, name).register_forward_hook(
                lambda _module, _given, found, name=name: self._note(name, found)
            )

    def _note(self, name: str, value: Tensor) -> None:
        if name in self._layers:
            self._found[name] = value

    def take(self) -> list[Tensor]:
        """Return the values in the order of the names, and forget them."""
        return [self._found.pop(name) for name in self._layers]


def module_named(network: nn.Module, name: str) -> nn.Module:
    """Return a module of a network.

    Raises
    ------
    ValueError
        There is none of that name.
    """
    try:
        return network.get_submodule(name)
    except AttributeError:
        known = ", ".join(name for name, _ in network.named_children())
        raise ValueError(
            f"features: the network has no module {name!r}; it has {known} and what is in them"
        ) from None


@torch.no_grad()
def layers_with_values_of(
    modules: Sequence[str], network: nn.Module, student: Student
) -> list[str]:
    """Return the layers of a quantised student that have the values of a network's modules.

    They are found by what they compute, since tracing merges and renames; the name of a layer of
    the student itself is taken as it is.

    Parameters
    ----------
    student : made of `network`, and nothing done to it yet

    Raises
    ------
    ValueError
        There is no such module, or no layer has its value: a norm or an activation is merged with
        the layer in front of it.
    """
    names = [name for name in modules if name not in student.layers]
    training, of_student = network.training, student.training
    network.eval(), student.eval()
    images = torch.randn(2, *student.input_shape, generator=torch.Generator().manual_seed(0))
    wanted, found = _outputs(network, names, images), dict[str, Tensor]()
    student.observer, student.tap = (lambda _name, _values: None), found.__setitem__
    try:
        student(images)
    finally:
        student.observer = student.tap = None
        network.train(training), student.train(of_student)
    return [_equal(name, wanted[name], found) if name in wanted else name for name in modules]


def _outputs(network: nn.Module, names: Sequence[str], images: Tensor) -> dict[str, Tensor]:
    """The modules' results for some images, by name."""
    found: dict[str, Tensor] = {}
    hooks = [
        module_named(network, name).register_forward_hook(
            lambda _module, _given, result, name=name: found.__setitem__(name, result)
        )
        for name in names
    ]
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()
    missing = [name for name in names if not isinstance(found.get(name), Tensor)]
    if missing:
        raise ValueError(f"features: module {missing[0]!r} gives no tensor for an image")
    return found


def _equal(name: str, value: Tensor, layers: dict[str, Tensor]) -> str:
    """The first layer whose value is the module's."""
    most = _LARGEST_DIFFERENCE * float(value.abs().max())
    for layer, other in layers.items():
        if other.shape == value.shape and bool(((other - value).abs() <= most).all()):
            return layer
    raise ValueError(
        f"features: no quantised layer has the value of module {name!r}: name a module that ends "
        "behind its norm and activation, such as a whole block"
    )
