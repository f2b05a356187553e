"""Pictures of predicted values and risks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from momkd.evaluation.continuous import continuous_metrics
from momkd.evaluation.survival import KaplanMeier, kaplan_meier, logrank, survival_metrics
from momkd.report.figures import CHANCE, MEAN, head, save

_HIGH, _LOW = "#b2182b", "#2166ac"


def draw_values(predictions: pd.DataFrame, title: str, target: Path) -> Path:
    """Predicted against observed value, and the error over the observed value; a dot a patient (mean over repeats)."""
    patients = predictions.groupby("patient_id", sort=True)[["label", "predicted"]].mean()
    observed, predicted = (patients[name].to_numpy(dtype=np.float64) for name in ("label", "predicted"))
    found = continuous_metrics(observed, predicted)
    figure = Figure(figsize=(9.6, 4.8), layout="constrained")
    scatter, error = figure.subplots(1, 2)
    ends = [min(observed.min(), predicted.min()), max(observed.max(), predicted.max())]
    scatter.plot(ends, ends, color=CHANCE, lw=0.8, ls="--", label="predicted = observed")
    scatter.plot(observed, predicted, "o", color=MEAN, ms=4, alpha=0.55, mew=0)
    names = {"pearson": "Pearson", "spearman": "Spearman", "r2": "R²"}
    text = ", ".join(f"{name} {found[key]:.3f}" for key, name in names.items() if found[key] is not None)
    scatter.set_title(text, fontsize=9)
    scatter.set(xlabel="observed", ylabel="predicted")
    scatter.legend(loc="upper left", fontsize=9, frameon=False)
    error.axhline(0.0, color=CHANCE, lw=0.8, ls="--")
    error.plot(observed, predicted - observed, "o", color=MEAN, ms=4, alpha=0.55, mew=0)
    error.set_title(f"mean absolute error {found['mae']:.3g}", fontsize=9)
    error.set(xlabel="observed", ylabel="predicted − observed")
    for axes in (scatter, error):
        axes.grid(alpha=0.25)
    head(figure, title, predictions)
    return save(figure, target)


def draw_survival(predictions: pd.DataFrame, title: str, target: Path) -> Path:
    """Kaplan–Meier curves of the half of higher and the half of lower risk, and the log-rank p of their difference.

    Risks of two models have no common unit: a patient's risk is its rank in its fold, averaged over repeats.
    """
    ranked = predictions.assign(rank=predictions.groupby(["repeat", "fold"])["risk"].rank(pct=True))
    patients = ranked.groupby("patient_id", sort=True)[["time", "event", "rank"]].mean()
    time, rank = (patients[name].to_numpy(dtype=np.float64) for name in ("time", "rank"))
    event = patients["event"].to_numpy(dtype=np.float64) == 1
    high = rank > np.median(rank)
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.subplots()
    for mask, name, colour in ((~high, "lower risk", _LOW), (high, "higher risk", _HIGH)):
        if mask.any():
            label = f"{name}: {int(mask.sum())} patients, {int(event[mask].sum())} events"
            _steps(axes, kaplan_meier(time[mask], event[mask]), time[mask & ~event], colour, label)
    p_value = logrank(time, event, high)
    found = [] if p_value is None else [f"log-rank p {'< 0.0001' if p_value < 1e-4 else f'= {p_value:.4f}'}"]
    concordance = [
        survival_metrics(fold["time"], fold["event"], fold["risk"])["c_index"]
        for _, fold in predictions.groupby(["repeat", "fold"])
    ]
    defined = [value for value in concordance if value is not None]
    found += [f"c-index {np.mean(defined):.3f} (mean of folds)"] if defined else []
    axes.set_title(", ".join(found), fontsize=9)
    axes.set(xlabel="time (unit of the cohort table)", ylabel="without the event", ylim=(-0.02, 1.02), xlim=(0, None))
    axes.grid(alpha=0.25)
    axes.legend(loc="best", fontsize=9, frameon=False)
    head(figure, title, predictions)
    return save(figure, target)


def _steps(axes: Axes, curve: KaplanMeier, censored: NDArray[np.float64], colour: str, label: str) -> None:
    times, survival = np.append(0.0, curve.time), np.append(1.0, curve.survival)
    axes.step(times, survival, where="post", color=colour, lw=1.8, label=label)
    at = survival[np.searchsorted(times, censored, side="right") - 1]
    axes.plot(censored, at, "|", color=colour, ms=6, alpha=0.7)
