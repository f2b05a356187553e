"""Decision curves by hand, by their definition, and at their edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from momkd.evaluation.decision import decision_curve


def test_by_hand() -> None:
    # Ten patients, four positive. At 0.2: 4 true, 3 false positives; 0.4 − 0.3 · 1/4. At 0.5: 2 and 1; 0.2 − 0.1 · 1.
    y = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    prob = [0.9, 0.5, 0.3, 0.2, 0.6, 0.4, 0.2, 0.1, 0.1, 0.0]
    found = decision_curve(y, prob, [0.2, 0.5])
    assert found.model.tolist() == pytest.approx([0.325, 0.1])
    assert found.treat_all.tolist() == pytest.approx([0.4 - 0.6 / 4, 0.4 - 0.6])
    assert found.treat_none.tolist() == [0.0, 0.0]
    assert (found.n, found.prevalence) == (10, 0.4)
    # Three of the six negatives are spared at 0.2, and no positive is missed.
    assert found.avoided[0] == pytest.approx(0.3)


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 10)), min_size=1, max_size=30),
    st.lists(st.integers(0, 9), min_size=1, max_size=5),
)
def test_it_is_its_definition(patients: list[tuple[int, int]], cuts: list[int]) -> None:
    y, prob, thresholds = [a for a, _ in patients], [b / 10 for _, b in patients], [c / 10 for c in cuts]
    found = decision_curve(y, prob, thresholds)
    for place, t in enumerate(thresholds):
        true = sum(a == 1 and p >= t for a, p in zip(y, prob, strict=True))
        false = sum(a == 0 and p >= t for a, p in zip(y, prob, strict=True))
        assert found.model[place] == pytest.approx((true - false * t / (1 - t)) / len(y))
    everybody = decision_curve(y, np.ones(len(y)), thresholds)
    np.testing.assert_allclose(everybody.model, everybody.treat_all, atol=1e-12)
    nobody = decision_curve(y, np.zeros(len(y)))
    np.testing.assert_array_equal(nobody.model, nobody.treat_none)


def test_known_shapes() -> None:
    y = np.arange(100) % 4 == 0
    found = decision_curve(y.astype(int), y.astype(float))
    np.testing.assert_allclose(found.model, 0.25)
    assert found.treat_all[found.thresholds.tolist().index(0.25)] == pytest.approx(0.0)
    assert np.isnan(decision_curve([0, 1], [0.1, 0.2], [0.0]).avoided[0])
    # Without negatives nothing can be lost, and without positives nothing can be won.
    np.testing.assert_array_equal(decision_curve([1, 1], [0.5, 0.5], [0.2, 0.6]).model, [1.0, 0.0])
    np.testing.assert_allclose(decision_curve([0, 0], [0.5, 0.5], [0.2, 0.6]).model, [-0.25, 0.0])


@pytest.mark.parametrize("thresholds", [[1.0], [-0.1], [np.nan], [], [[0.1]]])
def test_thresholds_without_meaning_are_refused(thresholds: list[float]) -> None:
    with pytest.raises(ValueError, match="threshold probabilities"):
        decision_curve([0, 1], [0.1, 0.2], thresholds)


def test_unusable_predictions_are_refused() -> None:
    for y, prob in (([0, 2], [0.1, 0.2]), ([0, 1], [0.1, np.nan]), ([], [])):
        with pytest.raises(ValueError, match="found"):
            decision_curve(y, prob)
