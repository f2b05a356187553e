"""Binary metrics of patient predictions, for one sample or for thousands of weighted resamples at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

METRICS = (
    "auc",
    "auprc",
    "f1",
    "accuracy",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "brier",
    "ece",
)
ECE_BINS = 10


def binary_metrics(y: ArrayLike, prob_pos: ArrayLike, threshold: float | ArrayLike) -> dict[str, float | None]:
    """Return the metrics named in ``METRICS`` for labels 0/1 and probabilities of class 1, both (patients,).

    ``threshold``: one number, or one a patient; a patient is called positive when probability ≥ threshold.
    auc: ties count half. auprc: average precision, Σ (recall step) × precision over the distinct probabilities.
    brier: mean (probability − y)². ece: Σ share × |mean probability − share of positives| over the 10 bins [0, .1) …
    [.9, 1].
    A metric that is undefined (auc, auprc and balanced accuracy of one class; ppv when nobody is called positive; …) is
    None. Raises ValueError for other labels, probabilities outside [0, 1], unequal lengths, or no patient.
    """
    labels, probability = check_predictions(y, prob_pos)
    predicted = probability >= np.broadcast_to(np.asarray(threshold, dtype=np.float64), probability.shape)
    return first_of(weighted_metrics(labels, probability, predicted, np.ones((1, len(labels)))))


def first_of(found: Mapping[str, Floats]) -> dict[str, float | None]:
    """Return each metric of the first resample as a number, None where it is undefined (NaN)."""
    return {name: None if np.isnan(values[0]) else float(values[0]) for name, values in found.items()}


def check_predictions(y: ArrayLike, prob: ArrayLike) -> tuple[NDArray[np.int64], Floats]:
    """Return labels as int64 and probabilities as float64, both (patients,); ValueError says what is wrong."""
    labels, probability = np.asarray(y), np.asarray(prob, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != probability.shape or len(labels) == 0:
        raise ValueError(
            f"found labels of shape {labels.shape} and probabilities of shape {probability.shape}; expected (n,)"
        )
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"found labels {sorted(set(labels.tolist()))[:5]}; expected 0 and 1")
    # Written so that NaN fails too.
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("found probabilities that are NaN or outside [0, 1]")
    return labels.astype(np.int64), probability


def weighted_metrics(
    y: NDArray[np.int64], prob: Floats, predicted: NDArray[np.bool_], weights: ArrayLike
) -> dict[str, Floats]:
    """Return each metric of ``METRICS`` as float64 (resamples,), NaN where undefined.

    ``y``, ``prob``, ``predicted``: (rows,); ``weights``: (resamples, rows), how often each row counts in each resample.
    Inputs are taken as checked.
    """
    w = np.asarray(weights, dtype=np.float64)
    positive = y == 1
    total = w.sum(axis=1)
    tp = w[:, positive & predicted].sum(axis=1)
    fp = w[:, ~positive & predicted].sum(axis=1)
    fn = w[:, positive & ~predicted].sum(axis=1)
    tn = w[:, ~positive & ~predicted].sum(axis=1)
    sensitivity, specificity = ratio(tp, tp + fn), ratio(tn, tn + fp)
    auc, auprc = areas(positive, prob, w)
    return {
        "auc": auc,
        "auprc": auprc,
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "accuracy": ratio(tp + tn, total),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": ratio(tp, tp + fp),
        "npv": ratio(tn, tn + fn),
        "brier": ratio((w * (prob - y) ** 2).sum(axis=1), total),
        "ece": ratio(calibration_gap(y, prob, w), total),
    }


@dataclass(frozen=True, eq=False)
class CurvePoints:
    """ROC and precision–recall curves at each distinct probability, from the highest down, all float64.

    ``thresholds`` (cuts,): patients with probability ≥ threshold are called positive. ``fpr`` and ``tpr`` (cuts + 1,)
    begin with 0, 0, where nobody is. ``recall`` and ``precision`` (cuts,) belong to ``thresholds``; the area under
    their steps (each precision held back to the recall before) is auprc.
    """

    thresholds: Floats
    fpr: Floats
    tpr: Floats
    recall: Floats
    precision: Floats


def curve_points(y: ArrayLike, prob: ArrayLike) -> CurvePoints | None:
    """Return the points of both curves for labels 0/1 and probabilities (patients,), or None when one class is absent.

    Raises ValueError as ``binary_metrics`` does.
    """
    labels, probability = check_predictions(y, prob)
    thresholds, tp, fp = cuts(labels, probability)
    if tp[-1] == 0 or fp[-1] == 0:
        return None
    recall = tp / tp[-1]
    zero = np.zeros(1)
    return CurvePoints(
        thresholds=thresholds,
        fpr=np.concatenate([zero, fp / fp[-1]]),
        tpr=np.concatenate([zero, recall]),
        recall=recall,
        precision=tp / (tp + fp),
    )


def cuts(y: NDArray[np.int64], prob: Floats) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct probabilities, highest first, and the true and false positives at each; all (cuts,)."""
    order = np.argsort(-prob, kind="stable")
    last = np.append(np.diff(prob[order]) != 0, True)
    true = np.cumsum(y[order] == 1)[last]
    false = np.cumsum(y[order] == 0)[last]
    return prob[order][last], true, false


def areas(positive: NDArray[np.bool_], prob: Floats, w: Floats) -> tuple[Floats, Floats]:
    """Return AUC and average precision, each (resamples,), NaN where one class has no weight."""
    order = np.argsort(-prob, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(prob[order]) != 0))
    true = np.add.reduceat(np.where(positive[order], w[:, order], 0.0), first, axis=1)
    false = np.add.reduceat(np.where(positive[order], 0.0, w[:, order]), first, axis=1)
    tp, fp = np.cumsum(true, axis=1), np.cumsum(false, axis=1)
    n_positive, n_negative = tp[:, -1], fp[:, -1]
    # A positive wins against every negative below it: those not yet passed, ties counting half.
    wins = (true * (n_negative[:, None] - fp + 0.5 * false)).sum(axis=1)
    auc = ratio(wins, n_positive * n_negative)
    steps = np.divide(true * tp, tp + fp, out=np.zeros_like(tp), where=tp + fp > 0).sum(axis=1)
    auprc = np.where(n_negative > 0, ratio(steps, n_positive), np.nan)
    return auc, auprc


def calibration_gap(y: NDArray[np.int64], prob: Floats, w: Floats) -> Floats:
    """Return Σ over bins of |Σ weight·(probability − y)|, (resamples,)."""
    bins = np.minimum((prob * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    gap = np.zeros(w.shape[0])
    for number in np.unique(bins):
        inside = bins == number
        gap += np.abs((w[:, inside] * (prob - y)[inside]).sum(axis=1))
    return gap


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Return numerator / denominator, NaN where the denominator is not positive."""
    out: Floats = np.full(denominator.shape, np.nan)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out
