"""The patches that matter most, to look at: for and against a class, where attention is, and like each prototype."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from momkd.explain.codes import code_names
from momkd.report.figures import DPI, save

FloatArray = npt.NDArray[np.floating]
Image = npt.NDArray[np.uint8]
# Of a patch in the picture, and white between two.
PIXELS, _GAP = 96, 5


@dataclass(frozen=True)
class TopRow:
    """What a row of patches has in common; ``patches`` numbers, best first, with their ``values``."""

    name: str
    patches: tuple[int, ...]
    values: tuple[float, ...]


def top(name: str, values: FloatArray, count: int, *, lowest: bool = False) -> TopRow:
    """The ``count`` patches with the highest values (P,), or the lowest; ties in the order of the file."""
    order = np.argsort(values if lowest else -values, kind="stable")[:count]
    return TopRow(name, tuple(int(i) for i in order), tuple(float(values[i]) for i in order))


def prototype_rows(cosines: FloatArray, classes: Sequence[str], count: int) -> list[TopRow]:
    """One row a code of each class (P, C, K): the patches most like it."""
    names = code_names(classes, cosines.shape[2])
    flat = cosines.reshape(len(cosines), -1)
    return [top(name, own, count) for name, own in zip(names, flat.T, strict=True)]


def draw_rows(rows: Sequence[TopRow], look: Callable[[int], Image], target: Path, *, title: str) -> Path:
    """Write a PNG of rows of patches; ``look`` gives the pixels (s, s, 3) of a patch by its number."""
    most = max(len(row.patches) for row in rows)
    step = PIXELS + _GAP
    sheet = np.full((len(rows) * step - _GAP, most * step - _GAP, 3), 255, np.uint8)
    seen: dict[int, Image] = {}
    for r, row in enumerate(rows):
        for c, patch in enumerate(row.patches):
            if patch not in seen:
                seen[patch] = look(patch)
            sheet[r * step : r * step + PIXELS, c * step : c * step + PIXELS] = seen[patch]
    # A pixel of the sheet is about one of the picture.
    inch = step / DPI
    figure = Figure(figsize=(most * inch + 2.2, len(rows) * inch + 0.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet, interpolation="antialiased")
    axes.set_yticks([r * step + PIXELS / 2 for r in range(len(rows))], [row.name for row in rows], fontsize=9)
    axes.set_xticks([])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    for r, row in enumerate(rows):
        for c, value in enumerate(row.values):
            words = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
            axes.text(c * step + 4, (r + 1) * step - _GAP - 6, f"{value:.2g}", fontsize=6.5, bbox=words)
    axes.set_title(title, fontsize=10)
    return save(figure, target)
