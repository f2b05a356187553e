"""Maps over real pixels: a marker on a slide is where its map says it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import tifffile

from momkd.errors import ExplainError
from momkd.explain.canvas import paint
from momkd.explain.pixels import open_pixels
from momkd.explain.run import explain_slides
from momkd.extract.sources import Slide
from momkd.slides.bag import Bag
from momkd.slides.readers import read_bag
from momkd.slides.writer import write_bag
from momkd.student import FeatureGeometry

pytestmark = pytest.mark.usefixtures("wsi")
GREEN = np.array((20, 220, 60), np.uint8)
SIDE = 64


def bag_of(columns: int, rows: int) -> Bag:
    coords = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2) * SIDE
    return Bag("A1", np.zeros((len(coords), 5), np.float32), coords, float(SIDE), 0.5, "lite")


@pytest.mark.parametrize("levels", [1, 2])
def test_a_painted_patch_lies_on_its_marker(tmp_path: Path, paint_slide: Callable[..., Path], levels: int) -> None:
    """Within one pixel of the small picture, which is far less than a patch."""
    bag = bag_of(32, 24)
    marked = 32 * 13 + 21
    x, y = bag.coords[marked]
    path = paint_slide(tmp_path / "A1.tif", (int(x), int(y)), levels)
    with open_pixels(Slide("A1", path), bag) as pixels:
        canvas = pixels.canvas
        values = np.zeros(bag.n_patches)
        values[marked] = 1.0
        hot = np.argwhere(paint(values, bag.coords, SIDE, canvas) > 0.5)
        green = np.argwhere((canvas.image.astype(int) - GREEN).__abs__().sum(-1) < 90)
        assert np.abs(hot.min(0) - green.min(0)).max() <= 1
        assert np.abs(hot.max(0) - green.max(0)).max() <= 1
        assert np.abs(pixels.patch(int(x), int(y), SIDE, 112).reshape(-1, 3).mean(0) - GREEN).max() < 6
        assert np.abs(pixels.patch(int(x) + SIDE, int(y), SIDE, 112).reshape(-1, 3).mean(0) - GREEN).max() > 50


def test_features_of_another_slide_are_refused(tmp_path: Path, paint_slide: Callable[..., Path]) -> None:
    path = paint_slide(tmp_path / "A1.tif", (0, 0), 1)
    with (
        pytest.raises(ExplainError, match="2048 × 1536 level-0 pixels.*patch at.*another slide"),
        open_pixels(Slide("A1", path), bag_of(40, 20)),
    ):
        pass


@pytest.fixture
def paint_slide(paint: Callable[..., np.ndarray], write_slide: Callable[..., Path]) -> Callable[..., Path]:
    """paint_slide(path, (x, y), levels): tissue of 2048 × 1536 px with a green patch whose corner is (x, y)."""

    def make(path: Path, corner: tuple[int, int], levels: int) -> Path:
        image = paint(1536, 2048, [(100, 100, 1800, 1300)])
        x, y = corner
        image[y : y + SIDE, x : x + SIDE] = GREEN
        return write_slide(path, image, mpp=0.5, levels=levels)

    return make


def test_with_the_slide_there_are_patches_to_look_at(
    tmp_path: Path,
    make_student: Callable[..., Path],
    make_features: Callable[..., Path],
    paint_slide: Callable[..., Path],
) -> None:
    student = make_student(tmp_path / "student")
    make_features(tmp_path / "features", "A1", columns=32, rows=24)
    paint_slide(tmp_path / "slides" / "A1.tif", (640, 640), 2)
    report = explain_slides(student, [tmp_path / "features"], tmp_path / "out", slides=[tmp_path / "slides"])
    assert report.failed == {}
    folder = tmp_path / "out" / "A1"
    assert {"top.png", "prototypes-memory.png", "prototypes-rna.png"} <= {path.name for path in folder.iterdir()}
    assert matplotlib.image.imread(folder / "top.png").shape[2] in (3, 4)
    with tifffile.TiffFile(folder / "influence-high.ome.tif") as file:
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        shape = file.series[0].levels[0].shape
    # The pyramid is as large as the slide, in micrometres.
    assert pixels["PhysicalSizeX"] * shape[1] == pytest.approx(2048 * 0.5, rel=0.01)
    assert pixels["PhysicalSizeY"] * shape[0] == pytest.approx(1536 * 0.5, rel=0.01)
    assert read_bag(tmp_path / "features" / "A1.h5").n_patches == 768


def test_slides_of_other_names_are_not_guessed(
    tmp_path: Path,
    make_student: Callable[..., Path],
    make_features: Callable[..., Path],
    paint_slide: Callable[..., Path],
) -> None:
    student = make_student(tmp_path / "student")
    make_features(tmp_path / "features", "A1")
    paint_slide(tmp_path / "slides" / "B7.tif", (0, 0), 1)
    with pytest.raises(ExplainError, match="none of the 1 slides has the id of a feature file: slides B7; features A1"):
        explain_slides(student, [tmp_path / "features"], tmp_path / "out", slides=[tmp_path / "slides"])


def test_objects_of_a_real_slide_are_valid_and_lie_on_its_tissue(
    tmp_path: Path, shared: Path, make_student: Callable[..., Path]
) -> None:
    from shapely.geometry import shape
    from shapely.ops import unary_union

    from momkd.extract.settings import ExtractSettings
    from momkd.extract.tiling import open_slide, tile

    slide = Slide("CMU-1-Small-Region", shared / "data" / "slides" / "CMU-1-Small-Region.svs")
    settings = ExtractSettings()
    with open_slide(slide, settings) as (opened, mpp_from):
        tiling = tile(slide, opened, mpp_from, settings)
    features = np.random.default_rng(0).normal(size=(len(tiling.coords), 5)).astype(np.float32)
    bag = Bag(slide.slide_id, features, tiling.coords, float(tiling.patch_size_level0), tiling.mpp, "lite")
    write_bag(bag, tmp_path / f"{slide.slide_id}.h5", producer="tests")
    geometry = FeatureGeometry(5, "lite", patch_um=tiling.patch_size_level0 * tiling.mpp)
    student = make_student(tmp_path / "student", features=geometry)
    report = explain_slides(student, [tmp_path / f"{slide.slide_id}.h5"], tmp_path / "out", slides=[slide.path])
    assert report.failed == {}
    objects = json.loads((tmp_path / "out" / slide.slide_id / "patches.geojson").read_text())["features"]
    assert len(objects) == len(tiling.coords)
    tissue = unary_union(tiling.tissue)
    for found in objects:
        square = shape(found["geometry"])
        assert square.is_valid
        assert square.area == tiling.patch_size_level0**2
        assert square.intersection(tissue).area >= 0.69 * square.area
