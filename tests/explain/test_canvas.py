"""Where on a picture a patch is painted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from momkd.explain.canvas import Canvas, blank, paint


def paper(rows: int, columns: int, *, x: float = 0.0, y: float = 0.0, scale: float = 1.0) -> Canvas:
    return Canvas(np.full((rows, columns, 3), 255, np.uint8), x, y, scale, 0.5)


def test_a_patch_covers_the_pixels_whose_centres_it_holds() -> None:
    painted = paint(np.array([3.0]), np.array([[4, 2]]), 4.0, paper(8, 12, scale=2.0))
    expected = np.full((8, 12), np.nan)
    expected[1:3, 2:4] = 3.0  # level-0 columns 4 … 7 are pixels 2 and 3, rows 2 … 5 pixels 1 and 2
    np.testing.assert_array_equal(painted, expected)


def test_patches_that_overlap_are_averaged_and_what_sticks_out_is_cut() -> None:
    painted = paint(np.array([1.0, 3.0]), np.array([[0, 0], [2, 0]]), 4.0, paper(4, 5))
    np.testing.assert_array_equal(painted[0], [1, 1, 2, 2, 3])
    outside = paint(np.array([1.0]), np.array([[100, 100]]), 4.0, paper(4, 5))
    assert np.isnan(outside).all()


def test_a_canvas_that_does_not_begin_at_the_slides_corner() -> None:
    painted = paint(np.array([1.0]), np.array([[10, 20]]), 2.0, paper(4, 4, x=9.0, y=19.0))
    assert np.argwhere(~np.isnan(painted)).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


@settings(max_examples=60, deadline=None)
@given(
    x=st.integers(0, 5000),
    y=st.integers(0, 5000),
    side=st.floats(16, 2000),
    scale=st.floats(1.0, 60.0),
    shift=st.floats(-500, 500),
)
def test_a_painted_patch_lies_within_half_a_pixel_of_its_place(
    x: int, y: int, side: float, scale: float, shift: float
) -> None:
    canvas = Canvas(np.zeros((260, 260, 3), np.uint8), x + shift - 20 * scale, y - 20 * scale, scale, None)
    seen = np.argwhere(~np.isnan(paint(np.array([1.0]), np.array([[x, y]]), side, canvas)))
    if not len(seen) or seen.min() == 0 or seen.max() == 259:
        return  # too small to hold a centre, or cut by an edge
    (top, left), (bottom, right) = seen.min(0), seen.max(0) + 1
    half = scale / 2 * (1 + 1e-9)
    assert abs(canvas.x + left * scale - x) <= half
    assert abs(canvas.x + right * scale - (x + side)) <= half
    assert abs(canvas.y + top * scale - y) <= half
    assert abs(canvas.y + bottom * scale - (y + side)) <= half


@pytest.mark.parametrize("side", [224, 256.5, 896])
def test_blank_paper_holds_every_patch_and_keeps_to_its_size(side: float) -> None:
    coords = np.array([[1000, 70], [90_000, 50_000], [1000 + int(side), 70]])
    canvas = blank(coords, side, 0.25)
    painted = paint(np.array([1.0, 2.0, 3.0]), coords, side, canvas)
    assert set(np.unique(painted[~np.isnan(painted)])) >= {1.0, 2.0, 3.0}
    assert max(canvas.shape) <= 3001
    assert canvas.mpp == 0.25
