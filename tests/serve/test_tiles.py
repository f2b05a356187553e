"""Squares of a slide: put together they are the slide, at every level."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from pathlib import Path

import numpy as np
import pytest

from momkd.errors import ServeError
from momkd.explain.pixels import SlidePixels, open_whole
from momkd.extract.sources import Slide
from momkd.serve.tiles import TILE, read_tile, top_level

Tiles = Callable[[SlidePixels, int], np.ndarray]


def together(pixels: SlidePixels, level: int) -> np.ndarray:
    shrink = 2 ** (top_level(pixels.width, pixels.height) - level)
    columns, rows = (ceil(ceil(side / shrink) / TILE) for side in (pixels.width, pixels.height))
    return np.concatenate(
        [np.concatenate([read_tile(pixels, level, c, r) for c in range(columns)], 1) for r in range(rows)]
    )


@pytest.mark.parametrize("levels", [1, 2])
def test_tiles_are_the_slide(
    paint: Callable[..., np.ndarray], write_slide: Callable[..., Path], tmp_path: Path, levels: int
) -> None:
    image = paint(700, 1100, [(100, 60, 500, 400), (800, 300, 200, 300)])
    path = write_slide(tmp_path / "A1.tif", image, mpp=0.5, levels=levels)
    with open_whole(Slide("A1", path), None) as pixels:
        most = top_level(pixels.width, pixels.height)
        assert most == 11
        assert np.array_equal(together(pixels, most), image)
        for level in range(most):
            found = together(pixels, level)
            shrink = 2 ** (most - level)
            assert found.shape[:2] == (ceil(700 / shrink), ceil(1100 / shrink))
            if shrink <= 16:
                whole = image[: 700 // shrink * shrink, : 1100 // shrink * shrink].astype(float)
                small = whole.reshape(700 // shrink, shrink, 1100 // shrink, shrink, 3).mean((1, 3))
                cut = found[: small.shape[0], : small.shape[1]]
                assert np.abs(cut - small).mean() < 12
        for level, column, row in ((most + 1, 0, 0), (-1, 0, 0), (most, 5, 0), (most, 0, -1), (0, 1, 0)):
            with pytest.raises(ServeError, match="level"):
                read_tile(pixels, level, column, row)
