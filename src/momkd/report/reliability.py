"""Can the probabilities be acted on? Calibration and decision curves of the test patients, two classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from momkd.errors import SplitError
from momkd.evaluation.calibration import CalibrationCurve, calibrate_predictions, calibration_curve
from momkd.evaluation.decision import decision_curve
from momkd.experiment import TaskSettings
from momkd.report.figures import CHANCE, MEAN, head, save

_CALIBRATED = "#d94801"


def draw_reliability(predictions: pd.DataFrame, task: TaskSettings, title: str, target: Path) -> Path:
    """Observed share by predicted probability, and net benefit by threshold: as predicted, and temperature-scaled.

    The temperature of a fold is fitted on its validation patients. Where that is not possible only what was predicted
    is shown. Bins hold equally many patients; repeats are pooled, and limits are drawn (95 %, Wilson) if there is one.
    """
    figure = Figure(figsize=(9.6, 4.8), layout="constrained")
    curve, benefit = figure.subplots(1, 2)
    test = predictions[predictions["role"] == "test"]
    versions = {"as predicted": (test, MEAN)}
    try:
        calibrated, _ = calibrate_predictions(predictions, task)
        versions["temperature-scaled"] = (calibrated[calibrated["role"] == "test"], _CALIBRATED)
    except SplitError:
        curve.set_title("no temperature: validation patients of one class", fontsize=9)
    once = predictions["repeat"].nunique() == 1
    for name, (rows, colour) in versions.items():
        y, prob = _binary(rows, task)
        found = calibration_curve(y, prob, strategy="mass")
        _draw_calibration(curve, found, f"{name}, error {found.error:.3f}", colour, limits=once)
    curve.plot([0, 1], [0, 1], color=CHANCE, lw=0.8, ls="--")
    curve.set(xlabel="predicted probability", ylabel=f"observed share of {task.classes[-1]}")
    _draw_decisions(benefit, versions, task)
    for axes, place in ((curve, "lower right"), (benefit, "upper right")):
        axes.grid(alpha=0.25)
        axes.legend(loc=place, fontsize=9, frameon=False)
    head(figure, title, test)
    return save(figure, target)


def _binary(rows: pd.DataFrame, task: TaskSettings) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    positive = task.classes[-1]
    y = np.asarray(rows["label"] == positive, dtype=np.int64)
    return y, np.asarray(rows[f"prob_{positive}"], dtype=np.float64)


def _draw_calibration(axes: Axes, found: CalibrationCurve, name: str, colour: str, *, limits: bool) -> None:
    if limits:
        axes.vlines(found.mean, found.low, found.high, color=colour, lw=0.8, alpha=0.6)
    axes.plot(found.mean, found.observed, "o-", color=colour, ms=4, lw=1.2, label=name)


def _draw_decisions(axes: Axes, versions: dict[str, tuple[pd.DataFrame, str]], task: TaskSettings) -> None:
    top = 0.0
    for number, (name, (rows, colour)) in enumerate(versions.items()):
        found = decision_curve(*_binary(rows, task))
        if number == 0:
            axes.plot(found.thresholds, found.treat_all, color=CHANCE, lw=1.0, label="treat all")
            axes.axhline(0.0, color=CHANCE, lw=0.8, ls="--", label="treat none")
        axes.plot(found.thresholds, found.model, color=colour, lw=1.5, label=name)
        top = max(top, float(found.model.max()), found.prevalence)
    # Treating all costs without end towards a threshold of 1.
    axes.set(
        xlabel="threshold probability", ylabel="net benefit (true positives a patient)", ylim=(-0.25 * top, 1.08 * top)
    )
