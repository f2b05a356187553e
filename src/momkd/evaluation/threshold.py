"""The threshold of a fold, chosen on its validation patients."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from momkd.errors import SplitError
from momkd.evaluation.metrics import check_predictions, cuts


class MaxF1Threshold(BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """The threshold of highest F1; a patient is called positive when probability ≥ ``threshold_``.

    Of several best cuts the lowest is taken (the most sensitive). The threshold lies in the middle between the lowest
    probability called positive and the next lower one (0 when everybody is called positive): every value between them
    decides alike on these patients, and the middle is the least tied to them. After ``fit``: ``threshold_``, ``f1_``.
    """

    def fit(self, y: ArrayLike, prob: ArrayLike) -> Self:
        """Choose the threshold for labels 0/1 and probabilities of class 1, both (patients,).

        Raises SplitError when the patients are of one class; ValueError as ``binary_metrics`` does.
        """
        labels, probability = check_predictions(y, prob)
        values, tp, fp = cuts(labels, probability)
        if tp[-1] == 0 or fp[-1] == 0:
            raise SplitError(
                f"a threshold cannot be chosen: all {len(labels)} validation patients are of class {labels[0]} (0: the "
                "first, 1: the last); expected both → raise cv.validation, lower cv.folds, or give cv.splits"
            )
        # 2·tp + fp + fn = tp + fp + all positives. Equal fractions are equal floats, so ties are exact.
        f1 = 2 * tp / (tp + fp + tp[-1])
        best = int(np.flatnonzero(f1 == f1.max())[-1])
        upper = float(values[best])
        lower = float(values[best + 1]) if best + 1 < len(values) else 0.0
        middle = lower + (upper - lower) / 2
        # Between neighbouring floats the middle rounds to one of them, and the lower one must stay negative.
        self.threshold_ = middle if middle > lower else upper
        self.f1_ = float(f1[best])
        return self

    def predict(self, prob: ArrayLike) -> NDArray[np.int64]:
        """Return 1 where probability ≥ ``threshold_``, else 0."""
        return (np.asarray(prob, dtype=np.float64) >= self.threshold_).astype(np.int64)
