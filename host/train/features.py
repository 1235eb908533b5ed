"""Distillation of features by attention transfer.

The loss compares where the values of feature maps are large (Zagoruyko and Komodakis 2017,
arXiv:1612.03928), so that teacher and student may have different numbers of channels and there are
no parameters to learn beside the student's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.host.quantise.student import Student

_LARGEST_DIFFERENCE = 1e-3
"""Between the outputs of a module and of the quantised layer that computes the same, relative to
the largest value."""


@dataclass(frozen=True)
class Features:
    """Which feature maps to distil, and their weight in the loss.

    The student's loss in a phase that distils becomes
    ``labels * CE + distil * (tau^2 * KL + weight * attention_distance)``.

    Attributes
    ----------
    layers : names of modules of the student's network in PyTorch, such as "features.denseblock1";
        in a quantised student the layer that computes the same is used. []: no features
    teacher_layers : names of the modules of the teacher's network, in the same order; [] if they
        have the same names
    weight : weight of the distance between the feature maps
    """

    layers: list[str] = field(default_factory=list)
    teacher_layers: list[str] = field(default_factory=list)
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.teacher_layers and len(self.teacher_layers) != len(self.layers):
            raise ValueError(
                f"{len(self.layers)} layers but {len(self.teacher_layers)} teacher_layers; give "
                "equally many"
            )
        if self.weight <= 0:
            raise ValueError(f"weight is {self.weight}; it must be positive")


def attention_distance(students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
    """Return the sum over layers of |a_S - a_T|^2, averaged over the images, with a = q / |q|.

    q, (N, H W), is the mean over the channels of the squared map. If the maps differ in size, the
    larger one is averaged to the size of the smaller; a vector is a map of one row. The formula is
    equation 2 of Zagoruyko and Komodakis 2017, arXiv:1612.03928, with the square of the norm, as in
    their code. That takes the mean over the positions: its factor of 1000 is a weight of
    1000 / (H W) here.

    Parameters
    ----------
    students, teachers : maps (N, C, H, W) or vectors (N, C) of the same layers; no gradient flows
        to the teachers'

    Returns
    -------
    a scalar
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
    """Return the mean squares over the channels, (N, 1, H, W); of a vector (N, 1, 1, C)."""
    if values.ndim == 2:
        return values.square()[:, None, None]
    return values.square().mean(1, keepdim=True)


class Taps:
    """Record of the latest outputs of some layers of a network.

    Parameters
    ----------
    network : a quantised student, or any other network
    layers : names of a quantised student's layers, or of another network's modules

    Raises
    ------
    ValueError
        The network has no module of that name.
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
        """Return the outputs in the order of the names, and discard them."""
        return [self._found.pop(name) for name in self._layers]


def module_named(network: nn.Module, name: str) -> nn.Module:
    """Return a module of a network by its dotted name.

    Raises
    ------
    ValueError
        The network has no module of that name.
    """
    try:
        return network.get_submodule(name)
    except AttributeError:
        known = ", ".join(name for name, _ in network.named_children())
        raise ValueError(
            f"[features] layers: the network has no module {name!r}; it has {known} and modules in "
            "them"
        ) from None


@torch.no_grad()
def layers_with_values_of(
    modules: Sequence[str], network: nn.Module, student: Student
) -> list[str]:
    """Return the layers of a quantised student that compute the same as a network's modules.

    They are found by comparing outputs for random images, since tracing merges and renames layers;
    names of the student's own layers are returned unchanged.

    Parameters
    ----------
    modules : names of modules of `network`, or of layers of `student`
    student : the student traced from `network`, not yet calibrated or changed otherwise

    Raises
    ------
    ValueError
        The network has no such module, or no layer computes the same, since norms and activations
        are merged into the layer before them.
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
    """Return the modules' outputs for some images, by name."""
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
        raise ValueError(f"[features] layers: module {missing[0]!r} does not return a tensor")
    return found


def _equal(name: str, value: Tensor, layers: dict[str, Tensor]) -> str:
    """Return the first layer whose output equals the module's."""
    most = _LARGEST_DIFFERENCE * float(value.abs().max())
    for layer, other in layers.items():
        if other.shape == value.shape and bool(((other - value).abs() <= most).all()):
            return layer
    raise ValueError(
        f"[features] layers: no quantised layer computes the same as module {name!r}: name a "
        "module that ends after a norm and an activation, such as a whole block"
    )
