"""What all pictures share: colours, labels, and files whose bytes depend on the run alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from momkd.files import atomic_path

FOLD, MEAN, CHANCE = "#9ecae1", "#08519c", "#999999"
DPI = 150
GRID = np.linspace(0.0, 1.0, 201)


def spread(values: Sequence[float]) -> str:
    """Mean ± sd, as text."""
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def label_square(axes: Axes, x: str, y: str, place: Literal["lower right", "upper right"]) -> None:
    """Name the axes of a picture on the unit square."""
    axes.set(xlabel=x, ylabel=y, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_aspect("equal")
    axes.grid(alpha=0.25)
    axes.legend(loc=place, fontsize=9, frameon=False)


def head(figure: Figure, title: str, predictions: pd.DataFrame) -> None:
    """Title, number of patients and of folds, over the whole figure."""
    folds = predictions[["repeat", "fold"]].drop_duplicates()
    patients = predictions["patient_id"].nunique()
    figure.suptitle(f"{title} · {patients} patients, {len(folds)} fold{'s' * (len(folds) > 1)}", fontsize=11)


def members_of(histories: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The history of every network: a fold's members are told apart by the column member, where there are several."""
    found: list[pd.DataFrame] = []
    for history in histories:
        by_member = history.groupby("member", sort=True) if "member" in history.columns else [(0, history)]
        found += [one for _, one in by_member]
    return found


def save(figure: Figure, target: Path) -> Path:
    """Write a PNG or an SVG, by the suffix, atomically; the same run gives the same bytes."""
    FigureCanvasAgg(figure)
    # Neither the time nor the version of the software, and names inside an SVG that are not drawn by chance.
    nothing: dict[str, str | None] = {"Creator": None, "Date": None} if target.suffix == ".svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "momkd"}), atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=DPI, metadata=nothing)
    return target
