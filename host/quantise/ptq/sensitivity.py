"""Sensitivity analysis: which quantisers cost accuracy, and what to do about it.

Every quantiser is tried twice: alone, with all others in float, and disabled, with all others
rounding. Results are compared with the float network, so no labels are needed. Weights that have
already been rounded (rounding = "adaround") count as float weights, so their rounding is not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.host.quantise.ptq.importance import largest_magnitudes
from tutelage.host.quantise.ptq.passes import FloatPass, PartlyRounded, evaluating, outputs
from tutelage.host.quantise.quantisers import Quantiser
from tutelage.host.quantise.student import Student

_MOST_DB = 200.0
"""Largest signal-to-noise ratio, for equal outputs, dB."""

_ALIKE = 99.0
"""Agreement of a quantiser alone from which it gets no advice, % of the images."""

_UNEQUAL = 8.0
"""Ratio of the largest to the median channel from which equalisation is advised."""

_CLIPPED = 1.25
"""Ratio of the largest value to the limit above which a larger range is advised."""


@dataclass(frozen=True)
class Agreement:
    """The agreement of outputs with those in float.

    Attributes
    ----------
    sqnr : signal-to-quantisation-noise ratio of the outputs, dB; 200 if they are equal
    same_class : images with the same largest output, %
    divergence : mean of KL(float || rounded) of the softmax of the outputs, nats
    """

    sqnr: float
    same_class: float
    divergence: float


@dataclass(frozen=True)
class Sensitivity:
    """The effect of one quantiser.

    Attributes
    ----------
    name : the (first) layer whose result, weights or bias it rounds
    kind : "activations", "weights" or "bias"
    bits, fix_point : of the quantiser
    alone : agreement if only this quantiser rounds
    without : agreement if all quantisers but this one round
    advice : what to try; "" if it costs little
    """

    name: str
    kind: str
    bits: int
    fix_point: int
    alone: Agreement
    without: Agreement
    advice: str


@dataclass(frozen=True)
class SensitivityReport:
    """The effects of all quantisers of a student.

    Attributes
    ----------
    whole : agreement if all quantisers round
    rows : one for each quantiser, the most harmful first
    images : number of images tried
    """

    whole: Agreement
    rows: tuple[Sensitivity, ...]
    images: int


def agreement(found: Tensor, wanted: Tensor) -> Agreement:
    """Compare outputs [N, classes], or maps [N, C, H, W] at each position, with those in float."""
    if wanted.dim() == 4:
        found, wanted = (y.permute(0, 2, 3, 1).flatten(0, 2) for y in (found, wanted))
    found, wanted = found.double(), wanted.double()
    noise = (found - wanted).square().sum()
    sqnr = 10 * torch.log10(wanted.square().sum() / noise).clamp(max=_MOST_DB / 10)
    same = (found.argmax(1) == wanted.argmax(1)).double().mean()
    divergence = F.kl_div(
        found.log_softmax(1), wanted.log_softmax(1), reduction="batchmean", log_target=True
    )
    return Agreement(float(sqnr), 100 * float(same), float(divergence))


@torch.no_grad()
def sensitivity(student: Student, images: Tensor, batch: int = 32) -> SensitivityReport:
    """Return the effect of each quantiser of a student, compared with the student in float.

    Parameters
    ----------
    student : calibrated or trained; it is not changed
    images : normalised [N, C, H, W]; each passes through the network twice for each quantiser
    batch : number of images that pass through the network at a time
    """
    with evaluating(student):
        return _Trials(student, images, batch).report()


class _Trials:
    """Passes with only some of the quantisers."""

    def __init__(self, student: Student, images: Tensor, batch: int) -> None:
        self.student, self.images, self.batch = student, images, batch
        (self.wanted,) = outputs(FloatPass(student), [images], batch)
        self.all = {quantiser.index for quantiser in student.quantisers}
        self.biases = {name for name, _ in student.convs()}
        self.peaks = largest_magnitudes(student, [images], batch)
        self.folded = {name: conv.folded() for name, conv in student.convs()}

    def report(self) -> SensitivityReport:
        rows = [self._row(quantiser) for quantiser in self.student.quantisers]
        rows += [self._bias(name) for name in self.biases]
        rows.sort(key=lambda row: (row.alone.sqnr, row.kind, row.name))
        whole = self._try(self.all, self.biases)
        return SensitivityReport(whole, tuple(rows), len(self.images))

    def _try(self, thresholds: set[int], biases: set[str]) -> Agreement:
        one = PartlyRounded(self.student, thresholds, biases)
        (found,) = outputs(one, [self.images], self.batch)
        return agreement(found, self.wanted)

    def _row(self, quantiser: Quantiser) -> Sensitivity:
        alone = self._try({quantiser.index}, set())
        without = self._try(self.all - {quantiser.index}, self.biases)
        points, name = self.student.fix_points(), quantiser.members[0]
        if self.student.weight_of.get(name) == quantiser:
            kind, point = "weights", points.weights[name]
            peaks = self.folded[name][0].abs().amax((1, 2, 3))
        else:
            kind, point = "activations", points.activations[name]
            members = [self.peaks[m] for m in quantiser.members if m in self.peaks]
            peaks = torch.cat(members)
        advice = _advice(kind, alone, quantiser.bits, peaks, quantiser.highest * 2.0**-point)
        return Sensitivity(name, kind, quantiser.bits, point, alone, without, advice)

    def _bias(self, name: str) -> Sensitivity:
        alone = self._try(set(), {name})
        without = self._try(self.all, self.biases - {name})
        peaks = self.folded[name][1].abs()
        point = self.student.fix_points().bias(self.student.layer(name), float(peaks.max()))
        return Sensitivity(
            name, "bias", 8, point, alone, without, _advice("bias", alone, 8, peaks, 0.0)
        )


def _advice(kind: str, alone: Agreement, bits: int, peaks: Tensor, limit: float) -> str:
    """Return what to try for one quantiser; "" if it costs little.

    Parameters
    ----------
    peaks : largest magnitude of each channel
    limit : largest value that is not clipped; 0 if nothing is clipped
    """
    if alone.same_class >= _ALIKE:
        return ""
    found: list[str] = []
    used = peaks[peaks > 0]
    unequal = float(used.max() / used.median()) if len(used) else 1.0
    if bits < 8:
        found.append(f"use 8 bits here ({bits} now)")
    if unequal >= _UNEQUAL:
        found.append(f"equalise = true, as the largest channel is {unequal:.0f} times the median")
    if limit and float(peaks.max()) > _CLIPPED * limit:
        found.append(
            'calibration = "minmax" or more calibration images, as values up to '
            f"{float(peaks.max()):.3g} are clipped at {limit:.3g}"
        )
    if kind == "weights":
        found.append('rounding = "adaround"')
    if kind == "bias":
        found.append("bias_correction = true")
    if not found:
        found.append("train the student (method qat or qkd)")
    return "; ".join(found)


def table(report: SensitivityReport, most: int = 0) -> Sequence[tuple[str, ...]]:
    """Return the header and the rows as texts; at most `most` rows, or all with 0."""
    head = ("layer", "what", "bits", "alone dB", "alone %", "without dB", "without %", "advice")
    rows = report.rows[:most] if most else report.rows
    return [head] + [
        (
            row.name, row.kind, str(row.bits), f"{row.alone.sqnr:.1f}",
            f"{row.alone.same_class:.1f}", f"{row.without.sqnr:.1f}",
            f"{row.without.same_class:.1f}", row.advice,
        )
        for row in rows
    ]  # fmt: skip
