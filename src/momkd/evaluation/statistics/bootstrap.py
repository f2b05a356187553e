"""The bootstrap over patients: each is drawn with all its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from momkd.evaluation.metrics import areas
from momkd.evaluation.statistics.interval import Floats, Interval, normal_quantile, percent

# Resamples × rows handled at once: small enough for a processor's cache, which halves the time.
_BLOCK_CELLS = 100_000


@dataclass(frozen=True, eq=False)
class Resamples:
    """Bootstrap draws: ``counts`` (resamples, patients) int64; ``redrawn`` draws lacked a class and were replaced."""

    counts: NDArray[np.int64]
    redrawn: int


@dataclass(frozen=True)
class PairedBootstrap:
    """Difference a − b of a metric on the same patients; what is undefined is None, and ``method`` says why."""

    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    method: str


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
    name = f"bootstrap {percent(level)} (percentile, {len(values)} resamples of patients, seed {seed}"
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


def paired_auc_bootstrap(
    y: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    clusters: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int | Sequence[int] = 0,
    level: float = 0.95,
) -> PairedBootstrap:
    """Test AUC(a) = AUC(b) where rows are not independent: clusters are resampled, both scores and all rows jointly.

    ``y`` 0/1, ``scores_a`` and ``scores_b`` float64, ``clusters`` (patients, or families, or sites), one a row; rows of
    a cluster may have different labels. The test is that of ``paired_bootstrap``. Raises ValueError when a class is
    absent, or lengths or values are not usable.
    """
    labels, a, b = np.asarray(y), np.asarray(scores_a, dtype=np.float64), np.asarray(scores_b, dtype=np.float64)
    if labels.ndim != 1 or not labels.shape == a.shape == b.shape == np.shape(clusters):
        raise ValueError(f"found shapes {labels.shape}, {a.shape}, {b.shape}, {np.shape(clusters)}; expected (n,) each")
    if not np.isin(labels, (0, 1)).all() or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("expected labels 0 and 1 and finite scores")
    positive = labels == 1
    if positive.all() or not positive.any():
        raise ValueError("the AUC needs patients of both classes")
    return paired_bootstrap(
        lambda w: areas(positive, a, w)[0],
        lambda w: areas(positive, b, w)[0],
        clusters,
        needed=[positive, ~positive],
        resamples=resamples,
        seed=seed,
        level=level,
    )


def paired_bootstrap(
    metric_a: Callable[[Floats], Floats],
    metric_b: Callable[[Floats], Floats],
    clusters: Sequence[str],
    *,
    needed: Sequence[NDArray[np.bool_]] = (),
    resamples: int = 2000,
    seed: int | Sequence[int] = 0,
    level: float = 0.95,
    cells: int = _BLOCK_CELLS,
) -> PairedBootstrap:
    """Test that two metrics of the same rows are equal, resampling clusters with all their rows, jointly for both.

    ``metric_a``, ``metric_b``: from weights (resamples, rows) to (resamples,), NaN where undefined. ``clusters``: one a
    row; they are sorted, so the order of the rows does not matter. ``needed``: masks (rows,); a draw without a row of
    each is drawn again. With s the standard deviation of the resampled differences, z = difference / s is taken as
    normal (Efron and Tibshirani 1993, chapter 13), and the limits are difference ± z(level) · s, so that they exclude 0
    exactly when p < 1 − level. ``cells``: resamples × rows handed to a metric at once.
    """
    z_level = normal_quantile(level)
    names, place = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    one = np.ones((1, len(place)))
    a, b = (None if np.isnan(value) else float(value) for value in (metric_a(one)[0], metric_b(one)[0]))
    if a is None or b is None:
        return PairedBootstrap(a, b, None, None, None, None, "none: the metric is undefined")
    masks = [np.bincount(place[mask], minlength=len(names)) > 0 for mask in needed]
    drawn = draw(len(names), masks, resamples=resamples, seed=seed)
    parts = []
    for block in blocks(resamples, len(place), cells):
        weights = drawn.counts[block][:, place].astype(np.float64)
        parts.append(metric_a(weights) - metric_b(weights))
    draws = np.concatenate(parts)
    defined = draws[~np.isnan(draws)]
    name = f"paired bootstrap {percent(level)} (normal, {resamples} resamples of {len(names)} clusters, seed {seed}"
    if drawn.redrawn:
        name += f"; {drawn.redrawn} draws redrawn"
    if len(defined) < len(draws):
        name += f"; undefined in {len(draws) - len(defined)}, left out"
    difference = a - b
    # Asked of the draws, because the deviation of equal numbers can round to something above zero.
    if len(defined) < 2 or np.ptp(defined) == 0.0:
        same = difference == 0.0 and len(defined) > 0
        why = "none: the resampled differences do not vary"
        return PairedBootstrap(a, b, difference, None, None, 1.0 if same else None, why)
    error = float(defined.std(ddof=1))
    half, p_value = z_level * error, float(2 * ndtr(-abs(difference) / error))
    return PairedBootstrap(a, b, difference, difference - half, difference + half, p_value, name + ")")
