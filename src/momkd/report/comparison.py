"""A comparison on paper: Markdown and LaTeX tables, a forest plot, ROC curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from momkd.evaluation.metrics import curve_points
from momkd.experiment import TaskSettings
from momkd.files import write_text
from momkd.report.figures import CHANCE, FOLD, GRID, MEAN, head, label_square, save, spread
from momkd.report.words import interval, mean_sds

# What a column is called on paper.
_HEADS = {
    "auc": "AUC",
    "macro_auc": "macro AUC",
    "auprc": "AUPRC",
    "f1": "F1",
    "balanced_accuracy": "bal. acc.",
    "sensitivity": "sens.",
    "specificity": "spec.",
    "brier": "Brier",
    "ece": "ECE",
    "concordance": "concordance",
    "c_index": "c-index",
    "kappa": "κ",
    "spearman": "Spearman",
}


def paper_table(table: pd.DataFrame, main: str) -> pd.DataFrame:
    """The table as text: mean ± sd, interval, difference and p of the main metric, then mean ± sd of the others."""
    shown = pd.DataFrame({"method": table["method"], "omics": table["omics"]})
    shown[metric_head(main)] = mean_sds(table, main)
    shown["95 % CI"] = [interval(*pair) for pair in zip(table[f"{main}_ci_low"], table[f"{main}_ci_high"], strict=True)]
    shown["difference"] = [_signed(value) for value in table["difference"]]
    shown["p"], shown["p (Holm)"] = ([_p(value) for value in table[name]] for name in ("p_value", "p_holm"))
    others = [name.removesuffix("_mean") for name in table.columns if name.endswith("_mean")]
    for name in others:
        if name != main:
            shown[metric_head(name)] = mean_sds(table, name)
    shown["parameters"] = [f"{int(value):,}".replace(",", " ") for value in table["parameters"]]
    shown["s / epoch"] = [f"{value:.3g}" for value in table["seconds_per_epoch"]]
    shown["ms / slide"] = [f"{value:.3g}" for value in table["inference_ms"]]
    return shown


def write_tables(table: pd.DataFrame, main: str, caption: str, folder: Path) -> list[Path]:
    """Write table.md and table.tex (booktabs)."""
    shown = paper_table(table, main)
    markdown, latex = folder / "table.md", folder / "table.tex"
    write_text(markdown, markdown_table(shown, caption))
    write_text(latex, _latex(shown, caption))
    return [markdown, latex]


def markdown_table(shown: pd.DataFrame, caption: str) -> str:
    """A table of text as Markdown, its caption below it."""
    rows = [list(shown.columns), ["---"] * len(shown.columns), *shown.to_numpy().tolist()]
    lines = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([*lines, "", caption, ""])


_TEX = {
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "κ": r"$\kappa$",
    "%": r"\%",
    "&": r"\&",
    "_": r"\_",
    "<": "$<$",
    "#": r"\#",
}


def _latex(shown: pd.DataFrame, caption: str) -> str:
    def row(cells: Sequence[object]) -> str:
        return " & ".join(_tex(str(cell)) for cell in cells) + r" \\"

    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(caption)}}}",
            rf"\begin{{tabular}}{{ll{'r' * (len(shown.columns) - 2)}}}",
            r"\toprule",
            row(list(shown.columns)),
            r"\midrule",
            *(row(cells) for cells in shown.to_numpy().tolist()),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _tex(text: str) -> str:
    return "".join(_TEX.get(letter, letter) for letter in text)


def draw_forest(table: pd.DataFrame, main: str, title: str, target: Path) -> Path:
    """The main metric of each method with its interval, and every method's difference from the first."""
    figure = Figure(figsize=(10.0, 1.4 + 0.32 * len(table)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    place = np.arange(len(table))[::-1]
    _whiskers(left, table[f"{main}_mean"], table[f"{main}_ci_low"], table[f"{main}_ci_high"], place)
    left.set_yticks(place, table["method"])
    left.set(xlabel=f"{metric_head(main)}, mean over folds (95 % interval)")
    left.axvline(float(table[f"{main}_mean"].iloc[0]), color=CHANCE, lw=0.8, ls="--")
    rest = table.iloc[1:]
    _whiskers(right, rest["difference"], rest["difference_ci_low"], rest["difference_ci_high"], place[1:])
    right.axvline(0.0, color=CHANCE, lw=0.8, ls="--")
    right.set(xlabel=f"difference from {table['method'].iloc[0]} (95 % interval, corrected t)")
    for axes in (left, right):
        axes.grid(alpha=0.25, axis="x")
        axes.set_ylim(-0.7, len(table) - 0.3)
    figure.suptitle(title, fontsize=11)
    return save(figure, target)


def _whiskers(axes: matplotlib.axes.Axes, mean: pd.Series, low: pd.Series, high: pd.Series, place: np.ndarray) -> None:
    lows, highs = (values.to_numpy(dtype=np.float64) for values in (low, high))
    axes.hlines(place, lows, highs, color=FOLD, lw=3)
    axes.plot(mean.to_numpy(dtype=np.float64), place, "o", color=MEAN, ms=5)


def draw_roc(
    predictions: Mapping[str, pd.DataFrame], task: TaskSettings, title: str, target: Path, most: int = 8
) -> Path:
    """Mean ROC over folds of the first methods, at most ``most``; two classes."""
    figure = Figure(figsize=(5.6, 5.4), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["tab10"]
    positive, shown = task.classes[-1], list(predictions)[:most]
    for number, name in enumerate(shown):
        test = predictions[name][predictions[name]["role"] == "test"]
        curves, areas = [], []
        for _, fold in test.groupby(["repeat", "fold"]):
            points = curve_points((fold["label"] == positive).to_numpy(np.int64), fold[f"prob_{positive}"].to_numpy())
            if points is not None:
                curves.append(np.interp(GRID, points.fpr, points.tpr))
                areas.append(float(np.trapezoid(points.tpr, points.fpr)))
        if curves:
            mean = np.mean(curves, axis=0)
            mean[0] = 0.0
            axes.plot(GRID, mean, color=colours(number), lw=1.6, label=f"{name}  {spread(areas)}")
    axes.plot([0, 1], [0, 1], color=CHANCE, lw=0.8, ls="--")
    label_square(axes, "1 − specificity", "sensitivity", "lower right")
    first = predictions[shown[0]]
    head(figure, title, first[first["role"] == "test"])
    return save(figure, target)


def metric_head(key: str) -> str:
    """What a metric is called in the head of a column."""
    return _HEADS.get(key, key)


def _signed(value: float | None) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:+.3f}".replace("-", "−")


def _p(value: float | None) -> str:
    if value is None or pd.isna(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
