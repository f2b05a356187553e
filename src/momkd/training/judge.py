"""How good predictions of validation patients are: one number an epoch, for whoever watches and for early stopping."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from momkd.experiment import TaskSettings

Floats = NDArray[np.float64]


def score_name(task: TaskSettings) -> str:
    """The column of the history: val_auc for classes (macro, one against the rest), else val_concordance."""
    return "val_auc" if task.type == "classification" else "val_concordance"


def score_words(task: TaskSettings) -> str:
    """What that column holds, for whoever watches."""
    if task.type != "classification":
        return "validation concordance"
    return "validation AUC" if task.binary else "validation macro AUC"


def judge(predictions: Floats, targets: Floats, task: TaskSettings) -> float:
    """AUC or concordance of patients: predictions (N, columns), targets (N, 2) as in ``models.outcome``.

    Concordance: the share of comparable pairs that the prediction puts in the right order, ties counting half; for
    survival these are Harrell's pairs. NaN where there is no pair, or no patient of a class.
    """
    if task.type == "classification":
        labels = targets[:, 0].astype(np.int64)
        if len(np.unique(labels)) < len(task.classes):
            return float("nan")
        by_class = [auc(labels == c, predictions[:, c]) for c in range(1 if task.binary else 0, len(task.classes))]
        return float(np.mean(by_class))
    score = predictions @ np.arange(predictions.shape[1]) if task.type == "ordinal" else predictions[:, 0]
    value = targets[:, 0]
    if task.type == "survival":
        earlier = (targets[:, 1] > 0)[:, None] & (value[:, None] < value[None, :])
    else:
        earlier = value[:, None] > value[None, :]
    higher = (score[:, None] > score[None, :]) + 0.5 * (score[:, None] == score[None, :])
    return float(higher[earlier].mean()) if earlier.any() else float("nan")


def what_lacks(targets: Floats, task: TaskSettings) -> str:
    """Why ``judge`` finds nothing to say of these targets whatever is predicted; empty where it has."""
    if not np.isnan(judge(np.zeros((len(targets), max(1, len(task.classes)))), targets, task)):
        return ""
    if task.type == "classification":
        return "the validation patients are not of all classes, so no AUC can choose the best epoch"
    return "no two validation patients can be compared (who was earlier, or higher?), so they cannot choose an epoch"


def auc(positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> float:
    """AUC by midranks, of some positive and some negative.

    Once an epoch, scikit-learn's checks of its arguments would cost as much as a training step.
    """
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    ranks = rankdata(scores)[positive].sum()
    return float((ranks - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
