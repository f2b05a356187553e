"""What other programs open: QuPath's objects, the pyramid, the pictures."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import tifffile

from momkd.explain.canvas import Canvas
from momkd.explain.geojson import write_geojson
from momkd.explain.heatmap import Scale, bar_length, blended, coloured, draw_heatmap, scale_of
from momkd.explain.pyramid import write_pyramid
from momkd.explain.top import draw_rows, prototype_rows, top

COORDS = np.array([[0, 0], [256, 0], [256, 512]])


def test_geojson_is_one_closed_square_a_patch_with_its_numbers(tmp_path: Path) -> None:
    values = {"influence": np.array([0.5, -1.25, 0.0]), "attention": np.array([1.0, 2.0, 0.0])}
    target = write_geojson(tmp_path / "a.geojson", "A1", COORDS, 256.0, values, ["high", "low", "low"])
    found = json.loads(target.read_text("utf-8"))
    assert found["type"] == "FeatureCollection"
    assert len(found["features"]) == 3
    for feature, (x, y) in zip(found["features"], COORDS.tolist(), strict=True):
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1] == [x, y]
        assert {tuple(point) for point in ring} == {(x, y), (x + 256, y), (x + 256, y + 256), (x, y + 256)}
        area = sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring)) / 2
        assert area == 256.0**2  # RFC 7946: exterior rings run counterclockwise (y points down here as in QuPath)
        assert feature["properties"]["objectType"] == "detection"
    second = found["features"][1]["properties"]
    assert second["measurements"] == {"influence": -1.25, "attention": 2.0}
    assert second["classification"] == {"name": "low"}
    assert len({feature["id"] for feature in found["features"]}) == 3


def test_equal_contents_give_equal_bytes(tmp_path: Path) -> None:
    one, two = (
        write_geojson(tmp_path / name, "A1", COORDS, 256.0, {"a": np.arange(3.0)})
        for name in ("1.geojson", "2.geojson")
    )
    assert one.read_bytes() == two.read_bytes()


def test_a_pyramid_says_its_size_and_place_and_halves(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (1301, 900, 3), dtype=np.uint8)
    canvas = Canvas(image, 100.0, 40.0, 8.0, 0.25)
    target = write_pyramid(image, canvas, tmp_path / "a.ome.tif", name="influence")
    with tifffile.TiffFile(target) as file:
        assert file.is_ome
        (series,) = file.series
        assert [level.shape for level in series.levels] == [(1301, 900, 3), (651, 450, 3), (326, 225, 3)]
        np.testing.assert_array_equal(series.levels[0].asarray(), image)
        half = series.levels[1].asarray()
        np.testing.assert_array_equal(half[3, 5], np.round(image[6:8, 10:12].mean(axis=(0, 1))))
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    assert pixels["PhysicalSizeX"] == pixels["PhysicalSizeY"] == 2.0
    assert pixels["Plane"]["PositionX"] == 25.0
    assert pixels["Plane"]["PositionY"] == 10.0


def test_without_mpp_no_size_is_made_up(tmp_path: Path) -> None:
    image = np.zeros((40, 30, 3), np.uint8)
    target = write_pyramid(image, Canvas(image, 0.0, 0.0, 8.0, None), tmp_path / "a.ome.tif", name="x")
    with tifffile.TiffFile(target) as file:
        assert "PhysicalSizeX" not in (file.ome_metadata or "")


def test_signed_numbers_are_white_at_zero_and_the_strongest_hundredth_shares_a_colour() -> None:
    values = np.concatenate([np.linspace(-1, 1, 201), [50.0]])
    scale = scale_of(values, "signed")
    assert scale.low == -scale.high
    assert 0.9 < scale.high < 2.0
    painted = np.array([[-9.0, 0.0, 9.0, np.nan]])
    colours = coloured(painted, scale)
    blue, white, red, nothing = colours[0]
    assert blue[2] > blue[0]
    assert red[0] > red[2]
    assert white[:3].min() > 240
    assert nothing[3] == 0
    flat = scale_of(np.zeros(4), "signed")
    assert np.isfinite([flat.low, flat.high]).all()
    assert scale_of(np.zeros(4), "positive") == Scale("positive", 0.0, 1.0)


def test_a_map_lets_the_slide_show_through_and_leaves_the_rest_alone() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    canvas = Canvas(image, 0.0, 0.0, 1.0, None)
    painted = np.array([[1.0, np.nan], [np.nan, np.nan]])
    mixed = blended(canvas, painted, Scale("positive", 0.0, 1.0), 0.5)
    np.testing.assert_array_equal(mixed[1], image[1])
    colour = coloured(painted, Scale("positive", 0.0, 1.0))[0, 0, :3].astype(float)
    np.testing.assert_allclose(mixed[0, 0], (100 + colour) / 2, atol=0.6)


@pytest.mark.parametrize(("width", "length"), [(9000.0, 1000.0), (2600.0, 500.0), (60_000.0, 10_000.0), (40.0, 5.0)])
def test_a_scale_bar_is_a_round_length_of_about_a_fifth(width: float, length: float) -> None:
    assert bar_length(width) == length


def test_a_heatmap_is_drawn_and_the_same_bytes_twice(tmp_path: Path) -> None:
    canvas = Canvas(np.full((60, 400, 3), 255, np.uint8), 0.0, 0.0, 8.0, 0.25)
    over = np.zeros((60, 400, 3), np.uint8)
    scale = Scale("signed", -1.0, 1.0)
    one, two = (
        draw_heatmap(canvas, over, scale, tmp_path / f"{i}.png", title="A1\nHER2: high", meaning="influence")
        for i in (1, 2)
    )
    assert one.read_bytes() == two.read_bytes()
    assert matplotlib.image.imread(one).shape[1] > 400


def test_top_patches_and_ties_in_the_order_of_the_file() -> None:
    values = np.array([1.0, 3.0, 3.0, -2.0])
    assert top("high", values, 3).patches == (1, 2, 0)
    assert top("low", values, 2, lowest=True).patches == (3, 0)
    assert top("all", values, 9).values == (3.0, 3.0, 1.0, -2.0)


def test_one_row_a_prototype(tmp_path: Path) -> None:
    cosines = np.zeros((4, 2, 3))
    cosines[2, 1, 0] = 1.0
    rows = prototype_rows(cosines, ("low", "high"), 2)
    assert [row.name for row in rows] == ["low · 1", "low · 2", "low · 3", "high · 1", "high · 2", "high · 3"]
    assert rows[3].patches[0] == 2
    asked: list[int] = []

    def look(patch: int) -> np.ndarray:
        asked.append(patch)
        return np.full((96, 96, 3), 30 * patch, np.uint8)

    draw_rows(rows, look, tmp_path / "rows.png", title="prototypes")
    assert sorted(asked) == sorted(set(asked))  # a patch's pixels are read once
    assert (tmp_path / "rows.png").stat().st_size > 1000
