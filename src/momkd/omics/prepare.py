"""From a table of genes to the teacher's input: selection and scaling as one estimator."""

from __future__ import annotations

from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from momkd.experiment import OmicsSettings
from momkd.omics.scale import make_scaler
from momkd.omics.select import make_selector, row_order


class OmicsPreparer(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """Selects genes and scales them, both fitted on the patients given to ``fit``: the training patients of a fold.

    Uses ``settings.select`` and ``settings.scale``; the table's transform is done when it is read. After ``fit``:
    ``genes_`` (names, best first: the columns of the output), ``selector_``, ``scaler_``, ``notes_``.
    """

    def __init__(self, settings: OmicsSettings, seed: int = 0) -> None:
        self.settings = settings
        self.seed = seed

    def fit(self, X: pd.DataFrame, y: ArrayLike | None = None) -> Self:
        """Choose genes and learn their scale from ``X`` (patients × genes) and the class numbers ``y`` (patients,).

        Raises OmicsError as the selectors do.
        """
        self.selector_ = make_selector(self.settings.select, self.seed).fit(X, y)
        self.genes_: tuple[str, ...] = tuple(self.selector_.genes_)
        self.notes_: tuple[str, ...] = self.selector_.notes_
        chosen = self.selector_.transform(X).to_numpy(dtype=np.float64)[row_order(X)]
        self.scaler_ = make_scaler(self.settings.scale).fit(chosen)
        return self

    def transform(self, X: pd.DataFrame) -> NDArray[np.float32]:
        """Return the scaled genes (patients, genes) float32, rows as in ``X``, columns as in ``genes_``.

        Raises OmicsError naming selected genes that ``X`` lacks.
        """
        return np.asarray(self.scaler_.transform(self.select(X)), dtype=np.float32)

    def select(self, X: pd.DataFrame) -> NDArray[np.float64]:
        """Return the selected genes (patients, genes) float64, not scaled. Raises as ``transform`` does."""
        return np.asarray(self.selector_.transform(X).to_numpy(dtype=np.float64))

    def genes_table(self) -> pd.DataFrame:
        """Return rank (from 1), gene and score (float64; NaN where the method has none), best first."""
        ranks = np.arange(1, len(self.genes_) + 1)
        return pd.DataFrame({"rank": ranks, "gene": list(self.genes_), "score": self.selector_.scores_})
