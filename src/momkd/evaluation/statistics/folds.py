"""Tests over the folds of cross-validation, and over many methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student_t

from momkd.evaluation.statistics.interval import Floats, Interval, percent


@dataclass(frozen=True)
class CorrectedT:
    """Nadeau–Bengio test of a mean difference; what needs a variance is None where there is none."""

    mean: float
    sd: float
    t: float | None
    df: int
    p_value: float | None
    low: float | None
    high: float | None


def corrected_resampled_t(differences: ArrayLike, test_train_ratio: float, level: float = 0.95) -> CorrectedT:
    """Test a mean difference over the folds of (repeated) cross-validation (Nadeau and Bengio, Machine Learning 2003).

    ``differences``: one a fold, float64 (n,). The variance of their mean is s²·(1/n + n_test/n_train) instead of s²/n,
    because training sets overlap; ``test_train_ratio`` = n_test/n_train. Two-sided, n − 1 degrees of freedom.
    Raises ValueError for fewer than two differences, values that are not finite, or a ratio that is not positive.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError("expected at least two finite differences")
    if not test_train_ratio > 0 or not np.isfinite(test_train_ratio):
        raise ValueError(f"found test_train_ratio {test_train_ratio}; expected n_test / n_train > 0")
    n = len(values)
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    if np.ptp(values) == 0.0:
        same = mean == 0.0
        return CorrectedT(mean, 0.0, 0.0 if same else None, n - 1, 1.0 if same else None, None, None)
    error = sd * float(np.sqrt(1 / n + test_train_ratio))
    half = float(student_t.ppf((1 + level) / 2, n - 1)) * error
    statistic = mean / error
    p_value = float(2 * student_t.sf(abs(statistic), n - 1))
    return CorrectedT(mean, sd, statistic, n - 1, p_value, mean - half, mean + half)


def fold_ratio(folds: int) -> float:
    """Return n_test / n_train of cross-validation with ``folds`` folds, 1 / (folds − 1); ValueError for fewer than 2.

    Validation patients count as training patients: epoch, threshold and calibration depend on them.
    """
    if folds < 2:
        raise ValueError(f"found {folds} folds; expected at least 2")
    return 1.0 / (folds - 1)


def paired_corrected_t(
    values_a: Sequence[float | None], values_b: Sequence[float | None], *, folds: int, level: float = 0.95
) -> CorrectedT | None:
    """Test that two methods have the same mean metric over the folds of repeated cross-validation.

    ``values_a``, ``values_b``: the metric of each (repeat, fold), the same folds in the same order; ``folds`` of one
    repeat. A fold undefined (None or NaN) for either is left out; with fewer than two others there is no test (None).
    The test is ``corrected_resampled_t`` of the differences a − b, with ``fold_ratio``.
    """
    a, b = fold_values(values_a), fold_values(values_b)
    if a.shape != b.shape:
        raise ValueError(f"found {len(a)} and {len(b)} folds; expected the same folds")
    differences = (a - b)[np.isfinite(a - b)]
    ratio = fold_ratio(folds)
    return corrected_resampled_t(differences, ratio, level) if len(differences) > 1 else None


def fold_interval(values: Sequence[float | None], *, folds: int, level: float = 0.95) -> Interval:
    """Return the mean of a metric over the folds of (repeated) cross-validation and its corrected t interval.

    Arguments as for ``paired_corrected_t``; undefined folds are left out. mean ± t(n − 1) · s · √(1/n + n_test/n_train)
    is symmetric and may pass the bounds of the metric. There are no limits with fewer than two values, or equal ones.
    """
    known = fold_values(values)
    known = known[np.isfinite(known)]
    ratio = fold_ratio(folds)
    if len(known) < 2:
        mean = float(known[0]) if len(known) else None
        return Interval(mean, None, None, f"none: the metric is defined in {len(known)} folds")
    found = corrected_resampled_t(known, ratio, level)
    if found.low is None:
        return Interval(found.mean, None, None, "none: the folds have one value")
    return Interval(found.mean, found.low, found.high, f"corrected resampled t {percent(level)} ({len(known)} folds)")


def fold_values(values: Sequence[float | None]) -> Floats:
    """Return the values as float64 (folds,), NaN where undefined."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for the number of tests (Holm, Scand. J. Statist. 1979), in the given order.

    The i-th smallest of m is multiplied by m − i + 1, never below its predecessor nor above 1. Raises ValueError for a
    value outside [0, 1].
    """
    values = np.asarray(p_values, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("found p-values that are NaN or outside [0, 1]")
    order = np.argsort(values, kind="stable")
    scaled = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in adjusted]
