"""A small picture of a whole slide, made strip by strip in bounded memory, and the tissue LazySlide finds on it.

The picture has the same µm per pixel for every slide, whatever its pyramid, so that the same tissue is found on every
machine: LazySlide left to itself chooses a level by the memory that is free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

OVERVIEW_MPP = 4.0
# Small images get a finer picture, very large slides a coarser one.
_LEAST_SIDE, _MOST_PIXELS, _STRIP_PIXELS = 1024, 12_000_000, 16_000_000
# Pieces smaller than this are dust.
_LEAST_TISSUE_UM2, _LEAST_TISSUE_SHARE = 5e4, 1e-3
# Otsu's threshold splits even blank paper in two. Where nine pixels of ten have less colour than this (largest minus
# smallest channel), it is paper; fat, mostly white too, has its pink strands.
_COLOUR, _COLOURLESS_SHARE = 16, 90


@dataclass(frozen=True, eq=False)
class Overview:
    """``image`` (h, w, 3) uint8; its pixel (0, 0) is level-0 pixel (x, y), and one of its pixels is ``scale`` wide."""

    image: np.ndarray
    x: int
    y: int
    scale: float
    mpp: float


def make_overview(reader: Any, mpp: float) -> Overview:
    """Average a slide of ``mpp`` µm per level-0 pixel down to about 4 µm per pixel, reading strips of a level.

    Only the region inside the slide's bounds is read. ``reader`` is wsidata's; whatever it raises passes.
    """
    import cv2

    properties = reader.properties
    x, y, width, height = (int(value) for value in properties.bounds)
    wanted = _scale(width, height, mpp)
    downsamples = [float(value) for value in properties.level_downsample]
    # The coarsest level that is fine enough; a hair of slack, because pyramids divide by 3.9997.
    level = max(i for i, value in enumerate(downsamples) if value <= max(1.01 * wanted, 1.0))
    factor = max(1, round(wanted / downsamples[level]))
    scale = factor * downsamples[level]
    columns, rows = max(1, int(width / scale)), max(1, int(height / scale))
    image = np.empty((rows, columns, 3), np.uint8)
    step = max(1, _STRIP_PIXELS // (columns * factor * factor))
    for top in range(0, rows, step):
        count = min(step, rows - top)
        strip = reader.get_region(x, y + round(top * scale), columns * factor, count * factor, level=level)
        if strip.shape[:2] != (count, columns):
            strip = cv2.resize(strip, (columns, count), interpolation=cv2.INTER_AREA)
        image[top : top + count] = strip
    return Overview(image, x, y, scale, mpp * scale)


def _scale(width: int, height: int, mpp: float) -> float:
    """Level-0 pixels per pixel of the overview."""
    usual = min(OVERVIEW_MPP / mpp, max(width, height) / _LEAST_SIDE)
    return max(usual, math.sqrt(width * height / _MOST_PIXELS), 1.0)


def find_tissue(overview: Overview, method: str) -> list[Any]:
    """Return the pieces of tissue as shapely polygons (with holes) in level-0 pixels; ``method`` otsu or entropy.

    Pieces below 0.05 mm² (0.1 % of a small image) are dust and left out; so is paper that otsu takes for tissue.
    """
    import lazyslide
    from shapely.affinity import affine_transform
    from spatialdata import SpatialData
    from wsidata import WSIData

    rows, columns = overview.image.shape[:2]
    share = _LEAST_TISSUE_UM2 / (rows * columns * overview.mpp**2)
    small = WSIData.from_spatialdata(SpatialData(), _array_reader(overview.image, overview.mpp))
    lazyslide.pp.find_tissues(small, level=0, method=method, min_tissue_area=min(share, _LEAST_TISSUE_SHARE))
    if "tissues" not in small.shapes:
        return []
    pieces = [p for p in small.shapes["tissues"].geometry if method != "otsu" or _has_colour(overview.image, p)]
    matrix = [overview.scale, 0.0, 0.0, overview.scale, overview.x, overview.y]
    return [affine_transform(piece, matrix) for piece in pieces]


def _has_colour(image: np.ndarray, piece: Any) -> bool:
    """Whether a piece (a polygon in pixels of ``image``) is more than paper."""
    import cv2

    left, top, right, bottom = (int(value) for value in piece.bounds)
    part = image[top : bottom + 1, left : right + 1]
    inside = np.zeros(part.shape[:2], np.uint8)
    cv2.fillPoly(inside, [np.asarray(piece.exterior.coords, np.int32)[:, :2] - (left, top)], 1)
    colour = part.max(axis=2) - part.min(axis=2)
    return bool(np.percentile(colour[inside > 0], _COLOURLESS_SHARE) > _COLOUR)


def _array_reader(image: np.ndarray, mpp: float) -> Any:
    from wsidata.reader import ReaderBase, SlideProperties

    class ArrayReader(ReaderBase):  # type: ignore[misc]
        name = "array"
        file = "overview"

        def get_region(self, x: int, y: int, width: int, height: int, level: int = 0, **_: Any) -> np.ndarray:  # noqa: ARG002
            return image[y : y + height, x : x + width]

        def get_thumbnail(self, size: int, **_: Any) -> np.ndarray:  # noqa: ARG002
            return image

        def create_reader(self) -> None:
            self.set_reader(image)

        def detach_reader(self) -> None:
            self.set_reader(None)

    reader = ArrayReader()
    rows, columns = image.shape[:2]
    shape = [rows, columns]
    reader.set_properties(SlideProperties(shape, 1, [shape], [1.0], mpp=mpp, bounds=[0, 0, columns, rows], raw="{}"))
    return reader
