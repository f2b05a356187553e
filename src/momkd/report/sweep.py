"""A sweep on paper: a table ranked by validation, and the validation score against the varied settings."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from momkd.experiment.search import Axis, Range
from momkd.experiment.sweep import short_names, words
from momkd.files import write_text
from momkd.report.comparison import markdown_table, metric_head
from momkd.report.figures import CHANCE, FOLD, MEAN, save
from momkd.report.words import mean_sds
from momkd.study.sweep import Sweep

# More lines than these cannot be told apart, so every point gets a row of its own instead.
_MOST_LINES = 8
# Values this far apart, and all positive, are spread evenly on a logarithmic axis.
_LOG_RATIO = 4.0


def sweep_table(found: Sweep) -> pd.DataFrame:
    """The table as text: the varied settings, validation mean ± sd, its folds, rank; test where it was asked for.

    A grid in its order; of a search the best first, then those that were stopped.
    """
    table, metric = found.table, metric_head(found.metric)
    if found.searched:
        table = table.sort_values(["rank", f"val_{found.metric}_mean"], ascending=[True, False], na_position="last")
    short = short_names(found.plan.keys)
    shown = pd.DataFrame({short[key]: [_words(value) for value in table[key]] for key in found.plan.keys})
    shown[f"validation {metric}"] = mean_sds(table, f"val_{found.metric}")
    shown["folds"] = [str(n) for n in table["val_n"]]
    if f"test_{found.metric}_mean" in table:
        shown[f"test {metric}"] = mean_sds(table, f"test_{found.metric}")
    states = table["state"] if found.searched else ["failed"] * len(table)
    shown["rank"] = [
        state if pd.isna(rank) else f"{rank} ★" if run == found.best else str(rank)
        for rank, run, state in zip(table["rank"], table["run"], states, strict=True)
    ]
    return shown


def caption(found: Sweep) -> str:
    """What the table says, and what it may be used for."""
    if found.searched:
        return _search_caption(found)
    metric, label = metric_head(found.metric), found.task.label
    text = (
        f"{label}: mean ± sd of the validation {metric} over folds, the same for all points. Rule: points are ranked "
        f"by the validation mean, and ★ is the best. Its mean is optimistic: it is the best of {len(found.table)}, and "
        "validation may have chosen epochs."
    )
    if f"test_{found.metric}_mean" not in found.table:
        return f"{text} Test scores are hidden (--show-test): to choose by them is to choose on test patients."
    text += " Test scores are for the record, not for choosing."
    if found.choice is not None:
        spread = "" if found.choice.sd is None else f" ± {found.choice.sd:.3f}"
        text += (
            " Each fold's best by its own validation patients, tested in that fold: "
            f"{metric} {found.choice.mean:.3f}{spread} ({found.choice.folds} folds). That is the score of the whole "
            "procedure, choice included; the test score in the row of ★ is optimistic."
        )
    return text


def _search_caption(found: Sweep) -> str:
    metric, label = metric_head(found.metric), found.task.label
    complete = int((found.table["state"] == "complete").sum())
    text = (
        f"{label}: mean ± sd of the validation {metric} over folds, the same for all trials. {complete} of "
        f"{len(found.table)} trials did all folds and are ranked by that mean, ★ the best; the others were stopped or "
        "failed, and their means are of fewer folds. All proposals followed these scores, so the best one is optimistic"
    )
    if f"test_{found.metric}_mean" not in found.table:
        return f"{text}. Test scores are hidden (--show-test): to choose by them is to choose on test patients."
    return (
        f"{text}, and so is its test score: validation patients of one fold are test patients of another, and the "
        "search has seen them all. An honest score takes patients outside of it (momkd evaluate)."
    )


def write_sweep(found: Sweep, folder: Path) -> list[Path]:
    """Write sweep.md and sweep.png."""
    target = folder / "sweep.md"
    write_text(target, markdown_table(sweep_table(found), caption(found)))
    draw = draw_search if found.searched else draw_sweep
    return [target, draw(found, folder / "sweep.png")]


def draw_sweep(found: Sweep, target: Path) -> Path:
    """Validation mean, with its sd over folds, against the varied settings.

    Against the numeric setting of most values, a line for every combination of the others; without such a setting, or
    with more than eight lines, a row for every point.
    """
    axis = _numeric_axis(found)
    lines = [] if axis is None else _lines(found, axis)
    figure = (
        _draw_rows(found)
        if axis is None or not 1 <= len(lines) <= _MOST_LINES or any(len(line) < 2 for _, line in lines)
        else _draw_lines(found, axis, lines)
    )
    figure.suptitle(f"{found.task.label} · validation of {found.table['val_n'].max()} folds", fontsize=11)
    return save(figure, target)


def draw_search(found: Sweep, target: Path) -> Path:
    """A pane a setting: the validation mean of every trial against its value; hollow where it was stopped early."""
    if found.space is None:
        raise ValueError("not a search")
    keys, table = found.plan.keys, found.table
    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    figure = Figure(figsize=(1.2 + 3.1 * columns, 0.9 + 2.7 * rows), layout="constrained")
    panes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    mean, _ = _mean_sd(table, found.metric)
    complete, best = (table["state"] == "complete").to_numpy(), (table["run"] == found.best).to_numpy()
    for axes, key in zip(panes.flat, keys, strict=False):
        place = _places(axes, table[key], found.space.axes[key])
        axes.plot(place[complete], mean[complete], "o", color=MEAN, ms=5, label="all folds")
        axes.plot(place[~complete], mean[~complete], "o", mfc="none", mec=MEAN, ms=5, alpha=0.6, label="stopped early")
        axes.plot(place[best], mean[best], marker="*", ms=15, color=MEAN, mec="black", mew=0.7, ls="none", label="best")
        axes.set_xlabel(key)
        axes.grid(alpha=0.25)
    for axes in panes.flat[len(keys) :]:
        axes.set_visible(False)
    for row in panes:
        row[0].set_ylabel(f"validation {metric_head(found.metric)}")
    panes[0][0].legend(fontsize=8, frameon=False)
    figure.suptitle(f"{found.task.label} · {len(table)} trials, mean over the folds each did", fontsize=11)
    return save(figure, target)


def _places(axes: Axes, values: pd.Series, axis: Axis) -> np.ndarray:
    """Where the values of a setting lie on the x axis: a range by its scale, choices side by side as in the file."""
    if isinstance(axis, Range):
        if axis.log:
            axes.set_xscale("log")
            axes.set_xlim(axis.low / 1.1, axis.high * 1.1)
        else:
            margin = 0.03 * (axis.high - axis.low)
            axes.set_xlim(axis.low - margin, axis.high + margin)
        return values.to_numpy(dtype=np.float64)
    told = [_words(value) for value in values]
    known = [words(value) for value in axis.values if words(value) in told]
    names = list(dict.fromkeys([*known, *told]))
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)
    return np.array([names.index(word) for word in told], dtype=np.float64)


def _numeric_axis(found: Sweep) -> str | None:
    """The setting of most values among those whose values are all numbers."""
    counts = {
        key: found.table[key].nunique() for key in found.plan.keys if pd.api.types.is_numeric_dtype(found.table[key])
    }
    best = max(counts, key=lambda key: counts[key], default=None)
    return best if best is not None and counts[best] > 1 else None


def _lines(found: Sweep, axis: str) -> list[tuple[str, pd.DataFrame]]:
    """The points of each combination of the other settings, in the order of the axis, and what to call them."""
    short = short_names(found.plan.keys)
    others = [key for key in found.plan.keys if key != axis and _varies(found.table[key])]
    if not others:
        return [("", found.table.sort_values(axis, kind="stable"))]
    found_lines = []
    for values, part in found.table.groupby(others, sort=False):
        name = ", ".join(f"{short[key]} {_words(value)}" for key, value in zip(others, values, strict=True))
        found_lines.append((name, part.sort_values(axis, kind="stable")))
    return found_lines


def _draw_lines(found: Sweep, axis: str, lines: list[tuple[str, pd.DataFrame]]) -> Figure:
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    values = np.unique(found.table[axis].to_numpy(dtype=np.float64))
    log = bool(values[0] > 0 and values[-1] / values[0] >= _LOG_RATIO)
    place = np.log(values) if log else values
    # Lines stand a little beside one another, so that their bars do not hide each other.
    step = 0.06 * float(np.diff(place).min())
    colours = matplotlib.colormaps["tab10"]
    for number, (name, part) in enumerate(lines):
        x = part[axis].to_numpy(dtype=np.float64)
        x = (np.log(x) if log else x) + step * (number - (len(lines) - 1) / 2)
        colour = colours(number) if name else MEAN
        mean, sd = _mean_sd(part, found.metric)
        axes.errorbar(x, mean, yerr=sd, color=colour, marker="o", ms=5, lw=1.4, elinewidth=1, capsize=2, label=name)
        best = (part["run"] == found.best).to_numpy()
        axes.plot(x[best], mean[best], marker="*", ms=15, color=colour, mec="black", mew=0.7, ls="none", zorder=5)
    axes.set_xticks(place, [f"{value:g}" for value in values])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel=axis, ylabel=_axis_label(found))
    axes.grid(alpha=0.25)
    if len(lines) > 1:
        axes.legend(fontsize=9, frameon=False)
    return figure


def _draw_rows(found: Sweep) -> Figure:
    table = found.table
    short = short_names(found.plan.keys)
    figure = Figure(figsize=(7.6, 1.3 + 0.3 * len(table)), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(table))[::-1]
    mean, sd = _mean_sd(table, found.metric)
    axes.errorbar(mean, place, xerr=sd, fmt="o", color=MEAN, ecolor=FOLD, ms=5, elinewidth=3)
    best = (table["run"] == found.best).to_numpy()
    axes.plot(mean[best], place[best], marker="*", ms=15, color=MEAN, mec="black", mew=0.7, ls="none", zorder=5)
    if best.any():
        axes.axvline(float(mean[best][0]), color=CHANCE, lw=0.8, ls="--")
    varied = [key for key in found.plan.keys if _varies(table[key])] or list(found.plan.keys)
    names = [
        ", ".join(f"{short[key]} {_words(value)}" for key, value in zip(varied, row, strict=True))
        for row in table[varied].itertuples(index=False)
    ]
    axes.set_yticks(place, names)
    axes.set_ylim(-0.7, len(table) - 0.3)
    axes.set(xlabel=_axis_label(found))
    axes.grid(alpha=0.25, axis="x")
    return figure


def _varies(column: pd.Series) -> bool:
    return len(set(column)) > 1


def _axis_label(found: Sweep) -> str:
    return f"validation {metric_head(found.metric)}, mean ± sd over folds (★ best)"


def _mean_sd(table: pd.DataFrame, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Means (points,) and deviations, 0 where there is none to draw."""
    mean, sd = (table[f"val_{metric}_{name}"].to_numpy(dtype=np.float64) for name in ("mean", "sd"))
    return mean, np.nan_to_num(sd)


def _words(value: Hashable) -> str:
    return words(value.item() if isinstance(value, np.generic) else value)
