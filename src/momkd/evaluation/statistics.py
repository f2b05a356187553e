"""Intervals and tests: DeLong, the bootstrap over patients, the corrected resampled t-test, Holm.

All but the corrected t-test speak of other patients of the same kind, given the trained models: they do not cover what
another training run or another cohort would change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, ndtr, ndtri
from scipy.stats import rankdata
from scipy.stats import t as student_t

Floats = NDArray[np.float64]

# Resamples × rows handled at once: small enough for a processor's cache, which halves the time.
_BLOCK_CELLS = 100_000


@dataclass(frozen=True)
class Interval:
    """A value with its confidence limits, which are None where the method has none; ``method`` says which it is."""

    value: float | None
    low: float | None
    high: float | None
    method: str


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


@dataclass(frozen=True, eq=False)
class Resamples:
    """Bootstrap draws: ``counts`` (resamples, patients) int64; ``redrawn`` draws lacked a class and were replaced."""

    counts: NDArray[np.int64]
    redrawn: int


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
    name = f"DeLong {_percent(level)} (logit scale)"
    if found.variance is None:
        return Interval(found.auc, None, None, f"none: {name} needs two patients of each class")
    if found.variance == 0.0:
        return Interval(found.auc, None, None, f"none: the variance of {name} is zero")
    half = _quantile(level) * np.sqrt(found.variance) / (found.auc * (1 - found.auc))
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
    z, half = difference / error, _quantile(level) * error
    return PairedDeLong(auc_a, auc_b, difference, difference - half, difference + half, z, float(2 * ndtr(-abs(z))))


def draw_patients(positive: ArrayLike, *, resamples: int = 2000, seed: int | Sequence[int] = 0) -> Resamples:
    """Draw bootstrap samples of patients with replacement.

    ``positive``: bool (patients,), in an order that does not depend on that of a file. A draw without both classes is
    drawn again, and counted: the distribution is that of the bootstrap given both classes. Raises ValueError when the
    patients themselves are of one class.
    """
    is_positive = np.asarray(positive, dtype=bool)
    n = len(is_positive)
    if is_positive.all() or not is_positive.any():
        raise ValueError("the bootstrap needs patients of both classes")
    return draw(n, [is_positive, ~is_positive], resamples=resamples, seed=seed)


def draw(
    n: int, needed: Sequence[NDArray[np.bool_]], *, resamples: int = 2000, seed: int | Sequence[int] = 0
) -> Resamples:
    """Draw bootstrap samples of ``n`` patients with replacement, again where one of ``needed`` is not in the draw.

    ``needed``: masks (n,), none empty; the distribution is that of the bootstrap given a patient of each mask.
    """
    if resamples < 1:
        raise ValueError(f"found {resamples} resamples; expected at least 1")
    rng = np.random.default_rng(seed)
    counts = np.empty((resamples, n), dtype=np.int64)
    todo = np.arange(resamples)
    redrawn = 0
    while len(todo):
        drawn = rng.integers(n, size=(len(todo), n)) + n * np.arange(len(todo))[:, None]
        counts[todo] = np.bincount(drawn.ravel(), minlength=n * len(todo)).reshape(len(todo), n)
        lacks = np.zeros(len(todo), dtype=bool)
        for mask in needed:
            lacks |= counts[todo][:, mask].sum(axis=1) == 0
        todo = todo[lacks]
        redrawn += len(todo)
    return Resamples(counts, redrawn)


def blocks(resamples: int, rows: int, cells: int = _BLOCK_CELLS) -> list[slice]:
    """Return slices over the resamples that keep a block of (resamples, rows) within ``cells`` (as float64: 1 MB)."""
    step = max(1, cells // max(rows, 1))
    return [slice(start, start + step) for start in range(0, resamples, step)]


def percentile_interval(
    value: float | None,
    draws: ArrayLike,
    *,
    redrawn: int,
    seed: object,
    level: float = 0.95,
    lacking: str = "of one class",
) -> Interval:
    """Return the percentile interval of a metric from its bootstrap ``draws`` (resamples,), NaN where undefined.

    ``lacking`` says in the method's name which draws were drawn again.
    """
    values = np.asarray(draws, dtype=np.float64)
    defined = values[~np.isnan(values)]
    name = f"bootstrap {_percent(level)} (percentile, {len(values)} resamples of patients, seed {seed}"
    if redrawn:
        name += f"; {redrawn} draws {lacking} redrawn"
    if len(defined) < len(values):
        name += f"; undefined in {len(values) - len(defined)}, left out"
    if value is None or len(defined) == 0:
        return Interval(value, None, None, "none: the metric is undefined")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), name + ")")


def bootstrap_interval(
    metric: Callable[[Floats], ArrayLike],
    y: ArrayLike,
    patient_ids: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the percentile interval of any metric, resampling patients with all their rows.

    ``metric`` takes weights (resamples, rows), how often each row counts, and returns (resamples,), NaN if undefined.
    ``y`` 0/1 and ``patient_ids``: one a row; a patient may have several rows, all of one label. Draws of one class are
    drawn again. Rows may come in any order as far as the drawing is concerned: patients are sorted.
    Raises ValueError when there is one class only, or a patient has two labels.
    """
    labels = np.asarray(y)
    patients, place = np.unique(np.asarray(patient_ids, dtype=str), return_inverse=True)
    highest = np.zeros(len(patients), dtype=np.int64)
    np.maximum.at(highest, place, labels)
    if not np.array_equal(highest[place], labels):
        raise ValueError("a patient has rows of two labels")
    drawn = draw_patients(highest == 1, resamples=resamples, seed=seed)
    point = float(np.asarray(metric(np.ones((1, len(labels)))), dtype=np.float64)[0])
    draws = np.concatenate(
        [
            np.asarray(metric(drawn.counts[block][:, place].astype(np.float64)), dtype=np.float64)
            for block in blocks(resamples, len(labels))
        ]
    )
    value = None if np.isnan(point) else point
    return percentile_interval(value, draws, redrawn=drawn.redrawn, seed=seed, level=level)


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


def _quantile(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"found level {level}; expected a number between 0 and 1")
    return float(ndtri((1 + level) / 2))


def _percent(level: float) -> str:
    return f"{100 * level:g} %"
