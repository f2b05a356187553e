"""The pixels of a slide, where it is at hand: a small picture of all of it, and single patches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from momkd.errors import ExplainError
from momkd.explain.canvas import Canvas
from momkd.extract.faults import require_extra
from momkd.extract.overview import make_overview
from momkd.extract.settings import ExtractSettings
from momkd.extract.sources import Slide
from momkd.extract.tiling import open_slide
from momkd.slides.bag import Bag

Image = npt.NDArray[np.uint8]


class SlidePixels:
    """An open slide: ``canvas``, a small picture of all of it; ``width`` and ``height`` in level-0 pixels."""

    def __init__(self, reader: Any, canvas: Canvas) -> None:
        self._reader, self.canvas = reader, canvas
        self._downsamples = [float(value) for value in reader.properties.level_downsample]
        self.height, self.width = (int(side) for side in reader.properties.level_shape[0])

    def region(self, x: int, y: int, size: tuple[float, float], pixels: tuple[int, int]) -> Image:
        """What lies at level-0 corner (x, y), ``size`` level-0 pixels (width, height), as (rows, columns, 3).

        ``pixels`` are (columns, rows).
        """
        from PIL import Image as Pillow

        # Pyramids divide by 3.9997, so a hair of slack.
        shrink = max(1.01 * size[0] / pixels[0], 1.0)
        fit = [i for i, value in enumerate(self._downsamples) if value <= shrink]
        level = max(fit, key=lambda i: self._downsamples[i])
        columns, rows = (max(1, round(side / self._downsamples[level])) for side in size)
        read = np.asarray(self._reader.get_region(int(x), int(y), columns, rows, level=level))[..., :3]
        return np.asarray(Pillow.fromarray(read).resize(pixels, Pillow.Resampling.LANCZOS))

    def patch(self, x: int, y: int, side: float, pixels: int) -> Image:
        """The square at level-0 corner (x, y) with ``side`` level-0 pixels, as (pixels, pixels, 3)."""
        return self.region(x, y, (side, side), (pixels, pixels))


@contextmanager
def open_pixels(slide: Slide, bag: Bag) -> Iterator[SlidePixels]:
    """Open the slide that a bag was cut from.

    Raises ExtractError where it cannot be opened, ExplainError where its patches do not lie on it.
    """
    with open_whole(slide, bag.mpp) as pixels:
        check_place(slide, pixels, bag)
        yield pixels


@contextmanager
def open_whole(slide: Slide, slide_mpp: float | None) -> Iterator[SlidePixels]:
    """Open a slide; ``slide_mpp`` where it does not say its µm per level-0 pixel. Raises ExtractError."""
    require_extra()
    with open_slide(slide, ExtractSettings(slide_mpp=slide_mpp)) as (opened, _):
        mpp = float(opened.properties.mpp)
        overview = make_overview(opened.reader, mpp)
        canvas = Canvas(np.asarray(overview.image), overview.x, overview.y, overview.scale, mpp)
        yield SlidePixels(opened.reader, canvas)


def check_place(slide: Slide, pixels: SlidePixels, bag: Bag) -> None:
    """Raise ExplainError where the patches of a bag do not lie on a slide."""
    if bag.coords is None:
        return
    x, y = (int(value) for value in bag.coords.max(0))
    if x >= pixels.width or y >= pixels.height or int(bag.coords.min()) < 0:
        raise ExplainError(
            f"{slide.path}: the slide has {pixels.width} × {pixels.height} level-0 pixels, and {bag.source} has "
            f"a patch at ({x}, {y}): the features are of another slide, or their coordinates are not of level 0; give "
            "the slide that they were extracted from"
        )
