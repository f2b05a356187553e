"""Calibration: by hand, against slow definitions and scikit-learn, and at its edges."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression

from momkd.errors import RunError, SplitError
from momkd.evaluation.calibration import (
    IsotonicCalibration,
    TemperatureScaling,
    calibrate_predictions,
    calibration_curve,
    calibration_error,
    calibrator_from_dict,
)
from momkd.evaluation.metrics import binary_metrics
from momkd.evaluation.multiclass import multiclass_metrics
from momkd.experiment import TaskSettings

BINARY = TaskSettings(label="HER2", classes=("neg", "pos"))


def sharpened(n: int, temperature: float, seed: int = 0, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from true probabilities, and those probabilities with logits multiplied by ``temperature``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = (rng.random((n, 1)) > np.cumsum(true, axis=1)).sum(axis=1)
    shown = np.exp(logits * temperature)
    return y, shown / shown.sum(axis=1, keepdims=True)


# --- Curve and error -------------------------------------------------------------------------------------------------


def test_curve_by_hand() -> None:
    y, prob = [0, 0, 1, 1, 0, 1], [0.1, 0.2, 0.2, 0.8, 0.9, 1.0]
    width = calibration_curve(y, prob, bins=2)
    assert width.count.tolist() == [3, 3]
    assert width.mean.tolist() == pytest.approx([0.5 / 3, 0.9])
    assert width.observed.tolist() == pytest.approx([1 / 3, 2 / 3])
    assert width.error == pytest.approx(0.5 * (1 / 6 + 0.9 - 2 / 3))
    # Wilson, 1 of 3, as any table has it: 0.0615 to 0.7923.
    assert (width.low[0], width.high[0]) == (pytest.approx(0.0615, abs=1e-4), pytest.approx(0.7923, abs=1e-4))
    mass = calibration_curve(y, prob, bins=3, strategy="mass")
    # Midranks 1, 2.5, 2.5, 4, 5, 6, minus a half and divided by 2: 0.25, 1, 1, 1.75, 2.25, 2.75.
    assert mass.count.tolist() == [1, 3, 2]
    assert mass.error == pytest.approx((0.1 + 3 * abs(0.4 - 2 / 3) + 2 * (0.95 - 0.5)) / 6)


def test_bins_of_equal_mass_hold_equally_many_without_ties() -> None:
    rng = np.random.default_rng(0)
    prob = rng.random(103)
    counts = calibration_curve(rng.integers(0, 2, 103), prob, bins=10, strategy="mass").count
    assert counts.sum() == 103
    assert set(counts.tolist()) <= {10, 11}


def test_ties_and_the_order_of_rows_change_nothing() -> None:
    rng = np.random.default_rng(1)
    y, prob = rng.integers(0, 2, 60), rng.integers(0, 6, 60) / 5
    order = rng.permutation(60)
    for strategy in ("width", "mass"):
        first = calibration_curve(y, prob, strategy=strategy)
        again = calibration_curve(y[order], prob[order], strategy=strategy)
        np.testing.assert_allclose(again.observed, first.observed)
        np.testing.assert_array_equal(again.count, first.count)
        assert len(first.count) <= 6
        one = calibration_curve(y, np.full(60, 0.3), strategy=strategy)
        assert (one.count.tolist(), one.error) == ([60], pytest.approx(abs(0.3 - y.mean())))


def test_ten_bins_of_equal_width_are_the_metric() -> None:
    y, prob = sharpened(200, 2.0)
    assert calibration_error(y, prob[:, 1]) == pytest.approx(binary_metrics(y, prob[:, 1], 0.5)["ece"])
    y, prob = sharpened(200, 2.0, classes=3)
    assert calibration_error(y, prob) == pytest.approx(multiclass_metrics(y, prob, ("a", "b", "c"))["ece"])


def test_one_class_has_a_curve() -> None:
    found = calibration_curve([1, 1], [0.2, 0.9])
    assert found.observed.tolist() == [1.0, 1.0]
    assert calibration_error([0, 0], [0.2, 0.2], strategy="mass") == pytest.approx(0.2)


def test_the_curve_refuses() -> None:
    with pytest.raises(ValueError, match="bins"):
        calibration_curve([0, 1], [0.1, 0.2], bins=0)
    with pytest.raises(ValueError, match="'width' or 'mass'"):
        calibration_curve([0, 1], [0.1, 0.2], strategy="size")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="NaN"):
        calibration_error([0, 1], [0.1, np.nan])


# --- Temperature -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_is_found_again(classes: int, temperature: float) -> None:
    y, prob = sharpened(20_000, temperature, classes=classes)
    found = TemperatureScaling().fit(y, prob)
    assert found.temperature_ == pytest.approx(temperature, rel=0.05)
    assert not found.at_bound_


def test_temperature_is_the_most_likely_one() -> None:
    y, prob = sharpened(80, 2.5, classes=3)

    def loss(log_t: float) -> float:
        powered = prob ** np.exp(-log_t)
        return -float(np.log((powered / powered.sum(axis=1, keepdims=True))[np.arange(80), y]).sum())

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10})
    found = TemperatureScaling().fit(y, prob)
    assert np.log(found.temperature_) == pytest.approx(best.x, abs=1e-5)
    powered = prob ** (1 / found.temperature_)
    np.testing.assert_allclose(found.transform(prob), powered / powered.sum(axis=1, keepdims=True), atol=1e-12)


def test_two_classes_in_one_column_or_in_two() -> None:
    y, prob = sharpened(60, 2.0)
    one, two = TemperatureScaling().fit(y, prob[:, 1]), TemperatureScaling().fit(y, prob)
    assert one.temperature_ == pytest.approx(two.temperature_)
    np.testing.assert_allclose(one.transform(prob[:, 1]), two.transform(prob)[:, 1])
    # Only the spread changes: the order, so the AUC, stays.
    np.testing.assert_array_equal(np.argsort(one.transform(prob[:, 1])), np.argsort(prob[:, 1]))


def test_temperature_at_its_edges() -> None:
    separated = TemperatureScaling().fit([0, 0, 1, 1], [0.1, 0.4, 0.6, 0.9])
    assert (separated.temperature_, separated.at_bound_) == (pytest.approx(0.01), True)
    reversed_ = TemperatureScaling().fit([1, 1, 0, 0], [0.1, 0.4, 0.6, 0.9])
    assert (reversed_.temperature_, reversed_.at_bound_) == (pytest.approx(100.0), True)
    undecided = TemperatureScaling().fit([0, 1, 1], [0.5, 0.5, 0.5])
    assert (undecided.temperature_, undecided.at_bound_) == (1.0, False)
    # One probability for everybody becomes the share of positives, if both lie on one side of a half.
    constant = TemperatureScaling().fit([0, 1, 1, 1], [0.6] * 4)
    np.testing.assert_allclose(constant.transform([0.6]), 0.75)
    sure = TemperatureScaling().fit([0, 1, 1, 0], [0.0, 1.0, 0.0, 0.0])
    assert np.isfinite(sure.transform([0.0, 1.0])).all()


# --- Isotonic --------------------------------------------------------------------------------------------------------


def test_isotonic_by_hand() -> None:
    # 0.2 and 0.4 violate the order and are pooled: two of four.
    found = IsotonicCalibration().fit([0, 1, 1, 0, 0, 1], [0.1, 0.2, 0.2, 0.4, 0.4, 0.9])
    assert found.x_.tolist() == [0.1, 0.2, 0.4, 0.9]
    assert found.y_.tolist() == [0.0, 0.5, 0.5, 1.0]
    np.testing.assert_allclose(found.transform([0.0, 0.15, 0.3, 0.65, 1.0]), [0.0, 0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize("levels", [5, 10**6])
def test_isotonic_is_scikit_learns(levels: int) -> None:
    rng = np.random.default_rng(2)
    prob = rng.integers(0, levels + 1, 200) / levels
    y = (rng.random(200) < prob**2).astype(int)
    oracle = IsotonicRegression(out_of_bounds="clip", y_min=0, y_max=1).fit(prob, y)
    grid = np.linspace(0, 1, 501)
    np.testing.assert_allclose(IsotonicCalibration().fit(y, prob).transform(grid), oracle.predict(grid), atol=1e-6)


def test_isotonic_at_its_edges() -> None:
    constant = IsotonicCalibration().fit([0, 1, 1, 1], [0.3] * 4)
    np.testing.assert_allclose(constant.transform([0.0, 0.3, 1.0]), 0.75)
    falling = IsotonicCalibration().fit([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(falling.transform([0.1, 0.4]), 0.5)
    with pytest.raises(ValueError, match="isotonic calibration expects"):
        falling.transform([[0.1, 0.9]])


# --- Both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [TemperatureScaling, IsotonicCalibration])
def test_calibrators_are_plain_numbers(make: Callable[[], Any]) -> None:
    y, prob = sharpened(50, 3.0)
    fitted = make().fit(y, prob[:, 1])
    again = calibrator_from_dict(json.loads(json.dumps(fitted.to_dict())))
    np.testing.assert_array_equal(again.transform(prob[:, 1]), fitted.transform(prob[:, 1]))
    with pytest.raises(SplitError, match="all 3 validation patients are of class 1"):
        make().fit([1, 1, 1], [0.2, 0.3, 0.4])
    with pytest.raises(ValueError, match="expected probabilities"):
        fitted.transform([np.nan])


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"method": "magic"},
        {"method": "temperature"},
        {"method": "temperature", "temperature": 0.0, "at_bound": False},
        {"method": "isotonic", "x": [0.1, 0.2], "y": [0.9, 0.1]},
        {"method": "isotonic", "x": [0.1], "y": [0.9, 1.0]},
    ],
)
def test_other_contents_are_no_calibrator(plain: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="to_dict of a calibrator"):
        calibrator_from_dict(plain)


def folds(n: int = 400) -> pd.DataFrame:
    """Two folds; the second one's model is surer of itself."""
    parts = []
    for fold in range(2):
        y, prob = sharpened(n, 2.0 + 2 * fold, seed=fold)
        part = pd.DataFrame({"repeat": 0, "fold": fold, "role": np.where(np.arange(n) % 2, "val", "test")})
        part["patient_id"] = [f"P{fold}-{i}" for i in range(n)]
        part["label"] = np.where(y == 1, "pos", "neg")
        part["prob_neg"], part["prob_pos"] = prob[:, 0], prob[:, 1]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def test_each_fold_is_calibrated_on_its_own_validation_patients() -> None:
    frame = folds()
    calibrated, found = calibrate_predictions(frame, BINARY)
    assert list(found) == [(0, 0), (0, 1)]
    assert found[0, 1].to_dict()["temperature"] > found[0, 0].to_dict()["temperature"] > 1.4
    test, before = (table[table["role"] == "test"] for table in (calibrated, frame))
    error_after, error_before = (
        calibration_error((table["label"] == "pos").astype(int), table["prob_pos"]) for table in (test, before)
    )
    assert error_after < 0.6 * error_before
    np.testing.assert_allclose(calibrated["prob_neg"] + calibrated["prob_pos"], 1.0)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_test_labels_are_not_read(method: Any) -> None:
    frame = folds()
    turned = frame["label"].map({"pos": "neg", "neg": "pos"}).where(frame["role"] == "test", frame["label"])
    first, second = (calibrate_predictions(table, BINARY, method)[0] for table in (frame, frame.assign(label=turned)))
    np.testing.assert_array_equal(first["prob_pos"], second["prob_pos"])


def test_more_classes_keep_their_order(predicted: Callable[..., tuple[TaskSettings, pd.DataFrame]]) -> None:
    task, frame = predicted("classification")
    calibrated, found = calibrate_predictions(frame, task)
    columns = [f"prob_{name}" for name in task.classes]
    keys = ["repeat", "fold", "role", "patient_id"]
    before = frame.sort_values(keys)[columns].to_numpy()
    np.testing.assert_array_equal(calibrated[columns].to_numpy().argmax(axis=1), before.argmax(axis=1))
    np.testing.assert_allclose(calibrated[columns].sum(axis=1), 1.0)
    assert len(found) == 6


def test_what_cannot_be_calibrated_is_said_at_once(
    predicted: Callable[..., tuple[TaskSettings, pd.DataFrame]],
) -> None:
    frame = folds(20)
    one_class = frame[(frame["role"] == "test") | (frame["label"] == "pos")]
    none = one_class[(one_class["role"] == "test") | (one_class["fold"] == 1)]
    with pytest.raises(SplitError) as caught:
        calibrate_predictions(none, BINARY)
    assert "fold 0: found 0 validation patients of 0 classes" in str(caught.value)
    assert "fold 1: found" in str(caught.value)
    task, other = predicted("survival")
    with pytest.raises(RunError, match="task survival"):
        calibrate_predictions(other, task)
    task, other = predicted("classification")
    with pytest.raises(RunError, match="isotonic for two classes"):
        calibrate_predictions(other, task, "isotonic")
