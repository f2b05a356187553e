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
    """An open slide: ``canvas``, and ``patch`` for what lies under one."""

    def __init__(self, reader: Any, canvas: Canvas) -> None:
        self._reader, self.canvas = reader, canvas
        self._downsamples = [float(value) for value in reader.properties.level_downsample]

    def patch(self, x: int, y: int, side: float, pixels: int) -> Image:
        """The square at level-0 corner (x, y) with ``side`` level-0 pixels, as (pixels, pixels, 3)."""
        from PIL import Image as Pillow

        fit = [i for i, value in enumerate(self._downsamples) if value <= max(side / pixels, 1.0)]
        level = max(fit, key=lambda i: self._downsamples[i])
        count = max(1, round(side / self._downsamples[level]))
        region = np.asarray(self._reader.get_region(int(x), int(y), count, count, level=level))[..., :3]
        return np.asarray(Pillow.fromarray(region).resize((pixels, pixels), Pillow.Resampling.LANCZOS))


@contextmanager
def open_pixels(slide: Slide, bag: Bag) -> Iterator[SlidePixels]:
    """Open the slide that a bag was cut from.

    Raises ExtractError where it cannot be opened, ExplainError where its patches do not lie on it.
    """
    require_extra()
    with open_slide(slide, ExtractSettings(slide_mpp=bag.mpp)) as (opened, _):
        mpp = float(opened.properties.mpp)
        _check_place(slide, opened.properties, bag)
        overview = make_overview(opened.reader, mpp)
        canvas = Canvas(np.asarray(overview.image), overview.x, overview.y, overview.scale, mpp)
        yield SlidePixels(opened.reader, canvas)


def _check_place(slide: Slide, properties: Any, bag: Bag) -> None:
    if bag.coords is None:
        return
    height, width = (int(side) for side in properties.level_shape[0])
    x, y = (int(value) for value in bag.coords.max(0))
    if x >= width or y >= height or int(bag.coords.min()) < 0:
        raise ExplainError(
            f"{slide.path}: the slide has {width} × {height} level-0 pixels, and {bag.source} has a patch at "
            f"({x}, {y}): the features are of another slide, or their coordinates are not of level 0; give the "
            "slide that they were extracted from"
        )
