"""The picture of how true the maps are: what the score does when patches go, and when they come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from momkd.report.figures import save

_COLOURS = {"influence": "#08519c", "evidence": "#a63603", "attention": "#756bb1", "random": "#999999"}


def draw_faithfulness(found: pd.DataFrame, target: Path) -> Path:
    """Draw the mean curve of each order over slides, with its standard error; slides start from their own score."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panes = figure.subplots(1, 2)
    words = {"deletion": "patches taken away, highest first", "insertion": "patches put in, highest first"}
    n = found["slide_id"].nunique()
    for axes, (curve, what) in zip(panes, words.items(), strict=True):
        for order, own in found.groupby("order", sort=False):
            table = own.pivot_table(index="share", columns="slide_id", values=curve)
            mean, error = table.mean(axis=1), table.std(axis=1, ddof=1) / np.sqrt(n) if n > 1 else None
            colour = _COLOURS[str(order)]
            axes.plot(table.index, mean, color=colour, label=str(order))
            if error is not None:
                axes.fill_between(table.index, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
        axes.set(xlabel=f"share of {what}", ylabel="score (log-odds, value or risk)", title=curve)
        axes.grid(alpha=0.25)
    panes[0].legend(fontsize=9, frameon=False)
    figure.suptitle(f"{n} slide{'s' * (n > 1)}: mean ± standard error", fontsize=10)
    return save(figure, target)
