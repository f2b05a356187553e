"""Pictures of more than two classes: a ROC a class, confusion matrix, expected class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from momkd.evaluation.metrics import binary_metrics, curve_points
from momkd.evaluation.ordinal import ordinal_metrics
from momkd.report.figures import CHANCE, FOLD, GRID, MEAN, head, label_square, save, spread


def draw_classes(predictions: pd.DataFrame, classes: Sequence[str], title: str, target: Path) -> Path:
    """ROC of each class against the others (mean over folds), and the confusion matrix of the most probable class."""
    figure = Figure(figsize=(9.6, 4.8), layout="constrained")
    roc, matrix = figure.subplots(1, 2)
    colours = matplotlib.colormaps["tab10" if len(classes) <= 10 else "tab20"]
    for number, name in enumerate(classes):
        curves, areas = [], []
        for _, fold in predictions.groupby(["repeat", "fold"]):
            own = (fold["label"] == name).to_numpy().astype(np.int64)
            prob = fold[f"prob_{name}"].to_numpy(dtype=np.float64)
            points = curve_points(own, prob)
            if points is not None:
                curves.append(np.interp(GRID, points.fpr, points.tpr))
                areas.append(binary_metrics(own, prob, 0.5)["auc"] or 0.0)
        if curves:
            mean = np.mean(curves, axis=0)
            mean[0] = 0.0
            roc.plot(GRID, mean, color=colours(number % colours.N), lw=1.6, label=f"{name}  {spread(areas)}")
    roc.plot([0, 1], [0, 1], color=CHANCE, lw=0.8, ls="--", label="chance")
    label_square(roc, "1 − specificity", "sensitivity (class against others)", "lower right")
    _confusion(matrix, predictions, classes)
    head(figure, title, predictions)
    return save(figure, target)


def draw_ordinal(predictions: pd.DataFrame, classes: Sequence[str], title: str, target: Path) -> Path:
    """Confusion matrix of the most probable class, and the expected class Σ c·p_c of the patients of each class."""
    figure = Figure(figsize=(9.6, 4.8), layout="constrained")
    matrix, boxes = figure.subplots(1, 2)
    _confusion(matrix, predictions, classes)
    prob = _probabilities(predictions, classes)
    expected = prob @ np.arange(len(classes), dtype=np.float64)
    labels = _labels(predictions, classes)
    rng = np.random.default_rng(0)
    for number in range(len(classes)):
        own = expected[labels == number]
        boxes.plot(number + rng.uniform(-0.18, 0.18, len(own)), own, "o", color=FOLD, ms=3, alpha=0.7, mew=0)
        if len(own):
            low, middle, high = np.quantile(own, [0.25, 0.5, 0.75])
            boxes.plot([number - 0.28, number + 0.28], [middle, middle], color=MEAN, lw=2)
            boxes.plot([number, number], [low, high], color=MEAN, lw=1.2)
    found = ordinal_metrics(labels, prob)
    shown = {"kappa": found["kappa"], "Spearman": found["spearman"]}
    text = ", ".join(f"{name} {value:.3f}" for name, value in shown.items() if value is not None)
    boxes.set_title(text, fontsize=9)
    _ticks(boxes, classes)
    boxes.set(xlabel="observed class", ylabel="expected class (line: median, quartiles)")
    boxes.grid(alpha=0.25)
    head(figure, title, predictions)
    return save(figure, target)


def _confusion(axes: Axes, predictions: pd.DataFrame, classes: Sequence[str]) -> None:
    """Shares of each observed class, with the number of predictions (a patient counts once a repeat)."""
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (_labels(predictions, classes), _probabilities(predictions, classes).argmax(axis=1)), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
    for row, column in np.ndindex(counts.shape):
        text = f"{share[row, column]:.0%}\n{counts[row, column]}"
        colour = "white" if share[row, column] > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    _ticks(axes, classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted (most probable) class", ylabel="observed class")


def _ticks(axes: Axes, classes: Sequence[str]) -> None:
    slanted = sum(map(len, classes)) > 40
    axes.set_xticks(range(len(classes)), classes, rotation=30 if slanted else 0, ha="right" if slanted else "center")


def _labels(predictions: pd.DataFrame, classes: Sequence[str]) -> NDArray[np.int64]:
    position = {name: number for number, name in enumerate(classes)}
    return np.array([position[name] for name in predictions["label"]], dtype=np.int64)


def _probabilities(predictions: pd.DataFrame, classes: Sequence[str]) -> NDArray[np.float64]:
    return predictions[[f"prob_{name}" for name in classes]].to_numpy(dtype=np.float64)
