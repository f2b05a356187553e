"""Linear models in closed form or nearly: ridge and logistic regression over a path of penalties, and calibration.

Features are standardised over the training slides; the penalty is in units of the mean squared length of a standardised
row, so that one grid suits every width. Everything is float64 and deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax
from scipy.stats import rankdata
from torch import Tensor

Floats = NDArray[np.float64]
# Penalties over the mean squared length of a row.
PENALTIES = tuple(10.0 ** np.arange(-1.5, 2.01, 0.5))


@dataclass(frozen=True, eq=False)
class Map:
    """Scores = features @ weightᵀ + bias: weight (O, D), bias (O,), float64."""

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Features (N, D) → scores (N, O)."""
        return features @ self.weight.T + self.bias


class Axes:
    """Standardised features (N, D) as left · singular · axesᵀ: a penalised solution lies in the span of the rows."""

    def __init__(self, features: Tensor) -> None:
        self.mean, deviation = features.mean(0), features.std(0, unbiased=False)
        # A column that does not vary says nothing, and is not to be divided by its rounding error.
        varies = deviation > 1e-9 * self.mean.abs().clamp(min=1e-3)
        self.scale = torch.where(varies, deviation, torch.inf)
        self.left, self.singular, self.axes = torch.linalg.svd((features - self.mean) / self.scale, full_matrices=False)
        self.unit = (self.singular.square().sum() / len(features)).clamp(min=1e-12)

    def back(self, weights: Tensor, bias: Tensor) -> Map:
        """A solution over the axes (rank, O) as one over raw features."""
        raw = (self.axes.T @ weights).T / self.scale
        return Map(raw, bias - raw @ self.mean)


# Axes of N rows and their goals → one map a penalty.
Path = Callable[[Axes, Tensor, Sequence[float]], list[Map]]


def ridge_path(axes: Axes, goal: Tensor, penalties: Sequence[float]) -> list[Map]:
    """Ridge regression of goals (N, O)."""
    average = goal.mean(0)
    seen = axes.left.T @ (goal - average)
    found = []
    for penalty in penalties:
        shrunk = (axes.singular / (axes.singular.square() + penalty * axes.unit)).unsqueeze(1) * seen
        found.append(axes.back(shrunk, average))
    return found


def logistic_path(
    axes: Axes, classes: Tensor, penalties: Sequence[float], *, n_classes: int | None = None
) -> list[Map]:
    """L2-penalised softmax regression of class numbers (N,): log-odds against the first class, (N, C − 1).

    ``n_classes`` C, where these rows need not be of every class; by default the largest number says it.
    """
    rows = (axes.left * axes.singular).numpy()
    labels = classes.numpy()
    n_scores = int(labels.max()) if n_classes is None else n_classes - 1
    start = np.zeros((rows.shape[1] + 1, n_scores))
    counts = np.bincount(labels, minlength=n_scores + 1).clip(min=0.5)
    start[-1] = np.log(counts[1:] / counts[0])
    found: list[Map] = []
    # From the largest penalty on, each solution is where the next one starts.
    for penalty in sorted(penalties, reverse=True):
        start = _softmax_regression(rows, labels, 0.25 * penalty * float(axes.unit), start)
        found.append(axes.back(torch.from_numpy(start[:-1].copy()), torch.from_numpy(start[-1].copy())))
    order = np.argsort(np.argsort([-penalty for penalty in penalties], kind="stable"), kind="stable")
    return [found[place] for place in order]


def _softmax_regression(rows: Floats, labels: NDArray[np.int64], penalty: float, start: Floats) -> Floats:
    n, shape = len(rows), start.shape
    targets = np.eye(shape[1] + 1)[labels]

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(shape)
        scores = rows @ weights[:-1] + weights[-1]
        log_prob = log_softmax(np.column_stack([np.zeros(n), scores]), axis=1)
        error = (np.exp(log_prob) - targets)[:, 1:]
        slope = np.vstack([rows.T @ error + penalty * weights[:-1], error.sum(0)])
        value = -float((log_prob * targets).sum()) + 0.5 * penalty * float((weights[:-1] ** 2).sum())
        return value / n, slope.ravel() / n

    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 100, "gtol": 1e-6})
    solution: Floats = found.x.reshape(shape)
    return solution


class LeftOut:
    """Features (N, D) without each part (N,) in turn: decomposed once, whatever is asked of them."""

    def __init__(self, features: Tensor, part: Tensor) -> None:
        self._features = features
        self._inside = [part == number for number in torch.unique(part).tolist()]
        self._axes = [Axes(features[~inside]) for inside in self._inside]

    def scores(self, path: Path, goal: Tensor, penalties: Sequence[float]) -> Tensor:
        """Scores of every row by maps that did not see its part: (penalties, N, O)."""
        found: Tensor | None = None
        for inside, axes in zip(self._inside, self._axes, strict=True):
            told = torch.stack([one(self._features[inside]) for one in path(axes, goal[~inside], penalties)])
            if found is None:
                found = told.new_zeros(len(penalties), len(self._features), told.shape[2])
            found[:, inside] = told
        if found is None:
            raise ValueError("no parts")
        return found


def macro_auc(scores: Tensor, classes: Tensor) -> float:
    """Mean AUC of each class against the others, by log-odds against the first class (N, C − 1); of two, the AUC."""
    full = np.column_stack([np.zeros(len(scores)), scores.numpy()])
    labels = classes.numpy()
    chosen = range(1, 2) if full.shape[1] == 2 else range(full.shape[1])
    prob = np.exp(log_softmax(full, axis=1)) if full.shape[1] > 2 else full
    return float(np.mean([_auc(prob[:, c], labels == c) for c in chosen]))


def _auc(score: Floats, positive: NDArray[np.bool_]) -> float:
    n = int(positive.sum())
    if n in (0, len(positive)):
        return 0.5
    ranks = rankdata(score)
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(positive) - n)))


def calibrated(one: Map, scores: Tensor, classes: Tensor) -> Map:
    """A map whose scores are brought to log-odds by one slope and the classes' own biases (Platt 1999).

    ``scores`` (N, O) are those of rows that its likes did not see: a slope fitted on seen rows would be too steep.
    """
    n_scores, values = scores.shape[1], scores.numpy()
    labels = classes.numpy()
    targets = np.eye(n_scores + 1)[labels]

    def loss(flat: Floats) -> tuple[float, Floats]:
        log_prob = log_softmax(np.column_stack([np.zeros(len(values)), flat[0] * values + flat[1:]]), axis=1)
        error = (np.exp(log_prob) - targets)[:, 1:]
        slope = np.concatenate([[(error * values).sum()], error.sum(0)])
        return -float((log_prob * targets).sum()) / len(values), slope / len(values)

    # The slope stays above zero: calibration never turns a ranking round.
    bounds = [(1e-3, 1e3)] + [(-50.0, 50.0)] * n_scores
    spread = max(float(values.std()), 1e-9)
    found = minimize(loss, [1.0 / spread, *np.zeros(n_scores)], jac=True, method="L-BFGS-B", bounds=bounds)
    slope, bias = float(found.x[0]), torch.from_numpy(found.x[1:].copy())
    return Map(slope * one.weight, slope * one.bias + bias)
