"""The threshold of highest F1."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from momkd.errors import SplitError
from momkd.evaluation.threshold import MaxF1Threshold


def f1_of(y: np.ndarray, called: np.ndarray) -> float:
    return float(2 * (y * called).sum() / (y.sum() + called.sum()))


def test_the_threshold_lies_in_the_middle_between_neighbours() -> None:
    fitted = MaxF1Threshold().fit([0, 0, 1, 1], [0.1, 0.3, 0.7, 0.9])
    assert fitted.threshold_ == pytest.approx(0.5)
    assert fitted.f1_ == 1.0
    assert fitted.predict([0.49, 0.5, 0.51]).tolist() == [0, 1, 1]


def test_of_equal_cuts_the_most_sensitive_is_taken() -> None:
    # F1 at .9: 2·1/(1+3) = 1/2; at .5 (all but one): 2·2/(5+3) = 1/2; at .1: 2·3/(9+3) = 1/2.
    y = [1, 1, 0, 0, 0, 1, 0, 0, 0]
    prob = [0.9, 0.5, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1]
    fitted = MaxF1Threshold().fit(y, prob)
    assert fitted.f1_ == 0.5
    assert fitted.threshold_ == pytest.approx(0.05)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_other_threshold_is_better(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 30))
    y = np.array(data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    y[:2] = [0, 1]
    prob = np.array(data.draw(st.lists(st.floats(0, 1, width=32), min_size=n, max_size=n)))
    fitted = MaxF1Threshold().fit(y, prob)
    best = max(f1_of(y, prob >= value) for value in prob)
    assert fitted.f1_ == pytest.approx(best)
    assert f1_of(y, fitted.predict(prob)) == pytest.approx(best)
    order = np.random.default_rng(0).permutation(n)
    assert MaxF1Threshold().fit(y[order], prob[order]).threshold_ == fitted.threshold_


def test_neighbouring_floats_are_told_apart() -> None:
    lower = 0.5
    upper = float(np.nextafter(lower, 1.0))
    fitted = MaxF1Threshold().fit([0, 1], [lower, upper])
    assert fitted.predict([lower, upper]).tolist() == [0, 1]


def test_one_class_has_no_threshold() -> None:
    with pytest.raises(SplitError, match=r"all 3 validation patients are of class 0.*cv\.validation"):
        MaxF1Threshold().fit([0, 0, 0], [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="NaN"):
        MaxF1Threshold().fit([0, 1], [0.1, np.nan])
