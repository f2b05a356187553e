"""Metrics and curves: by hand, against scikit-learn, and where they are undefined."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sklearn.metrics as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from momkd.evaluation.metrics import METRICS, binary_metrics, curve_points, weighted_metrics


@st.composite
def predictions(draw: st.DrawFn, both: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities with many ties."""
    n = draw(st.integers(2, 40))
    y = np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    if both:
        y[:2] = [0, 1]
    steps = draw(st.sampled_from([3, 10, 1000]))
    prob = np.array(draw(st.lists(st.integers(0, steps), min_size=n, max_size=n))) / steps
    return y, prob


def test_by_hand() -> None:
    y = [1, 1, 1, 0, 0, 0, 0]
    prob = [0.9, 0.6, 0.2, 0.7, 0.6, 0.1, 0.05]
    found = binary_metrics(y, prob, 0.6)
    # Called positive: .9+, .6+, .7-, .6-, so tp 2, fp 2, fn 1, tn 2; pairs won 4 + 2.5 + 2 of 12.
    assert list(found) == list(METRICS)
    assert found["auc"] == pytest.approx(8.5 / 12)
    # Precision 1 at .9, 2/4 at .6, 3/5 at .2; each gains a third of recall.
    assert found["auprc"] == pytest.approx((1 + 0.5 + 0.6) / 3)
    assert found["f1"] == pytest.approx(4 / 7)
    assert found["accuracy"] == pytest.approx(4 / 7)
    assert found["sensitivity"] == pytest.approx(2 / 3)
    assert found["specificity"] == pytest.approx(1 / 2)
    assert found["balanced_accuracy"] == pytest.approx(7 / 12)
    assert found["ppv"] == pytest.approx(1 / 2)
    assert found["npv"] == pytest.approx(2 / 3)
    assert found["brier"] == pytest.approx((0.01 + 0.16 + 0.64 + 0.49 + 0.36 + 0.01 + 0.0025) / 7)
    # Bins .0-.1: .05 over 1; .1-.2: .1; .2-.3: 1 - .2; .6-.7: |1.2 - 1|; .7-.8: .7; .9-1: .1.
    assert found["ece"] == pytest.approx((0.05 + 0.1 + 0.8 + 0.2 + 0.7 + 0.1) / 7)


@settings(max_examples=30, deadline=None)
@given(predictions(), st.floats(0, 1))
def test_against_scikit_learn(data: tuple[np.ndarray, np.ndarray], threshold: float) -> None:
    y, prob = data
    found = binary_metrics(y, prob, threshold)
    called = (prob >= threshold).astype(int)
    expected = {
        "auc": oracle.roc_auc_score(y, prob),
        "auprc": oracle.average_precision_score(y, prob),
        "f1": oracle.f1_score(y, called, zero_division=0.0),
        "accuracy": oracle.accuracy_score(y, called),
        "balanced_accuracy": oracle.balanced_accuracy_score(y, called),
        "sensitivity": oracle.recall_score(y, called),
        "specificity": oracle.recall_score(y, called, pos_label=0),
        "brier": oracle.brier_score_loss(y, prob),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


@settings(max_examples=40, deadline=None)
@given(predictions(), st.data())
def test_weights_are_the_same_as_repeated_rows(data: tuple[np.ndarray, np.ndarray], draw: st.DataObject) -> None:
    y, prob = data
    counts = np.array(draw.draw(st.lists(st.integers(0, 3), min_size=len(y), max_size=len(y))))
    counts[0] += 1
    threshold = draw.draw(st.sampled_from([0.2, 0.5]))
    weighted = weighted_metrics(y, prob, prob >= threshold, np.stack([counts, counts * 0 + 1]))
    repeated = binary_metrics(np.repeat(y, counts), np.repeat(prob, counts), threshold)
    for name, value in repeated.items():
        found = weighted[name][0]
        assert np.isnan(found) if value is None else found == pytest.approx(value, abs=1e-12), name


def test_each_patient_may_have_a_threshold_of_its_own() -> None:
    found = binary_metrics([1, 0, 1, 0], [0.4, 0.4, 0.6, 0.6], [0.3, 0.5, 0.5, 0.7])
    assert found["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("y", "prob", "undefined"),
    [
        ([1, 1], [0.9, 0.2], {"auc", "auprc", "balanced_accuracy", "specificity"}),
        ([0, 0], [0.9, 0.2], {"auc", "auprc", "balanced_accuracy", "sensitivity"}),
        ([0, 0], [0.1, 0.2], {"auc", "auprc", "balanced_accuracy", "sensitivity", "f1", "ppv"}),
        ([0, 1], [0.1, 0.2], {"ppv"}),
        ([0, 1], [0.8, 0.9], {"npv"}),
    ],
)
def test_undefined_metrics_are_none_without_a_warning(y: list[int], prob: list[float], undefined: set[str]) -> None:
    found = binary_metrics(y, prob, 0.5)
    assert {name for name, value in found.items() if value is None} == undefined
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("y", "prob", "message"),
    [
        ([0, 2], [0.1, 0.2], "expected 0 and 1"),
        ([0, 1], [0.1, np.nan], "NaN or outside"),
        ([0, 1], [0.1, 1.2], "NaN or outside"),
        ([0, 1], [0.1], "shape"),
        ([], [], "shape"),
    ],
)
def test_what_is_no_prediction_is_refused(y: list[int], prob: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        binary_metrics(y, prob, 0.5)


@settings(max_examples=40, deadline=None)
@given(predictions())
def test_areas_under_the_curves_are_the_metrics(data: tuple[np.ndarray, np.ndarray]) -> None:
    y, prob = data
    points = curve_points(y, prob)
    assert points is not None
    metrics = binary_metrics(y, prob, 0.5)
    area = (np.diff(points.fpr) * (points.tpr[1:] + points.tpr[:-1]) / 2).sum()
    assert float(area) == pytest.approx(metrics["auc"])
    steps = np.diff(np.concatenate([[0.0], points.recall]))
    assert float((steps * points.precision).sum()) == pytest.approx(metrics["auprc"])
    fpr, tpr, _ = oracle.roc_curve(y, prob, drop_intermediate=False)
    np.testing.assert_allclose(points.fpr, fpr)
    np.testing.assert_allclose(points.tpr, tpr)
    assert (np.diff(points.thresholds) < 0).all()
    assert len(points.thresholds) == len(points.precision) == len(points.tpr) - 1


def test_a_curve_of_one_class_is_none() -> None:
    assert curve_points([1, 1], [0.1, 0.2]) is None
