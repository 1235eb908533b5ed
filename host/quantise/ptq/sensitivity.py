"""Which layers cost accuracy when they are rounded, and what helps.

Every quantiser is tried twice: alone, all others being float, and off, all others rounding. The
network in float is the measure, so that no labels are needed. Weights that were rounded for good
(rounding = "adaround") are their own float: their rounding is not seen here.
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

_ALIKE = 99.0
"""Percent of classes above which a quantiser needs no advice, when only it rounds."""

_UNEQUAL = 8.0
"""Largest channel over the median one, from which on equalisation is worth it."""

_CLIPPED = 1.25
"""Largest value over the threshold, from which on the range is called short."""


@dataclass(frozen=True)
class Agreement:
    """Outputs compared with those in float.

    Attributes
    ----------
    sqnr : signal to quantisation noise of the outputs, in dB; 200 where they are equal
    same_class : images with the same largest output, in percent
    divergence : mean of KL(float || rounded) of the outputs' softmax, in nats
    """

    sqnr: float
    same_class: float
    divergence: float


@dataclass(frozen=True)
class Sensitivity:
    """One quantiser.

    Attributes
    ----------
    name : the layer whose result, weights or bias it rounds; of several layers the first
    kind : "activations", "weights" or "bias"
    bits, fix_point : of it
    alone : only it rounds
    without : all but it round
    advice : what to try; empty where it costs little
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
    """All quantisers, the most harmful first.

    Attributes
    ----------
    whole : everything rounds
    rows : by quantiser
    images : that were tried
    """

    whole: Agreement
    rows: tuple[Sensitivity, ...]
    images: int


def agreement(found: Tensor, wanted: Tensor) -> Agreement:
    """Compare outputs [N, classes] with those in float; of maps [N, C, H, W] each place counts."""
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
    """Return what each quantiser of a student costs, compared with the student in float.

    Parameters
    ----------
    student : calibrated or trained; stays as it is
    images : [N, C, H, W], normalised; each passes through the network twice for each quantiser
    batch : images that pass through the network together
    """
    with evaluating(student):
        return _Trials(student, images, batch).report()


class _Trials:
    """Passes with some quantisers only."""

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
    """What to try for one quantiser.

    Parameters
    ----------
    peaks : largest magnitude of each channel
    limit : the largest value that is not clipped; 0 where nothing is
    """
    if alone.same_class >= _ALIKE:
        return ""
    found: list[str] = []
    used = peaks[peaks > 0]
    unequal = float(used.max() / used.median()) if len(used) else 1.0
    if bits < 8:
        found.append(f"keep 8 bits here ({bits} now)")
    if unequal >= _UNEQUAL:
        found.append(f"equalise = true: the largest channel is {unequal:.0f} times the median one")
    if limit and float(peaks.max()) > _CLIPPED * limit:
        found.append(
            f"values reach {float(peaks.max()):.3g} and are clipped at {limit:.3g}: "
            'calibration = "minmax", or more calibration images'
        )
    if kind == "weights":
        found.append('rounding = "adaround"')
    if kind == "bias":
        found.append("bias_correction = true")
    if not found:
        found.append("train it (method qat or qkd)")
    return "; ".join(found)


def table(report: SensitivityReport, most: int = 0) -> Sequence[tuple[str, ...]]:
    """Return the rows as texts, the header first; `most` of them, 0 all."""
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
