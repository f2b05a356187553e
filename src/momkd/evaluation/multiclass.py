"""Metrics of more than two classes without an order, for one sample or for thousands of weighted resamples at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from momkd.evaluation.metrics import Floats, areas, calibration_gap, first_of, ratio

# Probabilities are means of softmax outputs, written as text: their sum may round.
SUM_TOLERANCE = 1e-3


def multiclass_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the metrics, the primary one first; auc_<class> for each class."""
    of_class = tuple(f"auc_{name}" for name in classes)
    return ("macro_auc", "accuracy", "balanced_accuracy", "macro_f1", "brier", "ece", *of_class)


def multiclass_metrics(y: ArrayLike, prob: ArrayLike, classes: Sequence[str]) -> dict[str, float | None]:
    """Return the metrics of ``multiclass_names`` for labels 0…C−1 (patients,) and probabilities (patients, C).

    The predicted class ŷ is the most probable one (ties: the first).
    auc_<class>: AUC of the class's probability for the class against all others. macro_auc: mean of these.
    accuracy: share of ŷ = y. balanced_accuracy: mean over the classes of their recall, the share of ŷ = c among y = c.
    macro_f1: mean over the classes of 2·tp / (2·tp + fp + fn). brier: mean of Σ_c (p_c − [y = c])², from 0 to 2.
    ece: Σ share × |mean p_ŷ − accuracy| over the 10 bins of p_ŷ [0, .1) … [.9, 1].
    What needs patients of a class that is absent is None. Raises ValueError for labels or probabilities that are not
    usable.
    """
    labels, probability = check_classes(y, prob, len(classes))
    return first_of(weighted_multiclass(labels, probability, classes, np.ones((1, len(labels)))))


def check_classes(y: ArrayLike, prob: ArrayLike, n_classes: int) -> tuple[NDArray[np.int64], Floats]:
    """Return labels as int64 (patients,) and probabilities as float64 (patients, C); ValueError says what is wrong."""
    labels, probability = np.asarray(y), np.asarray(prob, dtype=np.float64)
    if labels.ndim != 1 or len(labels) == 0 or probability.shape != (len(labels), n_classes):
        raise ValueError(
            f"found labels of shape {labels.shape} and probabilities of shape {probability.shape}; expected (n,) and "
            f"(n, {n_classes})"
        )
    if not np.isin(labels, np.arange(n_classes)).all():
        raise ValueError(f"found labels {sorted(set(labels.tolist()))[:5]}; expected 0 … {n_classes - 1}")
    # Written so that NaN fails too.
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("found probabilities that are NaN or outside [0, 1]")
    if not (np.abs(probability.sum(axis=1) - 1) <= SUM_TOLERANCE).all():
        raise ValueError("found probabilities that do not add up to 1")
    return labels.astype(np.int64), probability


def weighted_multiclass(
    y: NDArray[np.int64], prob: Floats, classes: Sequence[str], weights: ArrayLike
) -> dict[str, Floats]:
    """Return each metric as float64 (resamples,), NaN where undefined.

    ``y`` (rows,), ``prob`` (rows, C), ``weights`` (resamples, rows): how often each row counts in each resample. Inputs
    are taken as checked.
    """
    w = np.asarray(weights, dtype=np.float64)
    total = w.sum(axis=1)
    predicted = prob.argmax(axis=1)
    right = (predicted == y).astype(np.int64)
    numbers = range(len(classes))
    own = np.stack([w[:, y == c].sum(axis=1) for c in numbers])
    called = np.stack([w[:, predicted == c].sum(axis=1) for c in numbers])
    true = np.stack([w[:, (y == c) & (predicted == c)].sum(axis=1) for c in numbers])
    f1 = np.where(own > 0, ratio(2 * true, own + called), np.nan)
    truth = (y[:, None] == np.arange(len(classes))).astype(np.float64)
    of_class = one_against_rest(y, prob, w)
    found = {
        "macro_auc": of_class.mean(axis=0),
        "accuracy": ratio(w @ right, total),
        "balanced_accuracy": ratio(true, own).mean(axis=0),
        "macro_f1": f1.mean(axis=0),
        "brier": ratio(w @ ((prob - truth) ** 2).sum(axis=1), total),
        "ece": ratio(calibration_gap(right, prob.max(axis=1), w), total),
    }
    return found | {f"auc_{name}": of_class[c] for c, name in enumerate(classes)}


def one_against_rest(y: NDArray[np.int64], prob: Floats, w: Floats) -> Floats:
    """Return the AUC of each class against all others, (C, resamples), NaN where the class or the others are absent."""
    return np.stack([areas(y == c, prob[:, c], w)[0] for c in range(prob.shape[1])])
