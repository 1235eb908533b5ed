"""Conversion of a model's outputs to labels with a confidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tutelage.core.fixed_point import dequantise

_LEAST_SUM = 1e-290  # of exponentials; float64 has full precision down to 2.2e-308


def best_labels(
    labels: Sequence[str], activation: str, count: int, scores: np.ndarray
) -> list[tuple[str, float]]:
    """Return the best labels with their confidences, the best first.

    Parameters
    ----------
    labels : one for each output
    activation : "softmax", "sigmoid" or "none", see `activate`
    count : number of labels to return, at most all of them
    scores : a model's outputs, one per label
    """
    if scores.ndim != 1:
        scores = scores.reshape(-1)
    if count == 1 and activation == "softmax":
        best = int(scores.argmax())
        return [(labels[best], 1.0 / float(np.exp(scores - scores[best]).sum()))]
    confidences = activate(scores, activation)
    # Activations are monotonic, but confidences of different scores may round to the same number.
    order = np.argsort(-scores, kind="stable")[:count]
    return [(labels[i], float(confidences[i])) for i in order]


def activate(scores: np.ndarray, activation: str) -> np.ndarray:
    """Return confidences 0..1 from a model's outputs: "softmax", "sigmoid" or "none"."""
    if activation == "softmax":
        powers = np.exp(scores - scores.max())  # subtract the largest, so exp cannot overflow
        return np.asarray(powers / powers.sum())
    if activation == "sigmoid":
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * scores)))
    return scores


class IntegerScores:
    """Function from int8 outputs to the labels that `best_labels` gives for their float32 values.

    A table has the result for each of the 256 values, so that only the denominator of softmax has
    to be computed.

    Parameters
    ----------
    labels, activation, count : as for `best_labels`
    fix_point : fix point of the outputs
    """

    def __init__(self, labels: Sequence[str], activation: str, count: int, fix_point: int) -> None:
        self._labels, self._activation, self._count = labels, activation, count
        values = dequantise(np.arange(256, dtype=np.uint8).view(np.int8), fix_point)
        self._values = values.astype(np.float64)
        self._table = self._values
        if activation == "softmax":  # subtract the largest, so exp cannot overflow
            self._table = np.exp(self._values - self._values.max())
        elif activation != "none":
            self._table = activate(self._values, activation)
        self._ones = np.ones(len(labels))

    def __call__(self, scores: np.ndarray) -> list[tuple[str, float]]:
        """Return the best labels with their confidences, the best first.

        Parameters
        ----------
        scores : int8, one per label
        """
        if scores.ndim != 1:
            scores = scores.reshape(-1)
        places = scores.view(np.uint8)
        found, total = self._table.take(places), 1.0
        if self._activation == "softmax":
            total = float(found.dot(self._ones))
            if total < _LEAST_SUM:  # all far below the largest value: exponentials underflow
                found, total = activate(self._values.take(places), self._activation), 1.0
        if self._count == 1:
            best = int(scores.argmax())
            return [(self._labels[best], float(found[best]) / total)]
        order = np.argsort(np.invert(scores), kind="stable")[: self._count]
        return [(self._labels[i], float(found[i]) / total) for i in order]
