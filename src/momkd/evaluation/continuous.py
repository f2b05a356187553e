"""Metrics of a predicted value, for one sample or for thousands of weighted resamples at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from momkd.evaluation.metrics import Floats, first_of, ratio
from momkd.evaluation.pairs import ordered_pairs

CONTINUOUS = ("spearman", "pearson", "r2", "mae", "rmse", "concordance")


def continuous_metrics(observed: ArrayLike, predicted: ArrayLike) -> dict[str, float | None]:
    """Return the metrics named in ``CONTINUOUS`` for observed and predicted values, both (patients,), in one unit.

    spearman: Pearson's correlation of the ranks (ties: mean rank). pearson: correlation. r2: 1 − Σ (y − ŷ)² / Σ (y −
    mean y)², negative where the mean predicts better. mae: mean |y − ŷ|. rmse: √ mean (y − ŷ)². concordance: of all
    pairs of patients with different observed values, the share that the prediction puts in the same order (equal
    predictions count half).
    What is undefined (correlations and r2 of equal values) is None. Raises ValueError for values that are not finite,
    unequal lengths, or no patient.
    """
    y, found = check_values(observed, predicted)
    return first_of(weighted_continuous(y, found, np.ones((1, len(y)))))


def check_values(observed: ArrayLike, predicted: ArrayLike) -> tuple[Floats, Floats]:
    """Return both as float64 (patients,); ValueError says what is wrong."""
    y, found = np.asarray(observed, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if y.ndim != 1 or y.shape != found.shape or len(y) == 0:
        raise ValueError(f"found values of shape {y.shape} and predictions of shape {found.shape}; expected (n,)")
    if not (np.isfinite(y).all() and np.isfinite(found).all()):
        raise ValueError("found values or predictions that are not finite")
    return y, found


def weighted_continuous(observed: Floats, predicted: Floats, weights: ArrayLike) -> dict[str, Floats]:
    """Return each metric as float64 (resamples,), NaN where undefined.

    ``observed``, ``predicted`` (rows,); ``weights`` (resamples, rows): how often each row counts in each resample.
    """
    w = np.asarray(weights, dtype=np.float64)
    total = w.sum(axis=1)
    error = observed - predicted
    squared = w @ error**2
    spread = _centred(np.broadcast_to(observed, w.shape), w)
    concordant, pairs = ordered_pairs(observed, np.ones(len(observed), dtype=bool), -predicted, w)
    return {
        "spearman": spearman(observed, predicted, w),
        "pearson": correlation(np.broadcast_to(observed, w.shape), np.broadcast_to(predicted, w.shape), w),
        "r2": 1 - ratio(squared, (w * spread**2).sum(axis=1)),
        "mae": ratio(w @ np.abs(error), total),
        "rmse": np.sqrt(ratio(squared, total)),
        "concordance": ratio((w * concordant).sum(axis=1), (w * pairs).sum(axis=1)),
    }


def spearman(a: Floats, b: Floats, w: Floats) -> Floats:
    """Return Spearman's correlation of ``a`` and ``b`` (rows,) in each resample (resamples,), NaN where one is flat."""
    return correlation(_ranks(a, w), _ranks(b, w), w)


def correlation(a: Floats, b: Floats, w: Floats) -> Floats:
    """Return Pearson's correlation of ``a`` and ``b``, both (resamples, rows), NaN where one of them is flat."""
    first, second = _centred(a, w), _centred(b, w)
    both = (w * first * second).sum(axis=1)
    size = np.sqrt((w * first**2).sum(axis=1) * (w * second**2).sum(axis=1))
    found = np.clip(ratio(both, size), -1.0, 1.0)
    return np.asarray(np.where(_is_flat(a, w) | _is_flat(b, w), np.nan, found))


def _centred(values: NDArray[np.float64], w: Floats) -> Floats:
    """Return values (resamples, rows) minus their weighted mean; exactly 0 where all that count are equal."""
    mean = ratio((w * values).sum(axis=1), w.sum(axis=1))
    centred = values - mean[:, None]
    return np.where(_is_flat(values, w)[:, None] & (w > 0), 0.0, centred)


def _is_flat(values: NDArray[np.float64], w: Floats) -> NDArray[np.bool_]:
    """Return whether all values that count are equal: asked of the values, because sums of equal numbers round."""
    highest = np.where(w > 0, values, -np.inf).max(axis=1)
    lowest = np.where(w > 0, values, np.inf).min(axis=1)
    return np.asarray(highest <= lowest)


def _ranks(values: Floats, w: Floats) -> Floats:
    """Return the mean ranks (resamples, rows) of ``values`` (rows,), each row counting as often as its weight."""
    order = np.argsort(values, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(values[order]) != 0))
    held = np.add.reduceat(w[:, order], first, axis=1)
    middle = np.cumsum(held, axis=1) - (held - 1) / 2
    group = np.empty(len(values), dtype=np.int64)
    group[order] = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(values))))
    return np.asarray(middle[:, group])
