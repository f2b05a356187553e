"""ROC, precision–recall and learning curves of a run, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from momkd.evaluation.metrics import binary_metrics, curve_points
from momkd.files import atomic_path

_FOLD, _MEAN, _CHANCE = "#9ecae1", "#08519c", "#999999"
_GRID = np.linspace(0.0, 1.0, 201)


def draw_run(run: Path, label: str, classes: Sequence[str]) -> list[Path]:
    """Draw curves.png from predictions.csv, and learning.png where folds left a history; returns the files."""
    predictions = pd.read_csv(run / "predictions.csv", dtype={"label": str}, keep_default_na=False)
    role = "test" if (predictions["role"] == "test").any() else "val"
    title = f"{label}: {classes[-1]} against {classes[0]}, {role} patients"
    drawn = [draw_curves(predictions[predictions["role"] == role], classes, title, run / "curves.png")]
    histories = sorted(run.glob("fold-*/history.csv"))
    if histories:
        drawn.append(draw_learning([pd.read_csv(path) for path in histories], run / "learning.png"))
    return drawn


def draw_curves(predictions: pd.DataFrame, classes: Sequence[str], title: str, target: Path) -> Path:
    """ROC and precision–recall, a thin line a fold and a thick one for their mean; folds of one class are left out."""
    positive = classes[-1]
    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    roc, pr = figure.subplots(1, 2)
    sensitivities, areas, precisions, averages = [], [], [], []
    for _, fold in predictions.groupby(["repeat", "fold"]):
        labels = (fold["label"] == positive).to_numpy().astype(np.int64)
        prob = fold[f"prob_{positive}"].to_numpy()
        points = curve_points(labels, prob)
        if points is None:
            continue
        roc.plot(points.fpr, points.tpr, color=_FOLD, lw=0.8)
        pr.step(points.recall, points.precision, color=_FOLD, lw=0.8, where="pre")
        sensitivities.append(np.interp(_GRID, points.fpr, points.tpr))
        precisions.append(np.interp(_GRID, points.recall, points.precision))
        metrics = binary_metrics(labels, prob, 0.5)
        areas.append(metrics["auc"] or 0.0)
        averages.append(metrics["auprc"] or 0.0)
    prevalence = float((predictions["label"] == positive).mean())
    roc.plot([0, 1], [0, 1], color=_CHANCE, lw=0.8, ls="--", label="chance")
    pr.axhline(prevalence, color=_CHANCE, lw=0.8, ls="--", label=f"prevalence {prevalence:.2f}")
    if areas:
        mean = np.mean(sensitivities, axis=0)
        mean[0] = 0.0
        roc.plot(_GRID, mean, color=_MEAN, lw=2, label=f"AUC {_spread(areas)}")
        pr.plot(_GRID, np.mean(precisions, axis=0), color=_MEAN, lw=2, label=f"AUPRC {_spread(averages)}")
    _label(roc, "1 − specificity", "sensitivity", "lower right")
    _label(pr, "recall (sensitivity)", "precision", "upper right")
    folds = predictions[["repeat", "fold"]].drop_duplicates()
    patients = predictions["patient_id"].nunique()
    figure.suptitle(f"{title} · {patients} patients, {len(folds)} fold{'s' * (len(folds) > 1)}", fontsize=11)
    return _save(figure, target)


def draw_learning(histories: Sequence[pd.DataFrame], target: Path) -> Path:
    """Training loss and validation AUC over the epochs, a line a fold."""
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    loss, area = figure.subplots(1, 2)
    for history in histories:
        loss.plot(history["epoch"], history["loss_total"], color=_MEAN, lw=0.8, alpha=0.6)
        area.plot(history["epoch"], history["val_auc"], color=_MEAN, lw=0.8, alpha=0.6)
        best = int(history["val_auc"].to_numpy().argmax())
        area.plot(history["epoch"].iloc[best], history["val_auc"].iloc[best], "o", color=_MEAN, ms=3)
    loss.set(xlabel="epoch", ylabel="training loss")
    area.set(xlabel="epoch", ylabel="validation AUC")
    for axes in (loss, area):
        axes.grid(alpha=0.25)
    return _save(figure, target)


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def _label(axes: Axes, x: str, y: str, place: Literal["lower right", "upper right"]) -> None:
    axes.set(xlabel=x, ylabel=y, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_aspect("equal")
    axes.grid(alpha=0.25)
    axes.legend(loc=place, fontsize=9, frameon=False)


def _save(figure: Figure, target: Path) -> Path:
    FigureCanvasAgg(figure)
    with atomic_path(target) as temporary:
        # No software version in the file: the same run gives the same bytes.
        figure.savefig(temporary, dpi=150, metadata={"Software": None})
    return target
