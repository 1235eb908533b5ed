"""Correction of biases for the mean error of their layers.

Rounding of weights and inputs shifts the mean of each channel of a layer's result. The mean
difference of the float result and the rounded one, over images and positions, is added to the bias,
layer by layer, with the layers before it already corrected (Nagel et al. 2019, arXiv:1906.04721,
section 4.2, but with images instead of assumptions about distributions).
"""

from __future__ import annotations

import torch

from tutelage.host.quantise.ptq.lockstep import Step
from tutelage.host.quantise.student import Student


@torch.no_grad()
def correct_bias(student: Student, step: Step) -> None:
    """Correct the bias of one layer, in place; without a bias do nothing."""
    conv = step.conv
    bias = conv.bias if conv.norm is None else conv.norm.bias
    if bias is None:
        return
    weight = student.weight_of[conv.name].quantise(
        conv.folded()[0], student.fix_points().weights[conv.name]
    )
    now = conv.folded()[1]
    lost = now.new_zeros(len(now), dtype=torch.float64)
    for x, wanted in step.parts():
        lost += (wanted - conv(x, weight, now)).flatten(2).sum((0, 2), dtype=torch.float64)
    bias.add_((lost / step.places).to(bias.dtype))
