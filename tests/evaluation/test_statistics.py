"""Intervals and tests: by hand, against slow definitions, and at their edges."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from momkd.evaluation.metrics import weighted_metrics
from momkd.evaluation.statistics import (
    bootstrap_interval,
    corrected_resampled_t,
    delong,
    delong_interval,
    draw_patients,
    holm,
    paired_delong,
    percentile_interval,
)


def slow_components(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The definition: all pairs, ties counting half."""
    wins = np.array(
        [[1.0 if p > n else 0.5 if p == n else 0.0 for n in score[y == 0]] for p in score[y == 1]], dtype=np.float64
    )
    return wins.mean(axis=1), wins.mean(axis=0)


def slow_covariance(y: np.ndarray, scores: list[np.ndarray]) -> np.ndarray:
    parts = [slow_components(y, score) for score in scores]
    n1, n0 = int((y == 1).sum()), int((y == 0).sum())
    s10 = np.atleast_2d(np.cov(np.stack([v10 for v10, _ in parts])))
    s01 = np.atleast_2d(np.cov(np.stack([v01 for _, v01 in parts])))
    return s10 / n1 + s01 / n0


@st.composite
def two_scores(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = draw(st.integers(4, 25))
    y = np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    y[:4] = [0, 1, 0, 1]
    values = st.integers(0, draw(st.sampled_from([2, 6, 10**6])))
    a, b = (np.array(draw(st.lists(values, min_size=n, max_size=n)), dtype=np.float64) for _ in range(2))
    return y, a, b


# --- DeLong ----------------------------------------------------------------------------------------------------------


def test_delong_by_hand() -> None:
    # Positives 3 and 1 against negatives 2 and 0: components 1 and 1/2, and 1/2 and 1; AUC 3/4.
    found = delong([1, 1, 0, 0], [3, 1, 2, 0])
    assert found.auc == 0.75
    # Sample variance of (1, 1/2) is 1/8; twice 1/8 divided by 2.
    assert found.variance == pytest.approx(0.125)


def test_delong_interval_by_hand() -> None:
    found = delong_interval([1, 1, 0, 0], [3, 1, 2, 0])
    half = 1.959963984540054 * np.sqrt(0.125) / (0.75 * 0.25)
    low, high = (1 / (1 + np.exp(-(np.log(3) + sign * half))) for sign in (-1, 1))
    assert (found.value, found.low, found.high) == (0.75, pytest.approx(low), pytest.approx(high))
    assert found.method == "DeLong 95 % (logit scale)"


@settings(max_examples=60, deadline=None)
@given(two_scores())
def test_delong_is_its_definition(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    y, a, b = data
    covariance = slow_covariance(y, [a, b])
    for score, variance in ((a, covariance[0, 0]), (b, covariance[1, 1])):
        found = delong(y, score)
        assert found.auc == pytest.approx(slow_components(y, score)[0].mean())
        assert found.variance == pytest.approx(variance, abs=1e-12)
    both = delong(y, np.stack([a, b]))
    assert both.auc == pytest.approx((delong(y, a).auc + delong(y, b).auc) / 2)
    assert both.variance == pytest.approx(covariance.sum() / 4, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(two_scores())
def test_paired_delong_is_its_definition(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    y, a, b = data
    covariance = slow_covariance(y, [a, b])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    found = paired_delong(y, a, b)
    assume(variance > 1e-9)
    z = found.difference / np.sqrt(variance)
    assert found.z == pytest.approx(z)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(z)))
    assert found.low == pytest.approx(found.difference - stats.norm.ppf(0.975) * np.sqrt(variance))
    swapped = paired_delong(y, b, a)
    assert (swapped.difference, swapped.p_value) == (pytest.approx(-found.difference), pytest.approx(found.p_value))


@settings(max_examples=30, deadline=None)
@given(two_scores())
def test_only_the_order_of_scores_counts(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    y, a, b = data
    first = delong_interval(y, a)
    assert delong_interval(y, np.exp(a / 1e6)) == first
    assert paired_delong(y, a, a * 2).p_value == 1.0
    assert paired_delong(y, a, np.exp(b / 1e6)) == paired_delong(y, a, b)
    if first.low is not None and first.high is not None and first.value is not None:
        assert 0 < first.low < first.value < first.high < 1


def test_no_width_is_claimed_where_the_variance_is_zero() -> None:
    perfect = delong_interval([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])
    assert (perfect.value, perfect.low, perfect.high) == (1.0, None, None)
    assert "variance of DeLong 95 % (logit scale) is zero" in perfect.method
    tied = delong_interval([0, 0, 1, 1, 1], [0.5] * 5)
    assert (tied.value, tied.low) == (0.5, None)
    single = delong_interval([0, 0, 1], [0.1, 0.9, 0.8])
    assert (single.value, single.low) == (0.5, None)
    assert "needs two patients of each class" in single.method


def test_paired_delong_at_its_edges() -> None:
    same = paired_delong([0, 0, 1, 1], [1, 2, 3, 4], [1, 2, 3, 4])
    assert (same.difference, same.z, same.p_value, same.low) == (0.0, 0.0, 1.0, None)
    opposite = paired_delong([0, 0, 1, 1], [1, 2, 3, 4], [4, 3, 2, 1])
    assert (opposite.difference, opposite.p_value) == (1.0, None)
    few = paired_delong([0, 0, 1], [1, 2, 3], [3, 2, 1])
    assert (few.difference, few.p_value) == (1.0, None)


@pytest.mark.parametrize(
    ("y", "scores", "message"),
    [
        ([1, 1], [0.1, 0.2], "both classes"),
        ([0, 2], [0.1, 0.2], "labels 0 and 1"),
        ([0, 1], [0.1, np.nan], "finite scores"),
        ([0, 1], [0.1, 0.2, 0.3], "shape"),
    ],
)
def test_delong_refuses(y: list[int], scores: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        delong(y, scores)
    with pytest.raises(ValueError, match="level"):
        delong_interval([0, 0, 1, 1], [0, 1, 0.5, 2], level=1.5)


def test_delong_of_many_patients_is_quick() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200_000)
    start = time.process_time()
    delong(y, rng.normal(size=len(y)))
    assert time.process_time() - start < 2


def test_delong_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    truth = float(stats.norm.cdf(1 / np.sqrt(2)))
    y = np.repeat([0, 1], [60, 40])
    inside = 0
    for _ in range(400):
        found = delong_interval(y, rng.normal(size=100) + y)
        inside += found.low is not None and found.high is not None and found.low < truth < found.high
    assert 0.92 < inside / 400 < 0.98


# --- Bootstrap -------------------------------------------------------------------------------------------------------


def test_draws_hold_all_patients_and_both_classes() -> None:
    positive = np.arange(12) < 2
    drawn = draw_patients(positive, resamples=500, seed=3)
    assert drawn.counts.shape == (500, 12)
    assert (drawn.counts.sum(axis=1) == 12).all()
    assert drawn.counts[:, positive].sum(axis=1).min() > 0
    assert drawn.redrawn > 0
    np.testing.assert_array_equal(drawn.counts, draw_patients(positive, resamples=500, seed=3).counts)
    assert (drawn.counts != draw_patients(positive, resamples=500, seed=4).counts).any()
    with pytest.raises(ValueError, match="both classes"):
        draw_patients([True, True])
    with pytest.raises(ValueError, match="expected at least 1"):
        draw_patients([True, False], resamples=0)


def auc_of(y: np.ndarray, prob: np.ndarray) -> object:
    return lambda weights: weighted_metrics(y, prob, prob >= 0.5, weights)["auc"]


def test_bootstrap_agrees_with_delong_on_independent_patients() -> None:
    rng = np.random.default_rng(0)
    y = (np.arange(300) % 3 == 0).astype(int)
    prob = 1 / (1 + np.exp(-(y + rng.normal(size=300))))
    names = [f"P{i:03d}" for i in range(300)]
    found = bootstrap_interval(auc_of(y, prob), y, names, resamples=1000)
    exact = delong_interval(y, prob)
    assert found.low is not None
    assert exact.low is not None
    assert found.high == pytest.approx(exact.high, abs=0.012)
    assert found.low == pytest.approx(exact.low, abs=0.012)
    assert found.method == "bootstrap 95 % (percentile, 1000 resamples of patients, seed 0)"
    order = rng.permutation(300)
    again = bootstrap_interval(auc_of(y[order], prob[order]), y[order], [names[i] for i in order], resamples=1000)
    assert again == found


def test_rows_of_one_patient_stay_together() -> None:
    """Copies of every row add nothing to what is known, so the interval must not shrink."""
    rng = np.random.default_rng(1)
    y = (np.arange(80) % 2).astype(int)
    prob = np.clip(0.5 + 0.2 * (y - 0.5) + 0.2 * rng.normal(size=80), 0, 1)
    names = [f"P{i:02d}" for i in range(80)]
    once = bootstrap_interval(auc_of(y, prob), y, names, resamples=300)
    four = bootstrap_interval(auc_of(np.tile(y, 4), np.tile(prob, 4)), np.tile(y, 4), names * 4, resamples=300)
    assert (four.low, four.high) == (pytest.approx(once.low), pytest.approx(once.high))
    with pytest.raises(ValueError, match="two labels"):
        bootstrap_interval(auc_of(y, prob), y, ["same"] * 80)


def test_any_metric_can_be_resampled() -> None:
    y = np.array([0, 1] * 20)
    values = np.linspace(0, 1, 40)
    found = bootstrap_interval(lambda w: (w * values).sum(axis=1) / w.sum(axis=1), y, [str(i) for i in range(40)])
    error = values.std() / np.sqrt(40)
    assert found.value == pytest.approx(0.5)
    assert found.low == pytest.approx(0.5 - 1.96 * error, abs=0.01)
    assert found.high == pytest.approx(0.5 + 1.96 * error, abs=0.01)


def test_what_the_interval_says_of_itself() -> None:
    found = percentile_interval(0.5, [0.0, 1.0, np.nan], redrawn=7, seed=2, level=0.9)
    assert (found.low, found.high) == (pytest.approx(0.05), pytest.approx(0.95))
    assert found.method == (
        "bootstrap 90 % (percentile, 3 resamples of patients, seed 2; 7 draws of one class redrawn; "
        "undefined in 1, left out)"
    )
    assert percentile_interval(None, [np.nan], redrawn=0, seed=0).method == "none: the metric is undefined"


# --- Tests over folds and methods ------------------------------------------------------------------------------------


def test_corrected_t_by_hand() -> None:
    # Mean 2, s² 1, n 3; standard error sqrt(1·(1/3 + 1/4)).
    found = corrected_resampled_t([1.0, 2.0, 3.0], 0.25)
    error = np.sqrt(7 / 12)
    assert (found.mean, found.sd, found.df) == (2.0, 1.0, 2)
    assert found.t == pytest.approx(2 / error)
    assert found.p_value == pytest.approx(2 * stats.t.sf(2 / error, 2))
    assert found.low == pytest.approx(2 - stats.t.ppf(0.975, 2) * error)
    assert found.high == pytest.approx(2 + stats.t.ppf(0.975, 2) * error)


def test_corrected_t_becomes_the_plain_t_test_without_overlap() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 20)
    plain = stats.ttest_1samp(values, 0)
    found = corrected_resampled_t(values, 1e-12)
    assert (found.t, found.p_value) == (pytest.approx(plain.statistic), pytest.approx(plain.pvalue))
    corrected = corrected_resampled_t(values, 0.25)
    assert corrected.p_value is not None
    assert corrected.p_value > plain.pvalue


def test_corrected_t_at_its_edges() -> None:
    assert corrected_resampled_t([0.0, 0.0], 0.25).p_value == 1.0
    constant = corrected_resampled_t([0.1, 0.1, 0.1], 0.25)
    assert (constant.mean, constant.t, constant.p_value, constant.low) == (pytest.approx(0.1), None, None, None)
    for values, ratio in (([1.0], 0.25), ([1.0, np.nan], 0.25), ([1.0, 2.0], 0.0)):
        with pytest.raises(ValueError, match="expected"):
            corrected_resampled_t(values, ratio)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ValueError, match="outside"):
        holm([0.1, np.nan])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_holm_rejects_what_the_step_down_procedure_rejects(values: list[float], random: object) -> None:
    adjusted = holm(values)
    alpha = 0.05
    order = sorted(range(len(values)), key=lambda i: values[i])
    open_gate = True
    for rank, index in enumerate(order):
        open_gate = open_gate and values[index] * (len(values) - rank) <= alpha
        assert (adjusted[index] <= alpha) == open_gate
