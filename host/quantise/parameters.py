"""Rounding of the weights and biases of all layers together.

Since these tensors are many and small, they are concatenated to one vector, so that each operation
runs once for all of them. The results equal those of `fake.quantise` for each tensor, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from tutelage.host.quantise.fake import Rounding
from tutelage.host.quantise.fix_points import BIAS_RANGE, FixPoints
from tutelage.host.quantise.layers.convolution import LEAST_SCALE

if TYPE_CHECKING:
    from tutelage.host.quantise.student import Student

Parameters = dict[str, tuple[Tensor, Tensor | None]]
"""Layer name -> weight and bias for its convolution."""


class _Grid(NamedTuple):
    """The rounding of each element of a vector: tensors (E,), see `fake.py`."""

    inverse: Tensor  # 2^fix_point
    step: Tensor
    lowest: Tensor
    highest: Tensor
    low: Tensor  # values between low and high are not clipped
    high: Tensor


@dataclass
class _Parts:
    """The layout of tensors of shape (O, ...) concatenated to one vector (E,).

    Attributes
    ----------
    outputs, sizes : O and the number of elements of each tensor
    device : of the vector
    """

    outputs: list[int]
    sizes: list[int]
    device: torch.device
    _grids: dict[tuple[object, ...], _Grid] = field(default_factory=dict)

    @cached_property
    def by_output(self) -> Tensor:
        """For each element the index of its output among all outputs, int64 (E,)."""
        counts = [size // o for o, size in zip(self.outputs, self.sizes, strict=True)]
        repeats = torch.tensor(counts).repeat_interleave(torch.tensor(self.outputs))
        return torch.arange(len(repeats)).repeat_interleave(repeats).to(self.device)

    def grid(self, roundings: Sequence[Rounding], dtype: torch.dtype) -> _Grid:
        """Return the grid for one rounding per tensor; the last grid is cached."""
        key = dtype, *roundings
        if key not in self._grids:
            self._grids.clear()
            steps = [2.0**-rounding.fix_point for rounding in roundings]
            inside = [rounding.inside() for rounding in roundings]
            columns = [
                [1 / step for step in steps], steps,
                [r.lowest for r in roundings], [r.highest for r in roundings],
                [low for low, _ in inside], [high for _, high in inside],
            ]  # fmt: skip
            table = torch.tensor(columns, dtype=dtype)
            spread = table.repeat_interleave(torch.tensor(self.sizes), 1).to(self.device)
            self._grids[key] = _Grid(*spread)
        return self._grids[key]


class _RoundTogether(torch.autograd.Function):
    """`fake.FakeQuantise` for many tensors (O, ...), multiplied by the scales of their outputs."""

    @staticmethod
    def forward(
        ctx: Any,
        grid: _Grid,
        parts: _Parts,
        places: Tensor | None,
        unfold: bool,
        log2_t: Tensor,
        scale: Tensor | None,
        *values: Tensor,
    ) -> tuple[Tensor, ...]:
        """Scale and round the values; with `unfold`, divide the results by their scales.

        Parameters
        ----------
        places : int64 indices of the values' thresholds in `log2_t`; None: they are not trained
        scale : one for each output of all tensors; None: 1
        """
        given = torch.cat([_flat(value, value) for value in values])
        scales = None if scale is None else scale[parts.by_output]
        x = given if scales is None else given * scales
        y = torch.mul(x, grid.inverse).add_(0.5).floor_()
        y = y.clamp_(grid.lowest, grid.highest).mul_(grid.step)
        ctx.save_for_backward(given, scales, x, y, log2_t, places, *values)
        ctx.grid, ctx.parts, ctx.unfold = grid, parts, unfold
        return _split(y / scales if unfold and scales is not None else y, values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        given, scales, x, y, log2_t, places, *values = ctx.saved_tensors
        grid, sizes = ctx.grid, ctx.parts.sizes
        grad = torch.cat([_flat(g, value) for g, value in zip(grads, values, strict=True)])
        if ctx.unfold:
            grad = grad / scales
        inner = torch.where((x > grid.low) & (x < grid.high), grad, 0.0)
        by_threshold = by_scale = None
        if places is not None and ctx.needs_input_grad[4]:
            terms = torch.mul(grad, y).addcmul_(inner, x, value=-1)
            totals = torch.stack([part.sum() for part in terms.split(sizes)])
            by_threshold = torch.zeros_like(log2_t).index_copy_(0, places, totals * math.log(2))
        if ctx.needs_input_grad[5]:
            pairs = zip((inner * given).split(sizes), ctx.parts.outputs, strict=True)
            by_scale = torch.cat([part.view(outputs, -1).sum(1) for part, outputs in pairs])
        by_value = _split(inner if scales is None else inner * scales, values)
        return None, None, None, None, by_threshold, by_scale, *by_value


def _flat(x: Tensor, like: Tensor) -> Tensor:
    """Return the elements of x as (E,) in the memory order of `like`."""
    return (x.permute(0, 2, 3, 1) if _is_channels_last(like) else x).reshape(-1)


def _split(flat: Tensor, like: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return tensors with the shapes and memory orders of `like`; the inverse of `_flat`."""
    parts = zip(flat.split([value.numel() for value in like]), like, strict=True)
    return tuple(
        part.view(len(value), *value.shape[2:], -1).permute(0, 3, 1, 2)
        if _is_channels_last(value)
        else part.view(value.shape)
        for part, value in parts
    )


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


class AllParameters:
    """The weights and biases of a student's layers, with the norms after them.

    Only their positions in the vectors are stored; their values are read in each pass.
    """

    def __init__(self, student: Student) -> None:
        self._convs = dict(student.convs())
        self._quantisers = [student.weight_of[name] for name in self._convs]
        self._made_for: torch.device | None = None

    def rounded(self, points: FixPoints, log2_t: Tensor, deployed: bool) -> Parameters:
        """Return the rounded parameters of all convolutions.

        Parameters
        ----------
        points : fix points of the weights and activations
        log2_t : the thresholds
        deployed : True: weights and biases are folded with the running statistics of their norms,
            and rounded. False: weights are rounded in folded form and unfolded again, and biases
            are not rounded, for norms with the batch's statistics
        """
        self._make(log2_t.device)
        weights = [conv.weight for conv in self._convs.values()]
        # If norms use the batch's statistics, the scales cancel, and count as constants.
        with torch.set_grad_enabled(deployed and torch.is_grad_enabled()):
            scale = self._scale()
            if not deployed:
                scale = torch.where(scale.abs() < LEAST_SCALE, LEAST_SCALE, scale)
        roundings = [
            Rounding(points.weights[name], quantiser.lowest, quantiser.highest)
            for name, quantiser in zip(self._convs, self._quantisers, strict=True)
        ]
        grid = self._weights.grid(roundings, scale.dtype)
        rounded = _RoundTogether.apply(
            grid, self._weights, self._places, not deployed, log2_t, scale, *weights
        )
        biases = self._biases_of(points, log2_t, scale) if deployed else self._own_biases()
        return dict(zip(self._convs, zip(rounded, biases, strict=True), strict=True))

    def _make(self, device: torch.device) -> None:
        """Compute the layout of the vectors, again if the device has changed."""
        if device == self._made_for:
            return
        self._made_for = device
        weights = [conv.weight for conv in self._convs.values()]
        outputs = [len(weight) for weight in weights]
        self._weights = _Parts(outputs, [weight.numel() for weight in weights], device)
        self._biases = _Parts(outputs, outputs, device)
        self._places = torch.tensor([q.index for q in self._quantisers], device=device)
        eps = [0.0 if conv.norm is None else conv.norm.eps for conv in self._convs.values()]
        by_output = torch.tensor(eps, dtype=torch.float64).repeat_interleave(torch.tensor(outputs))
        self._eps = by_output.to(device)

    def _scale(self) -> Tensor:
        """Return the norms' factors by running statistics, (all outputs,); 1 without a norm."""
        variance = self._of_norms("running_var", 1.0)
        deviation = torch.sqrt(variance + self._eps.to(variance.dtype))
        return self._of_norms("weight", 1.0) / deviation

    def _of_norms(self, name: str, without: float) -> Tensor:
        """Return a parameter or statistic of all norms, (all outputs,); `without` if none."""
        found = []
        for conv in self._convs.values():
            own = None if conv.norm is None else getattr(conv.norm, name)
            found.append(conv.weight.new_full((len(conv.weight),), without) if own is None else own)
        return torch.cat(found)

    def _own_biases(self) -> list[Tensor | None]:
        return [conv.bias for conv in self._convs.values()]

    def _biases_of(self, points: FixPoints, log2_t: Tensor, scale: Tensor) -> Sequence[Tensor]:
        """Return the biases as deployed; 0 for a layer with neither norm nor bias."""
        own = torch.cat(
            [
                conv.weight.new_zeros(len(conv.weight)) if bias is None else bias
                for conv, bias in zip(self._convs.values(), self._own_biases(), strict=True)
            ]
        )
        folded = (own - self._of_norms("running_mean", 0.0)) * scale + self._of_norms("bias", 0.0)
        with torch.no_grad():
            # One transfer from the device for all layers, not one for each.
            norms = torch._foreach_norm(folded.split(self._biases.sizes), math.inf)
            peaks = torch.stack(norms).tolist()
        roundings = [
            Rounding(points.bias(conv, peak), *BIAS_RANGE)
            for conv, peak in zip(self._convs.values(), peaks, strict=True)
        ]
        grid = self._biases.grid(roundings, scale.dtype)
        (rounded,) = _RoundTogether.apply(grid, self._biases, None, False, log2_t, None, folded)
        biases: Sequence[Tensor] = rounded.split(self._biases.sizes)
        return biases
