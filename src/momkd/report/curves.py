"""The pictures of a run, as PNG: those of its task (ROC and precision–recall here) and its learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from momkd.evaluation.metrics import binary_metrics, curve_points
from momkd.experiment import TaskSettings
from momkd.report.classes import draw_classes, draw_ordinal
from momkd.report.figures import CHANCE, FOLD, GRID, MEAN, head, label_square, members_of, save, spread
from momkd.report.memory import draw_memory, has_memory
from momkd.report.outcomes import draw_survival, draw_values
from momkd.report.reliability import draw_reliability
from momkd.study.run_folder import RunFolder


def draw_run(run: Path, task: TaskSettings) -> list[Path]:
    """Draw curves.png and, of two classes, calibration.png from predictions.csv; learning.png where a loss
    was followed, and memory.png where the histories say anything of a memory; returns the files.
    """
    folder = RunFolder(run)
    predictions = folder.predictions(task)
    drawn = [draw_outcome(predictions, task, run / "curves.png")]
    if task.binary and role_shown(predictions) == "test":
        drawn.append(draw_reliability(predictions, task, outcome_title(predictions, task), run / "calibration.png"))
    histories = folder.histories()
    if has_learning(histories):
        drawn.append(draw_learning(histories, run / "learning.png"))
    if has_memory(histories):
        drawn.append(draw_memory(histories, task.classes, run / "memory.png"))
    return drawn


def role_shown(predictions: pd.DataFrame) -> str:
    """The role that a picture is about: test, or val where nobody was tested."""
    return "test" if (predictions["role"] == "test").any() else "val"


def outcome_title(predictions: pd.DataFrame, task: TaskSettings) -> str:
    """What the pictures of a run's predictions are called."""
    of = f": {task.classes[-1]} against {task.classes[0]}" if task.binary else ""
    return f"{task.label}{of}, {role_shown(predictions)} patients"


def draw_outcome(predictions: pd.DataFrame, task: TaskSettings, target: Path) -> Path:
    """The picture of a task's predictions, of the test patients where there are any.

    Two classes: ROC and precision–recall. More: a ROC a class, and the confusion matrix. Ordinal: the confusion matrix
    and the expected class by class. Continuous: predicted against observed. Survival: Kaplan–Meier curves by risk.
    """
    shown, title = predictions[predictions["role"] == role_shown(predictions)], outcome_title(predictions, task)
    if task.type == "continuous":
        return draw_values(shown, title, target)
    if task.type == "survival":
        return draw_survival(shown, title, target)
    if task.type == "ordinal":
        return draw_ordinal(shown, task.classes, title, target)
    draw = draw_curves if task.binary else draw_classes
    return draw(shown, task.classes, title, target)


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
        roc.plot(points.fpr, points.tpr, color=FOLD, lw=0.8)
        pr.step(points.recall, points.precision, color=FOLD, lw=0.8, where="pre")
        sensitivities.append(np.interp(GRID, points.fpr, points.tpr))
        precisions.append(np.interp(GRID, points.recall, points.precision))
        metrics = binary_metrics(labels, prob, 0.5)
        areas.append(metrics["auc"] or 0.0)
        averages.append(metrics["auprc"] or 0.0)
    prevalence = float((predictions["label"] == positive).mean())
    roc.plot([0, 1], [0, 1], color=CHANCE, lw=0.8, ls="--", label="chance")
    pr.axhline(prevalence, color=CHANCE, lw=0.8, ls="--", label=f"prevalence {prevalence:.2f}")
    if areas:
        mean = np.mean(sensitivities, axis=0)
        mean[0] = 0.0
        roc.plot(GRID, mean, color=MEAN, lw=2, label=f"AUC {spread(areas)}")
        pr.plot(GRID, np.mean(precisions, axis=0), color=MEAN, lw=2, label=f"AUPRC {spread(averages)}")
    label_square(roc, "1 − specificity", "sensitivity", "lower right")
    label_square(pr, "recall (sensitivity)", "precision", "upper right")
    head(figure, title, predictions)
    return save(figure, target)


def has_learning(histories: Sequence[pd.DataFrame]) -> bool:
    """Whether there is a loss to draw: a method that is solved has none."""
    return any("loss_total" in history.columns for history in histories)


def draw_learning(histories: Sequence[pd.DataFrame], target: Path) -> Path:
    """Training loss and the validation metric (the history's first column val_…) over the epochs, a line a fit."""
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    loss, area = figure.subplots(1, 2)
    name = next(column for column in histories[0].columns if column.startswith("val_"))
    for history in members_of(histories):
        loss.plot(history["epoch"], history["loss_total"], color=MEAN, lw=0.8, alpha=0.6)
        area.plot(history["epoch"], history[name], color=MEAN, lw=0.8, alpha=0.6)
        best = int(history[name].to_numpy().argmax())
        area.plot(history["epoch"].iloc[best], history[name].iloc[best], "o", color=MEAN, ms=3)
    loss.set(xlabel="epoch", ylabel="training loss")
    shown = name.removeprefix("val_").replace("_", " ").replace("auc", "AUC")
    area.set(xlabel="epoch", ylabel=f"validation {shown}")
    for axes in (loss, area):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
    return save(figure, target)
