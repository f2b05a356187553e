"""Are the probabilities true? Calibration curve, calibration error, and calibrators fitted on validation patients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, isotonic_regression
from scipy.special import log_softmax, ndtri, softmax
from scipy.stats import rankdata

from momkd.errors import RunError, SplitError
from momkd.evaluation.columns import prediction_columns
from momkd.evaluation.metrics import check_predictions
from momkd.evaluation.multiclass import check_classes
from momkd.evaluation.predictions import checked_predictions
from momkd.experiment import TaskSettings

Floats = NDArray[np.float64]
Bins = Literal["width", "mass"]

# A probability of 0 has no logarithm: text with few digits may hold one.
_SMALLEST = 1e-7
# Beyond these temperatures probabilities are all but equal, or all but 0 and 1.
_COLDEST, _HOTTEST = 0.01, 100.0


@dataclass(frozen=True, eq=False)
class CalibrationCurve:
    """One entry a bin that holds patients, from low probabilities to high ones, all (bins,).

    ``mean``: mean probability. ``observed``: share of positives, with its 95 % Wilson limits ``low`` and ``high``.
    ``count``: patients, int64.
    """

    mean: Floats
    observed: Floats
    low: Floats
    high: Floats
    count: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Return the calibration error, Σ count/n · |mean − observed|."""
        return float((self.count * np.abs(self.mean - self.observed)).sum() / self.count.sum())


def calibration_curve(y: ArrayLike, prob: ArrayLike, *, bins: int = 10, strategy: Bins = "width") -> CalibrationCurve:
    """Return mean probability and share of positives by bin, for ``y`` 0/1 and ``prob`` of class 1, both (patients,).

    ``strategy``: "width" has bins [0, 1/bins) … [1 − 1/bins, 1]. "mass" has equally many patients a bin: a patient goes
    to bin ⌊bins · (midrank − ½) / n⌋, so that equal probabilities stay together and no order of rows matters; ties make
    bins unequal, and constant predictions make one bin. For more than two classes give ŷ = y and the probability of ŷ.
    Raises ValueError for labels or probabilities that are not usable; patients of one class are.
    """
    labels, probability = check_predictions(y, prob)
    if bins < 1:
        raise ValueError(f"found {bins} bins; expected at least 1")
    if strategy == "width":
        number = np.minimum((probability * bins).astype(np.int64), bins - 1)
    elif strategy == "mass":
        number = _equal_mass(probability, bins)
    else:
        raise ValueError(f"found strategy {strategy!r}; expected 'width' or 'mass'")
    _, place = np.unique(number, return_inverse=True)
    count = np.bincount(place)
    observed = np.bincount(place, weights=labels) / count
    low, high = _wilson(observed, count)
    return CalibrationCurve(np.bincount(place, weights=probability) / count, observed, low, high, count)


def calibration_error(y: ArrayLike, prob: ArrayLike, *, bins: int = 10, strategy: Bins = "width") -> float:
    """Return the expected calibration error, Σ over bins of count/n · |mean probability − share of positives|.

    Arguments as for ``calibration_curve`` if ``prob`` is (patients,). If it is (patients, C) with labels 0…C−1, the
    probability of the most probable class and whether it is right take their place (Guo et al., ICML 2017).
    "width" with 10 bins is the metric ``ece``. It is biased upwards where bins hold few patients.
    """
    probability = np.asarray(prob, dtype=np.float64)
    if probability.ndim == 2:
        labels, probability = check_classes(y, probability, probability.shape[1])
        right = (probability.argmax(axis=1) == labels).astype(np.int64)
        return calibration_curve(right, np.minimum(probability.max(axis=1), 1.0), bins=bins, strategy=strategy).error
    return calibration_curve(y, probability, bins=bins, strategy=strategy).error


class TemperatureScaling:
    """Divides logits by one number: p ∝ exp(log p / T), for two classes or more (Guo et al., ICML 2017).

    T minimises the negative log-likelihood of the validation patients. No order of classes or (two classes) patients
    changes, so the AUC of a fold stays. T is kept in [0.01, 100]: ``at_bound_`` says that the likelihood would go on,
    as it does where the patients are separated without an error, or the predictions are no better than none.
    After ``fit``: ``temperature_``, ``at_bound_``.
    """

    def fit(self, y: ArrayLike, prob: ArrayLike) -> Self:
        """Fit to ``y`` 0/1 with ``prob`` of class 1 (patients,), or ``y`` 0…C−1 with ``prob`` (patients, C).

        Raises SplitError when the patients are of one class; ValueError for values that are not usable.
        """
        labels, probability = _checked(y, prob)
        _refuse_one_class(labels)
        logs = np.log(np.clip(probability, _SMALLEST, 1.0))
        chosen = np.take_along_axis(logs, labels[:, None], axis=1)[:, 0]

        def slope(beta: float) -> float:
            """Derivative of the negative log-likelihood by β = 1/T, in which it is convex."""
            return float(((softmax(beta * logs, axis=1) * logs).sum(axis=1) - chosen).mean())

        flat = bool((np.ptp(logs, axis=1) == 0.0).all())
        lowest, highest = 1 / _HOTTEST, 1 / _COLDEST
        # Predictions without any preference fit equally at every temperature: they are left as they are.
        if flat:
            beta, bound = 1.0, False
        elif slope(lowest) >= 0:
            beta, bound = lowest, True
        elif slope(highest) <= 0:
            beta, bound = highest, True
        else:
            beta, bound = float(brentq(slope, lowest, highest, xtol=1e-14)), False
        self.temperature_, self.at_bound_ = 1 / beta, bound
        return self

    def transform(self, prob: ArrayLike) -> Floats:
        """Return calibrated probabilities, float64 of the shape of ``prob``."""
        probability = _check_probabilities(prob)
        both = _both(probability)
        scaled = np.exp(log_softmax(np.log(np.clip(both, _SMALLEST, 1.0)) / self.temperature_, axis=1))
        return np.asarray(scaled[:, 1] if probability.ndim == 1 else scaled)

    def to_dict(self) -> dict[str, Any]:
        """Return what was fitted as plain numbers."""
        return {"method": "temperature", "temperature": float(self.temperature_), "at_bound": self.at_bound_}


class IsotonicCalibration:
    """The rising step function closest to the labels, two classes (Zadrozny and Elkan, KDD 2002).

    Pool-adjacent-violators on the distinct probabilities, then linear between them and constant outside. It may give
    probabilities of exactly 0 and 1 and makes ties, which can change the AUC; with fewer than about a thousand
    patients temperature is the safer choice. After ``fit``: ``x_``, ``y_``, the corners, rising.
    """

    def fit(self, y: ArrayLike, prob: ArrayLike) -> Self:
        """Fit to ``y`` 0/1 with ``prob`` of class 1, both (patients,). Raises as ``TemperatureScaling.fit``."""
        labels, probability = check_predictions(y, prob)
        _refuse_one_class(labels)
        values, place = np.unique(probability, return_inverse=True)
        count = np.bincount(place)
        share = np.bincount(place, weights=labels) / count
        fitted = np.clip(isotonic_regression(share, weights=count).x, 0.0, 1.0)
        # Inside a level only its ends are corners.
        inner = np.zeros(len(values), dtype=bool)
        inner[1:-1] = (fitted[1:-1] == fitted[:-2]) & (fitted[1:-1] == fitted[2:])
        self.x_, self.y_ = values[~inner], np.asarray(fitted[~inner])
        return self

    def transform(self, prob: ArrayLike) -> Floats:
        """Return calibrated probabilities of class 1, float64 of the shape of ``prob`` (patients,)."""
        probability = _check_probabilities(prob)
        if probability.ndim != 1:
            raise ValueError(f"found probabilities of shape {probability.shape}; isotonic calibration expects (n,)")
        return np.asarray(np.interp(probability, self.x_, self.y_), dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Return what was fitted as plain numbers."""
        return {"method": "isotonic", "x": self.x_.tolist(), "y": self.y_.tolist()}


Calibrator = TemperatureScaling | IsotonicCalibration


def calibrator_from_dict(plain: Mapping[str, Any]) -> Calibrator:
    """Return the calibrator that ``to_dict`` wrote down. Raises ValueError for another content."""
    try:
        if plain["method"] == "temperature":
            scaling = TemperatureScaling()
            scaling.temperature_, scaling.at_bound_ = float(plain["temperature"]), bool(plain["at_bound"])
            if np.isfinite(scaling.temperature_) and scaling.temperature_ > 0:
                return scaling
        elif plain["method"] == "isotonic":
            isotonic = IsotonicCalibration()
            isotonic.x_, isotonic.y_ = (np.asarray(plain[name], dtype=np.float64) for name in ("x", "y"))
            if isotonic.x_.shape == isotonic.y_.shape and _rises(isotonic.x_) and _rises(isotonic.y_):
                return isotonic
    except (KeyError, TypeError) as error:
        raise ValueError(f"found {dict(plain)}; expected what to_dict of a calibrator writes") from error
    raise ValueError(f"found {dict(plain)}; expected what to_dict of a calibrator writes")


def calibrate_predictions(
    predictions: pd.DataFrame, task: TaskSettings, method: Literal["temperature", "isotonic"] = "temperature"
) -> tuple[pd.DataFrame, dict[tuple[int, int], Calibrator]]:
    """Return predictions.csv calibrated fold by fold, and the calibrator of each (repeat, fold).

    Each is fitted on the validation patients of its fold and applied to its validation and test patients; test labels
    are not read. Calibration of ``val`` afterwards is optimistic. Isotonic: two classes only.
    Raises SplitError naming every fold whose validation patients are none or of one class, RunError for a task or a
    method without calibration and for predictions that are not usable.
    """
    if not task.categorical or (method == "isotonic" and not task.binary) or method not in ("temperature", "isotonic"):
        raise RunError(
            f"found method {method!r} for the task {task.type} of {len(task.classes)} classes; expected temperature "
            "for classes, or isotonic for two classes"
        )
    frame = checked_predictions(predictions, task)
    columns = prediction_columns(task)
    position = {name: number for number, name in enumerate(task.classes)}
    found: dict[tuple[int, int], Calibrator] = {}
    problems = []
    for repeat, fold in sorted({(int(r), int(f)) for r, f in zip(frame["repeat"], frame["fold"], strict=True)}):
        part = frame[(frame["repeat"] == repeat) & (frame["fold"] == fold)]
        own = part[part["role"] == "val"]
        if (classes := own["label"].nunique()) < 2:
            of = f"{len(own)} validation patients of {classes} classes"
            problems.append(f"repeat {repeat}, fold {fold}: found {of}; expected at least two classes")
            continue
        fitted: Calibrator = TemperatureScaling() if method == "temperature" else IsotonicCalibration()
        y = own["label"].map(position).to_numpy(dtype=np.int64)
        prob = own[columns].to_numpy(dtype=np.float64)
        fitted.fit(y, prob[:, -1] if task.binary else prob)
        found[repeat, fold] = fitted
        values = part[columns].to_numpy(dtype=np.float64)
        calibrated = fitted.transform(values[:, -1] if task.binary else values)
        frame.loc[part.index, columns] = np.column_stack([1 - calibrated, calibrated]) if task.binary else calibrated
    if problems:
        raise SplitError("calibration is not possible → raise cv.validation or lower cv.folds\n" + "\n".join(problems))
    return frame, found


def _equal_mass(prob: Floats, bins: int) -> NDArray[np.int64]:
    return np.floor(bins * (rankdata(prob) - 0.5) / len(prob)).astype(np.int64)


def _wilson(share: Floats, count: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return the 95 % score limits of a share (Wilson, JASA 1927)."""
    z2 = float(ndtri(0.975)) ** 2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = np.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)


def _checked(y: ArrayLike, prob: ArrayLike) -> tuple[NDArray[np.int64], Floats]:
    """Return labels (patients,) and the probabilities of all classes (patients, C)."""
    if np.ndim(prob) == 2:
        return check_classes(y, prob, np.shape(prob)[1])
    labels, positive = check_predictions(y, prob)
    return labels, _both(positive)


def _both(prob: Floats) -> Floats:
    return np.column_stack([1 - prob, prob]) if prob.ndim == 1 else prob


def _check_probabilities(prob: ArrayLike) -> Floats:
    probability = np.asarray(prob, dtype=np.float64)
    # Written so that NaN fails too.
    if probability.ndim not in (1, 2) or not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("expected probabilities in [0, 1] of shape (n,) or (n, classes)")
    return probability


def _refuse_one_class(labels: NDArray[np.int64]) -> None:
    if len(np.unique(labels)) < 2:
        raise SplitError(
            f"calibration is not possible: all {len(labels)} validation patients are of class {labels[0]}; expected "
            "two classes or more → raise cv.validation, lower cv.folds, or give cv.splits"
        )


def _rises(values: Floats) -> bool:
    return values.ndim == 1 and len(values) > 0 and bool(np.isfinite(values).all() and (np.diff(values) >= 0).all())
