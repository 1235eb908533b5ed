"""From a model's outputs to labels with a confidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def best_labels(
    scores: np.ndarray, labels: Sequence[str], activation: str, count: int
) -> list[tuple[str, float]]:
    """Return the best labels with their confidences, the best first.

    Parameters
    ----------
    scores : a model's outputs, one per label
    activation : "softmax", "sigmoid" or "none", see `activate`
    count : how many, at most as many as there are labels
    """
    if scores.ndim != 1:
        scores = scores.reshape(-1)
    if count == 1 and activation == "softmax":
        best = int(scores.argmax())
        return [(labels[best], 1.0 / float(np.exp(scores - scores[best]).sum()))]
    confidences = activate(scores, activation)
    order = np.argsort(-confidences, kind="stable")[:count]
    return [(labels[i], float(confidences[i])) for i in order]


def activate(scores: np.ndarray, activation: str) -> np.ndarray:
    """Return confidences 0..1 from a model's outputs: "softmax", "sigmoid" or "none"."""
    if activation == "softmax":
        powers = np.exp(scores - scores.max())  # the largest is taken off: exp cannot overflow
        return np.asarray(powers / powers.sum())
    if activation == "sigmoid":
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * scores)))
    return scores
