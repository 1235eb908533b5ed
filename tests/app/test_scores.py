"""Conversion of a model's outputs to labels with a confidence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tutelage.app.pipeline.scores import IntegerScores, activate, best_labels
from tutelage.core.fixed_point import dequantise


@example(scores=[0, -13, -12], activation="softmax", count=2, fix_point=-6)
@given(
    scores=st.lists(st.integers(-128, 127), min_size=1, max_size=40),
    activation=st.sampled_from(["softmax", "sigmoid", "none"]),
    count=st.integers(1, 5),
    fix_point=st.integers(-6, 12),
)
def test_integers_give_the_labels_of_their_values(
    scores: list[int], activation: str, count: int, fix_point: int
) -> None:
    labels = [str(i) for i in range(len(scores))]
    count = min(count, len(labels))
    integers = np.array(scores, np.int8)
    found = IntegerScores(labels, activation, count, fix_point)(integers)
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[:count]
    confidences = activate(dequantise(integers, fix_point), activation)
    assert [label for label, _ in found] == [labels[i] for i in order]
    assert [value for _, value in found] == pytest.approx(confidences[order], rel=1e-5, abs=1e-7)
    first = best_labels(labels, activation, 1, dequantise(integers, fix_point))[0]
    assert found[0][1] == pytest.approx(first[1], rel=1e-5, abs=1e-7)


def test_powers_that_float64_does_not_have() -> None:
    """The table's largest value is 2032; exp(-1600 - 2032) underflows to 0."""
    best = IntegerScores(["a", "b", "c"], "softmax", 2, -4)
    (first, confidence), second = best(np.array([-100, -128, -100], np.int8))
    assert first == "a" and confidence == pytest.approx(0.5) and second[0] == "c"


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_labels_are_in_the_order_of_scores_whose_confidences_are_equal(activation: str) -> None:
    scores = np.array([900, 0, 1000, 950], np.float32)
    best = best_labels(list("abcd"), activation, 3, scores)
    assert [label for label, _ in best] == ["c", "d", "a"]


def test_a_confidence_is_a_float_of_python() -> None:
    """JSON accepts no numpy numbers."""
    for count in (1, 2):
        for _, value in IntegerScores(["a", "b"], "softmax", count, 2)(np.zeros(2, np.int8)):
            assert type(value) is float and math.isclose(value, 0.5)


def test_activations() -> None:
    scores = np.array([1000.0, 999.0, -1000.0], np.float32)
    np.testing.assert_allclose(activate(scores, "softmax"), [0.731059, 0.268941, 0], atol=1e-6)
    np.testing.assert_allclose(
        activate(scores / 1000, "sigmoid"), [0.731059, 0.730862, 0.268941], atol=1e-6
    )
    assert activate(scores, "none") is scores
