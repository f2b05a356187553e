"""Metrics of classes, an order, values and risks against oracles, by hand, and as resamples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as oracle
from sksurv.compare import compare_survival
from sksurv.metrics import concordance_index_censored, concordance_index_ipcw
from sksurv.nonparametric import kaplan_meier_estimator
from sksurv.util import Surv

from momkd.evaluation.continuous import continuous_metrics, weighted_continuous
from momkd.evaluation.multiclass import multiclass_metrics, weighted_multiclass
from momkd.evaluation.ordinal import ordinal_metrics, weighted_ordinal
from momkd.evaluation.survival import kaplan_meier, logrank, survival_metrics, weighted_survival

seeds = st.integers(0, 10_000)


def classes(seed: int, n: int = 80, of: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(of), rng.integers(0, of, n - of)])
    prob = rng.dirichlet(np.ones(of), n) + 0.5 * np.eye(of)[y]
    # Fiftieths, so that probabilities tie.
    return y, rng.multinomial(50, prob / prob.sum(axis=1, keepdims=True)) / 50


def survival(seed: int, n: int = 90, ties: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    death, lost = rng.exponential(size=n), 1.5 * rng.exponential(size=n)
    risk = -death + rng.normal(size=n)
    time = np.minimum(death, lost) + 0.01
    if ties:
        time, risk = np.ceil(4 * time), risk.round()
    return time, (death < lost).astype(int), risk


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seeds)
def test_multiclass_agrees_with_scikit_learn(seed: int) -> None:
    y, prob = classes(seed)
    found = multiclass_metrics(y, prob, "abcd")
    called = prob.argmax(axis=1)
    truth = np.eye(4)[y]
    assert found["macro_auc"] == pytest.approx(oracle.roc_auc_score(y, prob, multi_class="ovr", average="macro"))
    assert found["auc_c"] == pytest.approx(oracle.roc_auc_score(y == 2, prob[:, 2]))
    assert found["accuracy"] == pytest.approx(oracle.accuracy_score(y, called))
    assert found["balanced_accuracy"] == pytest.approx(oracle.balanced_accuracy_score(y, called))
    assert found["macro_f1"] == pytest.approx(oracle.f1_score(y, called, average="macro"))
    assert found["brier"] == pytest.approx(((prob - truth) ** 2).sum(axis=1).mean())


def test_multiclass_by_hand() -> None:
    prob = [[0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.2, 0.6, 0.2], [0.5, 0.0, 0.5]]
    found = multiclass_metrics([0, 0, 1, 2], prob, ["a", "b", "c"])
    # Called a, b, b, a (a tie goes to the first).
    assert found["accuracy"] == 0.5
    assert found["balanced_accuracy"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert found["macro_f1"] == pytest.approx((2 / 4 + 2 / 3 + 0) / 3)
    assert (found["auc_a"], found["auc_b"], found["auc_c"]) == (pytest.approx(3 / 4), 1.0, 1.0)
    # Confidence .8 right, .4 wrong, .6 right, .5 wrong: one patient a bin.
    assert found["ece"] == pytest.approx((0.2 + 0.4 + 0.4 + 0.5) / 4)
    absent = multiclass_metrics([0, 0, 1], prob[:3], ["a", "b", "c"])
    assert (absent["macro_auc"], absent["auc_c"], absent["balanced_accuracy"], absent["macro_f1"]) == (None,) * 4
    assert absent["auc_a"] is not None


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seeds)
def test_ordinal_agrees_with_scikit_learn_and_scipy(seed: int) -> None:
    y, prob = classes(seed)
    found = ordinal_metrics(y, prob)
    called = prob.argmax(axis=1)
    assert found["kappa"] == pytest.approx(oracle.cohen_kappa_score(y, called, weights="quadratic"))
    assert found["spearman"] == pytest.approx(stats.spearmanr(y, prob @ np.arange(4)).statistic)
    assert found["class_error"] == pytest.approx(np.abs(y - called).mean())
    assert found["macro_auc"] == pytest.approx(oracle.roc_auc_score(y, prob, multi_class="ovr"))


def test_ordinal_of_one_class_is_undefined() -> None:
    found = ordinal_metrics([1, 1], [[0.1, 0.9], [0.2, 0.8]])
    assert (found["kappa"], found["spearman"], found["macro_auc"]) == (None, None, None)
    assert (found["accuracy"], found["class_error"]) == (1.0, 0.0)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seeds, st.booleans())
def test_continuous_agrees_with_scipy_and_scikit_learn(seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    y = rng.normal(50, 10, 70)
    guess = y + rng.normal(0, 10, 70)
    if ties:
        y, guess = y.round(-1), guess.round(-1)
    found = continuous_metrics(y, guess)
    assert found["pearson"] == pytest.approx(stats.pearsonr(y, guess).statistic)
    assert found["spearman"] == pytest.approx(stats.spearmanr(y, guess).statistic)
    assert found["r2"] == pytest.approx(oracle.r2_score(y, guess))
    assert found["mae"] == pytest.approx(oracle.mean_absolute_error(y, guess))
    assert found["rmse"] == pytest.approx(oracle.root_mean_squared_error(y, guess))
    events = np.ones(70, dtype=bool)
    assert found["concordance"] == pytest.approx(concordance_index_censored(events, y, -guess)[0])


def test_values_that_do_not_differ_have_no_correlation() -> None:
    flat = continuous_metrics([0.1, 0.2, 0.3], [0.7, 0.7, 0.7])
    assert (flat["pearson"], flat["spearman"], flat["concordance"]) == (None, None, 0.5)
    same = continuous_metrics([0.1, 0.1, 0.1], [0.1, 0.2, 0.3])
    assert (same["r2"], same["pearson"], same["concordance"]) == (None, None, None)
    assert same["mae"] == pytest.approx(0.1)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seeds, st.booleans())
def test_survival_agrees_with_scikit_survival(seed: int, ties: bool) -> None:
    time, event, risk = survival(seed, ties=ties)
    known = Surv.from_arrays(event, time)
    found = survival_metrics(time, event, risk)
    assert found["c_index"] == pytest.approx(concordance_index_censored(event == 1, time, risk)[0])
    if not ties:
        # Where events and censorings share a time, scikit-survival weights by G(t), momkd by G just before t; and it
        # demands that the last patient has the event or none is weighted.
        time[time.argmax()] += 1.0
        assert survival_metrics(time, event, risk)["uno_c_index"] == pytest.approx(
            concordance_index_ipcw(known, known, risk)[0], rel=1e-9
        )
    high = risk > np.median(risk)
    assert logrank(time, event, high) == pytest.approx(compare_survival(Surv.from_arrays(event, time), high)[1])
    times, curve = kaplan_meier_estimator(event == 1, time)
    mine = kaplan_meier(time, event)
    np.testing.assert_allclose(mine.time, times)
    np.testing.assert_allclose(mine.survival, curve)


def test_survival_by_hand() -> None:
    # Died at 1 and 3, lost at 2 and 3. Pairs: (1; 2), (1; 3), (1; 3 lost), (3; 3 lost).
    time, event = [1.0, 2.0, 3.0, 3.0], [1, 0, 1, 0]
    found = survival_metrics(time, event, [5.0, 6.0, 5.0, 1.0])
    assert found["c_index"] == pytest.approx((0 + 0.5 + 1 + 1) / 4)
    # Uncensored just before 3: one of the three at risk after the death was lost at 2, so 2/3.
    assert found["uno_c_index"] == pytest.approx((1.5 + 9 / 4) / (3 + 9 / 4))
    assert survival_metrics([1.0, 2.0], [0, 1], [1.0, 2.0]) == {"c_index": None, "uno_c_index": None}
    assert logrank([1.0, 2.0], [0, 0], [0, 1]) is None


def test_without_censoring_both_c_indices_are_one() -> None:
    time, _, risk = survival(3)
    found = survival_metrics(time, np.ones(len(time), dtype=int), risk)
    assert found["uno_c_index"] == pytest.approx(found["c_index"])


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seeds)
def test_weights_are_repeated_patients(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, prob = classes(seed, n=40)
    time, event, risk = survival(seed, n=40, ties=True)
    model = rng.integers(0, 2, 40)
    counts = rng.multinomial(40, np.full(40, 1 / 40), size=3)
    happened = event == 1
    found = (
        weighted_multiclass(y, prob, "abcd", counts)
        | weighted_ordinal(y, prob, counts)
        | weighted_continuous(time, risk, counts)
    )
    lives = weighted_survival(time, happened, risk, model, counts)
    for draw, count in enumerate(counts):
        rows = np.repeat(np.arange(40), count)
        alone = (
            multiclass_metrics(y[rows], prob[rows], "abcd")
            | ordinal_metrics(y[rows], prob[rows])
            | continuous_metrics(time[rows], risk[rows])
        )
        for name, value in alone.items():
            assert found[name][draw] == pytest.approx(np.nan if value is None else value, nan_ok=True), name
        one = weighted_survival(time[rows], happened[rows], risk[rows], model[rows], np.ones((1, 40)))
        for name in one:
            assert lives[name][draw] == pytest.approx(one[name][0], nan_ok=True)


def test_a_draw_without_any_row_is_undefined() -> None:
    y, prob = classes(0)
    nothing = np.zeros((1, len(y)))
    time, event, risk = survival(0)
    for found in (
        weighted_multiclass(y, prob, "abcd", nothing),
        weighted_ordinal(y, prob, nothing),
        weighted_continuous(time, risk, np.zeros((1, len(time)))),
        weighted_survival(time, event == 1, risk, np.zeros(len(time), dtype=np.int64), np.zeros((1, len(time)))),
    ):
        assert all(np.isnan(values).all() for values in found.values())


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 0 … 2"):
        multiclass_metrics([0, 3], [[1, 0, 0], [1, 0, 0]], "abc")
    with pytest.raises(ValueError, match=r"expected \(n,\) and \(n, 3\)"):
        multiclass_metrics([0, 1], [[1, 0], [1, 0]], "abc")
    with pytest.raises(ValueError, match="add up"):
        ordinal_metrics([0, 1], [[0.4, 0.4], [1, 0]])
    with pytest.raises(ValueError, match="not finite"):
        continuous_metrics([0, 1], [0, np.nan])
    with pytest.raises(ValueError, match="not positive"):
        survival_metrics([0, 1], [1, 1], [1, 2])
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        survival_metrics([2, 1], [1, 3], [1, 2])
    with pytest.raises(ValueError, match="expected"):
        survival_metrics([2, 1], [1], [1, 2])
