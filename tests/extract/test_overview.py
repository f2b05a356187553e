"""The small picture of a slide, and the tissue on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from momkd.extract import overview as module
from momkd.extract.overview import find_tissue, make_overview

pytestmark = pytest.mark.usefixtures("wsi")
Paint, WriteSlide = Callable[..., np.ndarray], Callable[..., Path]
BOXES = [(600, 300, 1500, 900), (2400, 1500, 500, 400)]


def reader_of(path: Path) -> object:
    from wsidata.reader import OpenSlideReader

    return OpenSlideReader(path)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory, paint: Paint, write_slide: WriteSlide) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("overview")
    image = paint(2048, 3072, BOXES)
    return {
        "flat": write_slide(folder / "flat.tif", image, 0.5),
        "pyramid": write_slide(folder / "pyramid.tif", image, 0.5, levels=3),
    }


@pytest.mark.parametrize("strip", [16_000_000, 3072 * 9, 1])
def test_it_is_the_mean_of_blocks_whatever_the_strips(
    slides: dict[str, Path], paint: Paint, monkeypatch: pytest.MonkeyPatch, strip: int
) -> None:
    monkeypatch.setattr(module, "_STRIP_PIXELS", strip)
    found = make_overview(reader_of(slides["flat"]), 0.5)
    assert (found.scale, found.mpp, found.image.shape) == (3.0, 1.5, (682, 1024, 3))
    blocks = paint(2048, 3072, BOXES)[:2046].reshape(682, 3, 1024, 3, 3).mean((1, 3))
    assert np.abs(found.image - blocks).max() <= 1


def test_small_images_are_seen_finer_and_huge_ones_coarser() -> None:
    assert module._scale(100_000, 80_000, 0.25) == pytest.approx((8e9 / 12e6) ** 0.5)
    assert module._scale(40_000, 30_000, 0.5) == 10  # 12 million pixels at most
    assert module._scale(20_000, 15_000, 0.5) == 8  # 4 µm per pixel
    assert module._scale(2048, 1000, 0.5) == 2  # at least 1024 px
    assert module._scale(491, 491, 0.5) == 1


@pytest.mark.parametrize("name", ["flat", "pyramid"])
def test_tissue_is_where_it_was_painted(slides: dict[str, Path], name: str) -> None:
    found = make_overview(reader_of(slides[name]), 0.5)
    pieces = sorted(find_tissue(found, "otsu"), key=lambda piece: -piece.area)
    assert len(pieces) == 2
    for piece, (x, y, w, h) in zip(pieces, BOXES, strict=True):
        np.testing.assert_allclose(piece.bounds, (x, y, x + w, y + h), atol=30)
        assert piece.area == pytest.approx(w * h, rel=0.08)


def test_paper_and_dust_are_no_tissue(tmp_path: Path, paint: Paint, write_slide: WriteSlide) -> None:
    for name, boxes in (("paper", []), ("dust", [(500, 500, 24, 24)])):
        slide = write_slide(tmp_path / f"{name}.tif", paint(1024, 1024, boxes), 0.5)
        assert find_tissue(make_overview(reader_of(slide), 0.5), "otsu") == []
