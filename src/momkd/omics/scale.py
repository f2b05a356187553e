"""Scaling of gene values, fitted on the training patients of one fold."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.preprocessing import FunctionTransformer, StandardScaler

# A gene that hardly varies among the training patients would turn rounding into a signal.
_SMALLEST_DEVIATION = 1e-6


class WinsorScaler(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """Clips each gene to its ``tail`` and 1 − ``tail`` training quantiles, then standardises it; constants become 0.

    Expression has tails of hundreds of standard deviations; without the clipping a few patients decide what is learnt.
    After ``fit``: ``low_``, ``high_``, ``mean_``, ``scale_``, each (genes,).
    """

    def __init__(self, tail: float = 0.01) -> None:
        self.tail = tail

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: ARG002 - the interface of scikit-learn
        """Learn the bounds and the scale from ``X`` (patients, genes)."""
        values = np.asarray(X, dtype=np.float64)
        self.low_, self.high_ = np.quantile(values, [self.tail, 1.0 - self.tail], axis=0)
        clipped = np.clip(values, self.low_, self.high_)
        self.mean_, deviation = clipped.mean(axis=0), clipped.std(axis=0)
        self.scale_ = np.where(deviation <= _SMALLEST_DEVIATION * np.abs(self.mean_), np.inf, deviation)
        self.scale_[deviation == 0] = np.inf
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the scaled genes (patients, genes) float64."""
        clipped = np.clip(np.asarray(X, dtype=np.float64), self.low_, self.high_)
        return np.asarray((clipped - self.mean_) / self.scale_)


def make_scaler(kind: Literal["none", "standard", "winsor"]) -> FunctionTransformer | StandardScaler | WinsorScaler:
    """Return the scaler that the experiment file asks for: identity, (x − mean) / population sd, or ``WinsorScaler``.

    A gene that is constant among the patients of ``fit`` is 0 for them. Raises ValueError for another ``kind``.
    """
    if kind == "winsor":
        return WinsorScaler()
    if kind == "standard":
        return StandardScaler()
    if kind == "none":
        return FunctionTransformer(feature_names_out="one-to-one")
    raise ValueError(f"found scale {kind!r}; expected none, standard or winsor")
