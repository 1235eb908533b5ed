"""Tallies of results: the label of each second, and the confusion of true and found labels.

Memory is bounded by the number of labels and by `_MOST_PAIRS`, however long the run takes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tutelage.core.text import shown

MOST_CLASSES = 20
"""Rows and columns of the confusion matrix that the page shows."""

_MOST_PAIRS = 20_000  # pairs of a true and a found label: about 4 MB
_LONGEST_LABEL = 100  # characters: recordings keep the label of each row


Answer = tuple[str | None, tuple[str, float]]
"""A result's true label, None if unknown, and its best label with the confidence."""


def label_of(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return `label`, the most frequent best label, and `confidence`, the mean of its results.

    Both are None if there are no answers.
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
    """Counts of true and found labels. Without a lock; its owner has one.

    Attributes
    ----------
    labelled : number of results whose true label is known
    correct : number of these whose best label is the true one
    """

    def __init__(self) -> None:
        self.labelled = self.correct = 0
        self._pairs: Counter[tuple[str, str]] = Counter()

    def add(self, answers: Iterable[Answer]) -> None:
        """Count many results in one call, which is faster than one by one."""
        known = [(true, found[0]) for true, found in answers if true is not None]
        self.labelled += len(known)
        for pair, count in Counter(known).items():
            if pair[0] == pair[1]:
                self.correct += count
            if pair in self._pairs or len(self._pairs) < _MOST_PAIRS:
                self._pairs[pair] += count

    def copy(self) -> Confusion:
        """Return a copy of the counts, so that a report does not delay new results."""
        other = Confusion()
        other.labelled, other.correct = self.labelled, self.correct
        other._pairs = self._pairs.copy()
        return other

    def report(self) -> dict[str, Any] | None:
        """Return the confusion matrix for the page, None if no true label is known.

        Returns
        -------
        labelled, correct : total numbers of results, as the attributes
        classes : number of labels seen, as true or found ones
        labels : labels shown, sorted; if there are more than `MOST_CLASSES`, the most confused ones
        counts : numbers of results, one row per true label of `labels`, one column per found label
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
    """Return a sort key: class numbers by their value, names without regard to case."""
    return (len(label) if label.isdecimal() else 0), label.casefold(), label
