"""Decision curves: whether acting on the prediction does more good than treating everybody, or nobody."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from momkd.evaluation.metrics import check_predictions

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DecisionCurve:
    """Net benefit at each threshold probability, all float64 (thresholds,), in true positives a patient.

    ``model``: those at or above the threshold are treated. ``treat_all``, ``treat_none``: the two policies that need no
    model. ``n``: patients, ``prevalence``: their share of positives.
    """

    thresholds: Floats
    model: Floats
    treat_all: Floats
    treat_none: Floats
    n: int
    prevalence: float

    @property
    def avoided(self) -> Floats:
        """Treatments avoided a patient without missing a positive more than treating all; NaN at threshold 0."""
        odds = self.thresholds / (1 - self.thresholds)
        saved = self.model - self.treat_all
        return np.divide(saved, odds, out=np.full_like(odds, np.nan), where=odds > 0)


def decision_curve(y: ArrayLike, prob: ArrayLike, thresholds: ArrayLike | None = None) -> DecisionCurve:
    """Return the net benefit of a model (Vickers and Elkin, Medical Decision Making 2006).

    ``y`` 0/1 and ``prob`` of class 1, both (patients,). At the threshold probability t, at which a patient would just
    accept the treatment, a false positive costs t / (1 − t) of what a true positive is worth:

        net benefit = tp / n − fp / n · t / (1 − t)

    with those of probability ≥ t called positive. Treating all has prevalence − (1 − prevalence) · t / (1 − t), nobody
    has 0. The probabilities are taken at their word: calibrate them first. ``thresholds``: in [0, 1), by default 0.01,
    0.02 … 0.99. Patients of one class only are allowed: the definition needs no second one.
    Raises ValueError for labels, probabilities or thresholds that are not usable.
    """
    labels, probability = check_predictions(y, prob)
    chosen = np.arange(1, 100) / 100 if thresholds is None else np.asarray(thresholds, dtype=np.float64)
    # Written so that NaN fails too.
    if chosen.ndim != 1 or len(chosen) == 0 or not ((chosen >= 0) & (chosen < 1)).all():
        raise ValueError("expected threshold probabilities (thresholds,) with 0 ≤ threshold < 1")
    n = len(labels)
    below_positive, below_negative = (
        np.searchsorted(np.sort(probability[labels == label]), chosen, side="left") for label in (1, 0)
    )
    n_positive = int(labels.sum())
    odds = chosen / (1 - chosen)
    return DecisionCurve(
        thresholds=chosen,
        model=(n_positive - below_positive) / n - (n - n_positive - below_negative) / n * odds,
        treat_all=n_positive / n - (n - n_positive) / n * odds,
        treat_none=np.zeros_like(chosen),
        n=n,
        prevalence=n_positive / n,
    )
