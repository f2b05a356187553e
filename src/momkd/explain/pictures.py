"""Pictures of many slides: how true their maps are, where patients and prototypes lie, who uses which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from momkd.explain.codes import code_names
from momkd.report.figures import save

FloatArray = npt.NDArray[np.floating]
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


def draw_map(
    points: Sequence[tuple[str, FloatArray, Sequence[str]]],
    codes: FloatArray,
    names: Sequence[str],
    target: Path,
    *,
    title: str,
) -> Path:
    """Draw unit points, by source (slides, omics tables) and class, and the codes, on their two principal axes.

    ``points``: name, rows (N, n), the class of each; codes (C, K, n).
    """
    flat = codes.reshape(-1, codes.shape[-1])
    everything = np.concatenate([*(rows for _, rows, _ in points), flat])
    middle = everything.mean(0)
    _, singular, axes = np.linalg.svd(everything - middle, full_matrices=False)
    shares = singular**2 / max(float((singular**2).sum()), 1e-300)
    plane = axes[:2]
    figure = Figure(figsize=(4.6 * len(points), 4.6), layout="constrained")
    panes = np.atleast_1d(figure.subplots(1, len(points), sharex=True, sharey=True))
    colours = _class_colours(names)
    for axes_, (source, rows, classes) in zip(panes, points, strict=True):
        placed, own = (rows - middle) @ plane.T, np.asarray(classes)
        for name in [*names, ""]:
            chosen = own == name
            if chosen.any():
                label = f"{name or 'unknown'} ({chosen.sum()})"
                axes_.scatter(*placed[chosen].T, s=10, alpha=0.55, color=colours.get(name, "#999999"), label=label)
        for number, (x, y) in enumerate((flat - middle) @ plane.T):
            own_class = names[number // codes.shape[1]]
            axes_.scatter(x, y, s=150, marker="*", color=colours[own_class], edgecolor="black", linewidth=0.8, zorder=3)
            axes_.annotate(str(number % codes.shape[1] + 1), (x, y), (6, 4), textcoords="offset points", fontsize=8)
        axes_.set(title=source, xlabel=f"axis 1 ({shares[0]:.0%} of the spread)")
        axes_.grid(alpha=0.25)
        axes_.legend(fontsize=8, frameon=False)
    panes[0].set_ylabel(f"axis 2 ({shares[1] if len(shares) > 1 else 0:.0%})")
    figure.suptitle(f"{title}: patients, and prototypes (stars, numbered within their class)", fontsize=10)
    return save(figure, target)


def draw_usage(told: pd.DataFrame, names: Sequence[str], k: int, target: Path, *, title: str) -> Path:
    """Draw, for slides and each omics table, the share of each class's patients whose nearest code it is."""
    codes = code_names(names, k)
    sources = list(dict.fromkeys(told["by"]))
    figure = Figure(figsize=(max(6.0, 0.42 * len(codes)), 2.4 * len(sources)), layout="constrained")
    panes = np.atleast_1d(figure.subplots(len(sources), 1, sharex=True))
    colours, width = _class_colours(names), 0.8 / max(1, len(names))
    for axes, source in zip(panes, sources, strict=True):
        own = told[told["by"] == source]
        for place, name in enumerate(names):
            of_class = own[own["label"] == name]
            counts = of_class["code"].value_counts().reindex(codes, fill_value=0)
            x = np.arange(len(codes)) + (place - (len(names) - 1) / 2) * width
            share = counts / max(1, len(of_class))
            axes.bar(x, share, width, color=colours[name], label=f"{name} ({len(of_class)} patients)")
        axes.set(ylabel="share of patients", title=f"nearest prototype by {source}")
        axes.grid(alpha=0.25, axis="y")
    panes[0].legend(fontsize=8, frameon=False)
    panes[-1].set_xticks(np.arange(len(codes)), codes, rotation=60, ha="right", fontsize=8)
    figure.suptitle(title, fontsize=10)
    return save(figure, target)


def _class_colours(names: Sequence[str]) -> dict[str, str]:
    """Blue for the first class and red for the last of two, as in the maps."""
    if len(names) == 2:
        return {names[0]: "#2166ac", names[1]: "#b2182b"}
    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, max(1, len(names))))
    return {name: matplotlib.colors.to_hex(colour) for name, colour in zip(names, colours, strict=True)}
