"""A map of numbers over the slide, as a picture that explains itself: scale bar, colour bar, what is predicted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from momkd.explain.canvas import Canvas
from momkd.report.figures import save

FloatArray = npt.NDArray[np.floating]
Image = npt.NDArray[np.uint8]
Look = Literal["signed", "positive"]
COLOURS: dict[Look, str] = {"signed": "RdBu_r", "positive": "viridis"}
# The strongest hundredth shares the last colour, or one patch would leave the rest pale.
_STRONGEST = 99.0
OPACITY = 0.6
# Of the longer side of the slide in a figure, in inches.
_SIDE = 8.0


@dataclass(frozen=True)
class Scale:
    """How numbers become colours: ``look`` signed (0 is white) or positive (0 is dark), from ``low`` to ``high``."""

    look: Look
    low: float
    high: float


def scale_of(values: FloatArray, look: Look) -> Scale:
    """The scale of one slide's numbers (P,)."""
    if look == "signed":
        high = float(np.percentile(np.abs(values), _STRONGEST))
        high = high if high > 0 else 1.0
        return Scale(look, -high, high)
    high = float(np.percentile(values, _STRONGEST))
    return Scale(look, 0.0, high if high > 0 else 1.0)


def coloured(painted: FloatArray, scale: Scale) -> Image:
    """A painted map (h, w) → (h, w, 4), transparent where there is no patch."""
    colours = matplotlib.colormaps[COLOURS[scale.look]]
    share = (np.nan_to_num(painted) - scale.low) / (scale.high - scale.low)
    image = np.asarray(colours(share.clip(0, 1), bytes=True), dtype=np.uint8)
    image[..., 3] = np.where(np.isnan(painted), 0, 255)
    return image


def blended(canvas: Canvas, painted: FloatArray, scale: Scale, opacity: float) -> Image:
    """The map over the slide: (h, w, 3)."""
    colour = coloured(painted, scale)
    share = opacity * (colour[..., 3:] / 255.0)
    mixed = canvas.image * (1.0 - share) + colour[..., :3] * share
    return np.asarray(np.round(mixed), dtype=np.uint8)


def draw_heatmap(canvas: Canvas, over: Image, scale: Scale, target: Path, *, title: str, meaning: str) -> Path:
    """Write a PNG of a map blended ``over`` its canvas; ``title``: what is predicted, ``meaning``: of the colours."""
    rows, columns = canvas.shape
    factor = _SIDE / max(rows, columns)
    width, height = max(columns * factor, 3.0), max(rows * factor, 2.5)
    figure = Figure(figsize=(width + 1.6, height + 0.8), layout="constrained")
    axes = figure.subplots()
    axes.imshow(over, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)
    colours = matplotlib.cm.ScalarMappable(Normalize(scale.low, scale.high), COLOURS[scale.look])
    bar = figure.colorbar(colours, ax=axes, shrink=0.7, extend="both" if scale.look == "signed" else "max")
    bar.set_label(meaning, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    if canvas.mpp is not None:
        _scale_bar(axes, canvas)
    return save(figure, target)


def bar_length(width_um: float) -> float:
    """A round length in µm that is about a fifth of a width."""
    wanted = width_um / 5.0
    power = 10.0 ** np.floor(np.log10(wanted))
    return float(max(step * power for step in (1.0, 2.0, 5.0) if step * power <= wanted))


def _scale_bar(axes: Any, canvas: Canvas) -> None:
    rows, columns = canvas.shape
    um_per_pixel = canvas.scale * (canvas.mpp or 1.0)
    length = bar_length(columns * um_per_pixel)
    left, bottom, pixels = 0.03 * columns, 0.965 * rows, length / um_per_pixel
    axes.plot([left, left + pixels], [bottom, bottom], color="black", linewidth=3, solid_capstyle="butt")
    words = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    box = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1.5}
    axes.text(left + pixels / 2, bottom - 0.012 * rows, words, ha="center", va="bottom", fontsize=8, bbox=box)
