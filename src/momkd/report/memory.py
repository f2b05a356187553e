"""The picture of a run's memory: every diagnostic of the histories over the epochs (docs/memory.md defines each)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from momkd.report.figures import MEAN, members_of, save

_OTHER = "#d94801"
_COLOURS = (MEAN, _OTHER, "#238b45", "#6a51a3", "#636363", "#ae017e", "#b8860b", "#1c9099")
_ACROSS = 4


@dataclass(frozen=True)
class _Panel:
    """A title, the history's columns in it by what they are called, and the limits of the axis where they are known."""

    title: str
    columns: dict[str, str]
    limits: tuple[float, float] | None = None


def has_memory(histories: Sequence[pd.DataFrame]) -> bool:
    """Whether any of the histories says anything of a memory."""
    return any(name.startswith("memory_") for history in histories for name in history.columns)


def draw_memory(histories: Sequence[pd.DataFrame], classes: Sequence[str], target: Path) -> Path:
    """One panel a diagnostic, over the epochs: a faint line a fit, and their mean.

    ``histories``: one a fold, its members told apart by the column member. ``classes`` name the codebooks; where there
    are none they are numbered from 1. A diagnostic that no history has is left out. The mean goes as far as half of the
    fits do.
    """
    fits = members_of(histories)
    panels = [found for panel in _panels(fits, classes) if (found := _present(panel, fits)).columns]
    across = min(_ACROSS, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(3.3 * across, 2.7 * down + 0.4), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        _draw(axes, panel, fits)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    figure.suptitle(f"memory · {len(fits)} fit{'s' * (len(fits) > 1)}: each faint, their mean bold", fontsize=11)
    return save(figure, target)


def _panels(fits: Sequence[pd.DataFrame], classes: Sequence[str]) -> list[_Panel]:
    found = {name for fit in fits for name in fit.columns}
    books = sum(f"memory_active_{i}" in found or f"memory_perplexity_{i}" in found for i in range(len(found)))
    names = [classes[i] if i < len(classes) else f"codebook {i + 1}" for i in range(max(books, len(classes)))]

    def by_class(column: str) -> dict[str, str]:
        return {name: f"memory_{column}_{i}" for i, name in enumerate(names)}

    def by_origin(column: str) -> dict[str, str]:
        return {"RNA": f"memory_{column}_rna", "slides": f"memory_{column}_slide"}

    unit = (-0.02, 1.02)
    cosines = {"within a class": "memory_within_cosine", "across classes": "memory_across_cosine"}
    return [
        _Panel("usage perplexity (codes)", by_class("perplexity")),
        _Panel("active codes", by_class("active")),
        _Panel("drift from the start (1 − cos)", {"mean": "memory_drift"}),
        _Panel("mean cosine of codes", cosines),
        _Panel("share of margins met", by_origin("margin"), unit),
        _Panel("AUC of Δ, training patients", by_origin("auc"), unit),
        _Panel("attention entropy / ln P", {"mean": "memory_attention_entropy"}, unit),
        _Panel("temperature τ", {"mean": "temperature"}),
    ]


def _present(panel: _Panel, fits: Sequence[pd.DataFrame]) -> _Panel:
    """The panel with those of its columns that hold a number somewhere."""
    some = {
        name: column
        for name, column in panel.columns.items()
        if any(column in fit.columns and fit[column].notna().any() for fit in fits)
    }
    return _Panel(panel.title, some, panel.limits)


def _draw(axes: Axes, panel: _Panel, fits: Sequence[pd.DataFrame]) -> None:
    for i, (name, column) in enumerate(panel.columns.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        lines = [fit.set_index("epoch")[column].dropna() for fit in fits if column in fit.columns]
        for line in lines:
            axes.plot(line.index, line, color=colour, lw=0.6, alpha=0.25)
        table = pd.concat(lines, axis=1).sort_index()
        mean = table.mean(axis=1).where(2 * table.notna().sum(axis=1) >= len(lines)).dropna()
        # A single epoch makes no line.
        axes.plot(mean.index, mean, color=colour, lw=1.8, marker="o" if len(mean) == 1 else None, ms=3, label=name)
    axes.set_title(panel.title, fontsize=9)
    axes.set_xlabel("epoch", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    if panel.limits is not None:
        axes.set_ylim(*panel.limits)
    axes.grid(alpha=0.25)
    if "mean" not in panel.columns:
        axes.legend(loc="best", fontsize=7, frameon=False)
