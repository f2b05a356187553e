"""A picture of a slide to draw on, and numbers of patches painted over it at their place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
# Of a blank canvas: pixels of a patch where there is room for them, and of its longer side.
_PATCH_PIXELS, _LONGER_SIDE = 16, 3000


@dataclass(frozen=True, eq=False)
class Canvas:
    """``image`` (h, w, 3) uint8: its pixel (0, 0) begins at level-0 pixel (x, y), and each is ``scale`` of them wide.

    ``mpp``: µm per level-0 pixel, where it is known.
    """

    image: npt.NDArray[np.uint8]
    x: float
    y: float
    scale: float
    mpp: float | None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.image.shape[0]), int(self.image.shape[1])


def blank(coords: npt.NDArray[np.int64], patch_size: float, mpp: float | None) -> Canvas:
    """White paper that holds all patches: corners (P, 2) and their side, in level-0 pixels."""
    low, high = coords.min(0), coords.max(0) + patch_size
    extent = float((high - low).max())
    scale = max(patch_size / _PATCH_PIXELS, extent / _LONGER_SIDE)
    columns, rows = (max(1, int(np.ceil(side / scale))) for side in (high - low))
    white = np.full((rows, columns, 3), 255, np.uint8)
    return Canvas(white, float(low[0]), float(low[1]), scale, mpp)


def paint(values: FloatArray, coords: npt.NDArray[np.int64], patch_size: float, canvas: Canvas) -> FloatArray:
    """Values (P,) over a canvas (h, w): the mean of the patches over a pixel's centre, NaN where there is none."""
    rows, columns = canvas.shape
    total, count = np.zeros((rows, columns)), np.zeros((rows, columns))
    # Pixel c has its centre at x + (c + ½) · scale; a patch holds those from its corner up to its far side.
    first = np.ceil((coords - (canvas.x, canvas.y)) / canvas.scale - 0.5).astype(np.int64)
    last = np.ceil((coords + patch_size - (canvas.x, canvas.y)) / canvas.scale - 0.5).astype(np.int64)
    first, last = first.clip(min=0), last.clip(min=0)
    for value, (left, top), (right, bottom) in zip(values, first, last, strict=True):
        total[top:bottom, left:right] += value
        count[top:bottom, left:right] += 1
    with np.errstate(invalid="ignore"):
        return total / np.where(count > 0, count, np.nan)
