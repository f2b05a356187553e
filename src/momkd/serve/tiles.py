"""Squares of a slide for a deep-zoom viewer.

Level L has the slide in max(width, height) · 2^(L − N) pixels, with 2^N the next power of two of its longer side: N is
the slide itself, 0 one pixel. Coarse levels come from the small picture of the whole slide, so that no request reads
gigabytes of a slide without a pyramid.
"""

from __future__ import annotations

import io
import math

import numpy as np
import numpy.typing as npt

from momkd.errors import ServeError
from momkd.explain.pixels import SlidePixels

Image = npt.NDArray[np.uint8]
TILE = 256
_QUALITY = 85
_PAPER = (255, 255, 255)


def top_level(width: int, height: int) -> int:
    """N: the level at which a slide is as large as it is."""
    return math.ceil(math.log2(max(width, height, 1)))


def read_tile(pixels: SlidePixels, level: int, column: int, row: int) -> Image:
    """The tile (rows, columns, 3), smaller at the far sides; raises ServeError where there is none."""
    most = top_level(pixels.width, pixels.height)
    if not 0 <= level <= most:
        raise ServeError(f"level {level}: the slide has levels 0 to {most}")
    shrink = 2 ** (most - level)
    whole = math.ceil(pixels.width / shrink), math.ceil(pixels.height / shrink)
    size = min(TILE, whole[0] - column * TILE), min(TILE, whole[1] - row * TILE)
    if column < 0 or row < 0 or min(size) < 1:
        raise ServeError(f"tile {column}, {row}: level {level} has {whole[0]} × {whole[1]} pixels")
    x, y = column * TILE * shrink, row * TILE * shrink
    if shrink >= pixels.canvas.scale:
        return _from_canvas(pixels, x, y, shrink, size)
    extent = min(size[0] * shrink, pixels.width - x), min(size[1] * shrink, pixels.height - y)
    return pixels.region(x, y, extent, size)


def _from_canvas(pixels: SlidePixels, x: int, y: int, shrink: int, size: tuple[int, int]) -> Image:
    from PIL import Image as Pillow

    canvas = pixels.canvas
    small, scale = Pillow.fromarray(canvas.image), canvas.scale
    times = int(shrink / scale)
    if times > 1:
        small, scale = small.reduce(times), scale * times
    left, top = (x - canvas.x) / scale, (y - canvas.y) / scale
    box = left, top, left + size[0] * shrink / scale, top + size[1] * shrink / scale
    cut = small.transform(size, Pillow.Transform.EXTENT, box, Pillow.Resampling.BILINEAR, fillcolor=_PAPER)
    return np.asarray(cut)


def jpeg(image: Image) -> bytes:
    """An image (h, w, 3) as JPEG."""
    from PIL import Image as Pillow

    buffer = io.BytesIO()
    Pillow.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
