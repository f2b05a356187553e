"""Gene selection: scikit-learn estimators, fitted on the training patients of one fold.

Every selector orders genes best first; genes of equal score come in the order of their names. Rows and columns are
brought into a canonical order before anything is computed, so that permuting them changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import xgboost
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from momkd.errors import OmicsError, summarise
from momkd.experiment import SelectSettings

_BLOCK_GENES = 1024
# xgboost's default of 256 bins spends its time on bins: 64 are 2.7 times faster for 20 000 genes, and leave 16 patients
# of 1000 in a bin.
_MAX_BIN = 64


@dataclass(frozen=True, eq=False)
class _Training:
    """What a selector ranks by: patients × genes in the order of their names, and class numbers."""

    values: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    names: list[str]


class GeneSelector(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """Base of the selectors: a subclass ranks genes, this class does the rest.

    After ``fit``: ``genes_`` (names, best first), ``scores_`` (float64, aligned with ``genes_``), ``selected_`` (their
    positions among the columns of X), ``feature_names_in_``, ``n_features_in_``, ``notes_``. ``supervised``: the labels
    decide, so that the choice knows the labels of the patients given to ``fit``.
    """

    supervised: ClassVar[bool] = False

    def fit(self, X: pd.DataFrame, y: ArrayLike | None = None) -> Self:
        """Rank the genes of ``X`` (patients × genes) for the class numbers ``y`` (patients,), aligned by position.

        Raises OmicsError for values that are not finite, repeated gene names, or labels that cannot serve; ValueError
        when ``y`` does not fit ``X``.
        """
        labels = _labels(X, y)
        names = [str(name) for name in X.columns]
        if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
            raise OmicsError(f"gene selection: repeated gene names {summarise(repeated)}; expected unique names")
        if X.shape[0] == 0 or X.shape[1] == 0:
            raise OmicsError(f"gene selection: found {X.shape[0]} patients × {X.shape[1]} genes; expected some of both")
        rows = row_order(X)
        columns = np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64)
        values = X.to_numpy(dtype=np.float32)[np.ix_(rows, columns)]
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0].tolist()
            raise OmicsError(f"gene {names[columns[column]]!r}, patient {X.index[rows[row]]}: the value is not finite")
        ordered = [names[column] for column in columns]
        self.notes_: tuple[str, ...] = ()
        order, scores = self._rank(_Training(values, None if labels is None else labels[rows], ordered))
        self.genes_ = [ordered[position] for position in order]
        self.scores_ = scores
        self.selected_ = columns[order]
        self.feature_names_in_ = np.array(names, dtype=object)
        self.n_features_in_ = len(names)
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return the selected genes of ``X``, best first; OmicsError names genes that ``X`` lacks."""
        known = set(X.columns)
        missing = [gene for gene in self.genes_ if gene not in known]
        if missing:
            raise OmicsError(
                f"{len(missing)} of the {len(self.genes_)} selected genes are absent: {summarise(missing)}"
            )
        return X[self.genes_]

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[np.object_]:  # noqa: ARG002
        """Return the names of the selected genes, best first; ``input_features`` is scikit-learn's, and unused."""
        return np.array(self.genes_, dtype=object)

    def _rank(self, training: _Training) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the positions of the chosen genes, best first, and their scores."""
        raise NotImplementedError

    def _best(self, n: int, *keys: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the ``n`` positions of highest first key; ties by the next key, then by name."""
        if n < 1:
            raise ValueError(f"found n = {n}; expected at least 1 gene")
        if n >= len(keys[0]):
            self.notes_ = (f"all {len(keys[0])} genes are kept: {n} were asked for",)
        order = np.lexsort([np.arange(len(keys[0])), *(-key for key in reversed(keys))])
        return np.asarray(order[:n], dtype=np.int64)


class XGBoostSelector(GeneSelector):
    """The ``n`` genes of highest XGBoost importance (gain; 100 trees, depth 3, learning rate .01: spec of the method).

    So few shallow trees use far fewer genes than are asked for: genes of importance 0 (and ties) follow in the order of
    |Pearson correlation| with the label (largest over the classes), then of name. ``n_jobs`` changes the time only; the
    histograms have 64 bins.
    """

    supervised = True

    def __init__(self, n: int = 768, seed: int = 0, n_jobs: int = 1) -> None:
        self.n = n
        self.seed = seed
        self.n_jobs = n_jobs

    def _rank(self, training: _Training) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        if training.labels is None:
            raise ValueError("gene selection by xgboost needs the labels y")
        classes, numbers = np.unique(training.labels, return_inverse=True)
        if len(classes) < 2:
            raise OmicsError(
                f"gene selection: all {len(training.labels)} training patients are of one class; expected two → check "
                "the labels, or choose omics.select.method: variance"
            )
        model = xgboost.XGBClassifier(
            n_estimators=100,
            max_depth=3,
            learning_rate=0.01,
            tree_method="hist",
            max_bin=_MAX_BIN,
            importance_type="gain",
            n_jobs=self.n_jobs,
            random_state=self.seed,
        ).fit(training.values, numbers)
        importance = np.asarray(model.feature_importances_, dtype=np.float64)
        order = self._best(self.n, importance, _correlation(training.values, numbers))
        return order, importance[order]


class VarianceSelector(GeneSelector):
    """The ``n`` genes of highest population variance."""

    def __init__(self, n: int = 768) -> None:
        self.n = n

    def _rank(self, training: _Training) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        score = np.concatenate([block.var(axis=0) for block in _blocks(training.values)])
        order = self._best(self.n, score)
        return order, score[order]


class MADSelector(GeneSelector):
    """The ``n`` genes of highest median absolute deviation from the median (not scaled)."""

    def __init__(self, n: int = 768) -> None:
        self.n = n

    def _rank(self, training: _Training) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        score = np.concatenate([np.median(np.abs(b - np.median(b, axis=0)), axis=0) for b in _blocks(training.values)])
        order = self._best(self.n, score)
        return order, score[order]


class ListSelector(GeneSelector):
    """The given genes, in the given order; scores are NaN. Raises OmicsError naming absent or repeated genes."""

    def __init__(self, genes: Sequence[str] = ()) -> None:
        self.genes = genes

    def _rank(self, training: _Training) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        position = {name: index for index, name in enumerate(training.names)}
        missing = sorted({gene for gene in self.genes if gene not in position})
        repeated = sorted(gene for gene, count in Counter(self.genes).items() if count > 1)
        if not self.genes:
            raise OmicsError("omics.select.genes is empty; expected gene names → list them, or choose another method")
        if missing:
            raise OmicsError(
                f"omics.select.genes: {len(missing)} of {len(self.genes)} genes are not in the omics table: "
                f"{summarise(missing)}; it has {len(training.names)} genes → correct the list"
            )
        if repeated:
            raise OmicsError(f"omics.select.genes: listed several times: {summarise(repeated)} → list each gene once")
        order = np.array([position[gene] for gene in self.genes], dtype=np.int64)
        return order, np.full(len(order), np.nan)


class AllGenes(GeneSelector):
    """Every gene, in the order of their names; scores are NaN."""

    def _rank(self, training: _Training) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        return np.arange(len(training.names)), np.full(len(training.names), np.nan)


def make_selector(settings: SelectSettings, seed: int) -> GeneSelector:
    """Return the selector that the experiment file asks for; ``seed`` serves xgboost."""
    if settings.method == "xgboost":
        return XGBoostSelector(settings.n, seed)
    if settings.method == "variance":
        return VarianceSelector(settings.n)
    if settings.method == "mad":
        return MADSelector(settings.n)
    if settings.method == "list":
        return ListSelector(settings.genes)
    return AllGenes()


def row_order(X: pd.DataFrame) -> NDArray[np.int64]:
    """Return the positions of the rows in the order of their ids; the last bits of a sum depend on its order."""
    return np.array(sorted(range(len(X)), key=lambda row: str(X.index[row])), dtype=np.int64)


def _labels(X: pd.DataFrame, y: ArrayLike | None) -> NDArray[np.int64] | None:
    """Return y as class numbers aligned with the rows of X."""
    if y is None:
        return None
    if isinstance(y, pd.Series) and not y.index.equals(X.index):
        raise ValueError("the patients of y are not those of X in the same order")
    labels: NDArray[Any] = np.asarray(y)
    if labels.shape != (len(X),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"found y of shape {labels.shape}, {labels.dtype}; expected {len(X)} class numbers (integers)")
    return labels.astype(np.int64)


def _blocks(values: NDArray[np.float32]) -> Iterator[NDArray[np.float64]]:
    """Yield the columns in float64, a bounded number at a time."""
    for start in range(0, values.shape[1], _BLOCK_GENES):
        yield values[:, start : start + _BLOCK_GENES].astype(np.float64)


def _correlation(values: NDArray[np.float32], numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each gene's largest |Pearson correlation| with the indicator of a class; 0 for a constant gene."""
    indicators = (numbers[:, None] == np.arange(numbers.max() + 1)).astype(np.float64)
    indicators -= indicators.mean(axis=0)
    result = []
    for block in _blocks(values):
        centred = block - block.mean(axis=0)
        # Sums along the patients, not a matrix product: equal columns then give equal bits wherever they stand.
        products = np.stack([(centred * indicator[:, None]).sum(axis=0) for indicator in indicators.T])
        norms = np.sqrt((centred**2).sum(axis=0) * (indicators**2).sum(axis=0)[:, None])
        result.append(np.abs(np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)).max(axis=0))
    return np.concatenate(result)
