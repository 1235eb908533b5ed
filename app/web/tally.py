"""What the results said: the label of each second, and right and wrong where the truth is known.

Memory is bounded by the number of labels and by `_MOST_PAIRS`, however long the run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tutelage.core.text import shown

MOST_CLASSES = 20
"""Rows and columns of the confusion matrix that the page shows."""

_MOST_PAIRS = 20_000  # of a true and a found label: about 4 MB
_LONGEST_LABEL = 100  # characters: a row keeps its label for as long as a recording lasts


Answer = tuple[str | None, tuple[str, float]]
"""A result's true label, None where that is not known, and its best label with the confidence."""


def label_of(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return label, the most frequent one, and confidence, the mean of its results.

    Both are None where there are no answers.
    """
    if not answers:
        return {"label": None, "confidence": None}
    best = [found for _, found in answers]
    [(label, count)] = Counter([found[0] for found in best]).most_common(1)
    mean = float(sum(confidence for each, confidence in best if each == label)) / count
    return {
        "label": shown(label, _LONGEST_LABEL),
        "confidence": round(mean, 4) if math.isfinite(mean) else None,
    }


class Confusion:
    """Counts true and found labels. Not locked: its owner does that.

    Attributes
    ----------
    labelled : results whose true label is known
    correct : those whose best label is the true one
    """

    def __init__(self) -> None:
        self.labelled = self.correct = 0
        self._pairs: Counter[tuple[str, str]] = Counter()

    def add(self, answers: Iterable[Answer]) -> None:
        """Count results, many at once, which takes less time than one by one."""
        known = [(true, found[0]) for true, found in answers if true is not None]
        self.labelled += len(known)
        for pair, count in Counter(known).items():
            if pair[0] == pair[1]:
                self.correct += count
            if pair in self._pairs or len(self._pairs) < _MOST_PAIRS:
                self._pairs[pair] += count

    def copy(self) -> Confusion:
        """Return the counts as they are now, to be reported without holding up the results."""
        other = Confusion()
        other.labelled, other.correct = self.labelled, self.correct
        other._pairs = self._pairs.copy()
        return other

    def report(self) -> dict[str, Any] | None:
        """Return the confusion matrix for the page, None where no true label is known.

        Returns
        -------
        labelled, correct : results in all
        classes : labels seen, as true or found ones
        labels : those shown, sorted; with more than `MOST_CLASSES`, the ones of most wrong results
        counts : results, a row per true label of `labels` and a column per found one
        """
        if not self.labelled:
            return None
        classes = {label for pair in self._pairs for label in pair}
        labels = sorted(self._most_confused(classes), key=_natural)
        counts = [[self._pairs[true, found] for found in labels] for true in labels]
        return {
            "labelled": self.labelled,
            "correct": self.correct,
            "classes": len(classes),
            "labels": [shown(label, _LONGEST_LABEL) for label in labels],
            "counts": counts,
        }

    def _most_confused(self, classes: set[str]) -> Iterable[str]:
        if len(classes) <= MOST_CLASSES:
            return classes
        wrong: Counter[str] = Counter(dict.fromkeys(classes, 0))
        for (true, found), count in self._pairs.items():
            if true != found:
                wrong[true] += count
                wrong[found] += count
        return sorted(classes, key=lambda label: (-wrong[label], _natural(label)))[:MOST_CLASSES]


def _natural(label: str) -> tuple[int, str, str]:
    """Return what sorts class numbers by their size, and names without regard to case."""
    return (len(label) if label.isdecimal() else 0), label.casefold(), label
