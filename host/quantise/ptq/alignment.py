"""Alignment of ranges to powers of two.

Since thresholds are powers of two, a tensor that needs a range of 2.1 wastes almost half of the
integers. If all channels of a layer can be scaled, another factor from 1 to 2 for all of them, and
its inverse in the layers that read them, shifts the ranges of the layer's result, weights and bias
relative to their powers of two. The best factors are found for one layer after the other, from
the squared rounding error of each tensor at each factor, weighted by importance
(host/quantise/ptq/importance.py), with the best threshold for that factor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.host.quantise.fix_points import BIAS_BITS
from tutelage.host.quantise.ptq.channels import FIXED, ChannelGroups
from tutelage.host.quantise.ptq.importance import Importance
from tutelage.host.quantise.quantisers import Quantiser
from tutelage.host.quantise.student import Student

_FACTORS = 16
"""Number of factors to try: 2^(0/16) to 2^(15/16)."""

_CLIPPED = 3
"""Number of thresholds to try, from the power of two above the largest value downwards."""

_ROUNDS = 3
"""Number of passes over the layers."""


@dataclass
class _Tensor:
    """The rounding errors of a tensor whose factor is the quotient of those of two components.

    Attributes
    ----------
    errors : error for each factor, [_FACTORS]
    grows, shrinks : the components by whose factors it is multiplied and divided
    """

    errors: Tensor
    grows: int
    shrinks: int = FIXED


def aligned_scale(
    student: Student, groups: ChannelGroups, scale: Tensor, pinned: Tensor,
    found: Importance, samples: dict[str, Tensor], weights: float,
) -> Tensor:  # fmt: skip
    """Return `scale`, multiplied by a factor for each layer whose scales are free.

    Parameters
    ----------
    student : to which `scale` is not applied yet
    groups : the groups of channels that share a scale
    scale : scale of each group, as for `scale_channels`
    pinned : bool for each group, whether its scale must not change
    found : importance of the errors
    samples : name of a layer whose result is rounded -> some values of each channel, [C, n]
    weights : factor on the errors of weights
    """
    component = _components(student, groups, pinned)
    tensors = _tensors(student, groups, scale, component, found, samples, weights)
    shift = torch.zeros(int(component.max()) + 1, dtype=torch.long)
    for _ in range(_ROUNDS):
        for one in range(1, len(shift)):
            total = torch.zeros(_FACTORS, dtype=torch.float64)
            for tensor in tensors:
                if one not in (tensor.grows, tensor.shrinks) or tensor.grows == tensor.shrinks:
                    continue
                at = torch.arange(_FACTORS)
                now = (
                    at - shift[tensor.shrinks] if tensor.grows == one else shift[tensor.grows] - at
                )
                total += tensor.errors[now % _FACTORS]
            shift[one] = total.argmin()
    return scale * torch.exp2(shift[component] / _FACTORS)


def _components(student: Student, groups: ChannelGroups, pinned: Tensor) -> Tensor:
    """Return for each group its component, the set of groups with one factor; FIXED has none."""
    label = torch.arange(groups.count)
    label[pinned] = FIXED
    quantisers = dict.fromkeys(student.activation_of.values())
    changed = True
    while changed:
        before = label.clone()
        for quantiser in quantisers:
            members = torch.cat([groups.of[name] for name in quantiser.members])
            least = label[members].min()
            label[members] = least
        changed = not torch.equal(before, label)
    _, numbered = torch.unique(label, return_inverse=True)
    return numbered


def _tensors(
    student: Student, groups: ChannelGroups, scale: Tensor, component: Tensor,
    found: Importance, samples: dict[str, Tensor], weights: float,
) -> list[_Tensor]:  # fmt: skip
    tensors = []
    for name, conv in student.convs():
        weight, bias = (value.detach().double().cpu() for value in conv.folded())
        given, read = scale[groups.of[name]], scale[groups.inputs(conv)]
        grows = int(component[groups.of[name][0]])
        shrinks = int(component[groups.inputs(conv)[0, 0]])
        values = weight * (given[:, None] / read)[:, :, None, None]
        each = (
            found.weights[name].double() / weight[0, 0].numel() * (read / given[:, None]).square()
        )
        magnitude = student.weight_of[name].magnitude
        errors = _errors(values.flatten(2), each[:, :, None], magnitude, True)
        tensors.append(_Tensor(weights * errors, grows, shrinks))
        each = found.biases[name].double() / given.square()
        tensors.append(_Tensor(_errors(bias * given, each, BIAS_BITS - 1, True), grows))
    return tensors + [
        _activations(quantiser, groups, scale, component, found, samples)
        for quantiser in dict.fromkeys(student.activation_of.values())
    ]


def _activations(
    quantiser: Quantiser, groups: ChannelGroups, scale: Tensor, component: Tensor,
    found: Importance, samples: dict[str, Tensor],
) -> _Tensor:  # fmt: skip
    members = [name for name in quantiser.members if name in samples]
    values, importance = [], []
    for name in members:
        by, sample = scale[groups.of[name]][:, None], samples[name].double()
        each = found.activations[name].double()[:, None] / (by.square() * sample.shape[1])
        values.append((sample * by).flatten())
        importance.append(each.expand_as(sample).flatten())
    errors = _errors(
        torch.cat(values), torch.cat(importance), quantiser.magnitude, quantiser.signed
    )
    return _Tensor(errors, int(component[groups.of[members[0]][0]]))


def _errors(values: Tensor, importance: Tensor, magnitude: int, signed: bool) -> Tensor:
    """Return the weighted squared error at each factor, [_FACTORS], with the best threshold."""
    found = torch.zeros(_FACTORS, dtype=torch.float64)
    largest = float(values.abs().max())
    if largest == 0:
        return found
    for index in range(_FACTORS):
        factor = 2.0 ** (index / _FACTORS)
        top = 2.0 ** float(torch.tensor(largest * factor).log2().ceil())
        tried = []
        for clipped in range(_CLIPPED):
            step = top / 2.0**clipped / 2**magnitude / factor
            limits = (-(2**magnitude) if signed else 0, 2**magnitude - 1)
            rounded = (values / step).round().clamp(*limits) * step
            tried.append(((rounded - values).square() * importance).sum())
        found[index] = torch.stack(tried).min()
    return found
