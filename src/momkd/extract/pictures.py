"""The picture of a slide's patches: what was taken for tissue, and what was cut from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from momkd.extract.tiling import Tiling
from momkd.files import atomic_path

_LONGER_SIDE = 1500
_TISSUE, _PATCH = (0, 130, 60), (20, 40, 200)


def draw_tiling(tiling: Tiling, target: Path) -> None:
    """Write a JPEG of the overview with the outlines of tissue (green) and patches (blue), at most 1500 px a side."""
    from PIL import Image, ImageDraw

    overview = tiling.overview
    rows, columns = overview.image.shape[:2]
    shrink = min(1.0, _LONGER_SIDE / max(rows, columns))
    size = (max(1, round(columns * shrink)), max(1, round(rows * shrink)))
    image = Image.fromarray(overview.image).resize(
        size, Image.Resampling.BOX if shrink < 1 else Image.Resampling.NEAREST
    )
    pen, factor = ImageDraw.Draw(image), shrink / overview.scale

    def place(points: np.ndarray) -> list[tuple[float, float]]:
        moved = (np.asarray(points, float)[:, :2] - (overview.x, overview.y)) * factor
        return [(float(x), float(y)) for x, y in moved]

    for piece in tiling.tissue:
        for polygon in getattr(piece, "geoms", [piece]):
            for ring in (polygon.exterior, *polygon.interiors):
                pen.line(place(ring.coords), fill=_TISSUE, width=3)
    width = 2 if tiling.patch_size_level0 * factor > 40 else 1
    for corner in tiling.coords:
        (left, top), (right, bottom) = place(np.stack([corner, corner + tiling.patch_size_level0]))
        pen.rectangle((left, top, right, bottom), outline=_PATCH, width=width)
    with atomic_path(target) as temporary:
        image.save(temporary, format="JPEG", quality=85, subsampling=0)
