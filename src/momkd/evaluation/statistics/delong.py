"""The AUC by DeLong: variance, interval and paired test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit, ndtr
from scipy.stats import rankdata

from momkd.evaluation.statistics.interval import Floats, Interval, normal_quantile, percent


@dataclass(frozen=True)
class DeLong:
    """AUC (mean over the score rows) and its DeLong variance; None with fewer than two patients of a class."""

    auc: float
    variance: float | None


@dataclass(frozen=True)
class PairedDeLong:
    """Difference of two AUCs on the same patients; ``z``, ``p_value`` and limits are None where undefined."""

    auc_a: float
    auc_b: float
    difference: float
    low: float | None
    high: float | None
    z: float | None
    p_value: float | None


def delong(y: ArrayLike, scores: ArrayLike) -> DeLong:
    """Return AUC and variance (DeLong, DeLong and Clarke-Pearson, Biometrics 1988) by midranks, O(n log n).

    ``y``: 0/1 (patients,). ``scores``: float64 (patients,), or (repeats, patients): then the AUC is the mean of the
    rows' AUCs, and the variance that of this mean with the covariance between rows kept (the linear contrast of the
    paper: components are averaged over rows). With midranks R among all and R' among one's own class, a positive's
    component is (R − R')/n₀ and a negative's 1 − (R − R')/n₁; the variance is the sum of the components' sample
    variances, each divided by the size of its class (Sun and Xu, IEEE Signal Processing Letters 2014).
    Raises ValueError when a class is absent, or lengths or values are not usable.
    """
    positive, negative = _components(y, scores)
    return DeLong(float(positive.mean()), _variance(positive, negative))


def delong_interval(y: ArrayLike, scores: ArrayLike, level: float = 0.95) -> Interval:
    """Return the DeLong interval of the AUC on the logit scale, which stays inside (0, 1) and covers better near 1.

    Arguments as for ``delong``. There are no limits when the variance is zero (perfect separation, all scores equal),
    or a class has fewer than two patients: a width of zero would claim certainty.
    """
    found = delong(y, scores)
    name = f"DeLong {percent(level)} (logit scale)"
    if found.variance is None:
        return Interval(found.auc, None, None, f"none: {name} needs two patients of each class")
    if found.variance == 0.0:
        return Interval(found.auc, None, None, f"none: the variance of {name} is zero")
    half = normal_quantile(level) * np.sqrt(found.variance) / (found.auc * (1 - found.auc))
    centre = logit(found.auc)
    return Interval(found.auc, float(expit(centre - half)), float(expit(centre + half)), name)


def paired_delong(y: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike, level: float = 0.95) -> PairedDeLong:
    """Test AUC(a) = AUC(b) for two scores of the same patients (DeLong 1988), two-sided, float64.

    Arguments as for ``delong``; ``low`` and ``high`` limit the difference a − b on its plain scale. The same scores, or
    the same order of all patients, give p = 1; a difference without variance has no test (None).
    """
    positive_a, negative_a = _components(y, scores_a)
    positive_b, negative_b = _components(y, scores_b)
    auc_a, auc_b = float(positive_a.mean()), float(positive_b.mean())
    difference = auc_a - auc_b
    variance = _variance(positive_a - positive_b, negative_a - negative_b)
    if variance is None:
        return PairedDeLong(auc_a, auc_b, difference, None, None, None, None)
    if variance == 0.0:
        same = difference == 0.0
        return PairedDeLong(auc_a, auc_b, difference, None, None, 0.0 if same else None, 1.0 if same else None)
    error = float(np.sqrt(variance))
    z, half = difference / error, normal_quantile(level) * error
    return PairedDeLong(auc_a, auc_b, difference, difference - half, difference + half, z, float(2 * ndtr(-abs(z))))


def _components(y: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """Return the structural components of the positives and of the negatives, averaged over the score rows."""
    labels = np.asarray(y)
    rows = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if labels.ndim != 1 or rows.ndim != 2 or rows.shape[1] != len(labels):
        raise ValueError(f"found labels of shape {labels.shape} and scores of shape {np.shape(scores)}")
    if not np.isin(labels, (0, 1)).all() or not np.isfinite(rows).all():
        raise ValueError("expected labels 0 and 1 and finite scores")
    positive = labels == 1
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        raise ValueError("the AUC needs patients of both classes")
    ranks = rankdata(rows, axis=1)
    of_positive = (ranks[:, positive] - rankdata(rows[:, positive], axis=1)) / n_negative
    of_negative = 1.0 - (ranks[:, ~positive] - rankdata(rows[:, ~positive], axis=1)) / n_positive
    return of_positive.mean(axis=0), of_negative.mean(axis=0)


def _variance(positive: Floats, negative: Floats) -> float | None:
    if len(positive) < 2 or len(negative) < 2:
        return None
    # Asked of the components, because the variance of equal numbers can round to something above zero.
    if np.ptp(positive) == 0.0 and np.ptp(negative) == 0.0:
        return 0.0
    return float(positive.var(ddof=1) / len(positive) + negative.var(ddof=1) / len(negative))
