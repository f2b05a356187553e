"""Metrics of classes in an order, for one sample or for thousands of weighted resamples at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from momkd.evaluation.continuous import spearman
from momkd.evaluation.metrics import Floats, first_of, ratio
from momkd.evaluation.multiclass import check_classes, one_against_rest

ORDINAL = ("kappa", "spearman", "macro_auc", "accuracy", "class_error")


def ordinal_metrics(y: ArrayLike, prob: ArrayLike) -> dict[str, float | None]:
    """Return the metrics named in ``ORDINAL`` for labels 0…C−1 in rising order (patients,) and probabilities (n, C).

    The predicted class ŷ is the most probable one (ties: the lower).
    kappa: Cohen's kappa with quadratic weights (Psychological Bulletin 1968), 1 − Σ (y − ŷ)² / Σ (y_i − ŷ_j)² / n, the
    second sum over all pairs of patients. spearman: of y and the expected class Σ_c c·p_c. macro_auc: mean over the
    classes of the AUC of p_c for the class against all others. accuracy: share of ŷ = y. class_error: mean |y − ŷ|.
    What is undefined (kappa and spearman of one class, macro_auc where a class is absent) is None. Raises ValueError as
    ``multiclass_metrics`` does.
    """
    labels, probability = check_classes(y, prob, np.shape(prob)[-1])
    return first_of(weighted_ordinal(labels, probability, np.ones((1, len(labels)))))


def weighted_ordinal(y: NDArray[np.int64], prob: Floats, weights: ArrayLike) -> dict[str, Floats]:
    """Return each metric as float64 (resamples,), NaN where undefined; arguments as for ``weighted_multiclass``."""
    w = np.asarray(weights, dtype=np.float64)
    total = w.sum(axis=1)
    predicted = prob.argmax(axis=1)
    off = (y - predicted).astype(np.float64)
    return {
        "kappa": _kappa(y, predicted, w),
        "spearman": spearman(y.astype(np.float64), prob @ np.arange(prob.shape[1], dtype=np.float64), w),
        "macro_auc": one_against_rest(y, prob, w).mean(axis=0),
        "accuracy": ratio(w @ (off == 0), total),
        "class_error": ratio(w @ np.abs(off), total),
    }


def _kappa(y: NDArray[np.int64], predicted: NDArray[np.int64], w: Floats) -> Floats:
    """Return the quadratic weighted kappa; the sum over pairs is n·Σy² + n·Σŷ² − 2·Σy·Σŷ."""
    a, b = y.astype(np.float64), predicted.astype(np.float64)
    total = w.sum(axis=1)
    chance = total * (w @ a**2) + total * (w @ b**2) - 2 * (w @ a) * (w @ b)
    return 1 - ratio(total * (w @ (a - b) ** 2), chance)
