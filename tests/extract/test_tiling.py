"""Where patches lie, and how large they are on level 0: the arithmetic that users suffer from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from momkd.errors import ExtractError
from momkd.extract.settings import ExtractSettings
from momkd.extract.sources import Slide
from momkd.extract.stream import stream_patches
from momkd.extract.tiling import Tiling, open_slide, tile

pytestmark = pytest.mark.usefixtures("wsi")
Paint, WriteSlide = Callable[..., np.ndarray], Callable[..., Path]
HEIGHT, WIDTH, BOX = 1536, 2048, (300, 200, 1300, 1000)


def tiled(path: Path, mpp: float | None = None, **settings: Any) -> tuple[Tiling, np.ndarray]:
    """A slide's tiling and the pixels of all of its patches."""
    chosen = ExtractSettings(**settings)
    slide = Slide(path.stem, path, mpp)
    with open_slide(slide, chosen) as (opened, mpp_from):
        found = tile(slide, opened, mpp_from, chosen)
        batches = stream_patches(opened.reader, found.requests, chosen.patch_size, batch_size=32, workers=1)
        return found, np.concatenate(list(batches))


@pytest.fixture(scope="module")
def image(paint: Paint) -> np.ndarray:
    return paint(HEIGHT, WIDTH, [BOX])


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory, image: np.ndarray, write_slide: WriteSlide) -> Path:
    """Half a micrometre per pixel, two levels (1, 4)."""
    return write_slide(tmp_path_factory.mktemp("tiling") / "slide.tif", image, 0.5, levels=2)


def test_patches_cover_the_tissue_and_nothing_else(slide: Path) -> None:
    found, _ = tiled(slide, patch_size=128)
    x, y, w, h = BOX
    corners = found.coords
    assert (corners >= (x - 50, y - 50)).all()
    assert (corners + 128 <= (x + w + 50, y + h + 50)).all()
    covered = np.zeros((HEIGHT, WIDTH), int)
    for left, top in corners:
        covered[top : top + 128, left : left + 128] += 1
    assert covered.max() == 1
    assert covered[y : y + h, x : x + w].mean() > 0.9
    assert (found.mpp, found.mpp_from, found.patch_size_level0) == (pytest.approx(0.5), "slide", 128)
    assert found.tissue_mm2 == pytest.approx(w * h * 0.25e-6, rel=0.08)


def test_patches_read_as_they_are_stored_are_the_slides_pixels(slide: Path, image: np.ndarray) -> None:
    found, pixels = tiled(slide, patch_size=128)
    for (x, y), patch in zip(found.coords, pixels, strict=True):
        np.testing.assert_array_equal(patch, image[y : y + 128, x : x + 128])


def test_twice_as_coarse_reads_twice_as_much(slide: Path, image: np.ndarray) -> None:
    found, pixels = tiled(slide, mpp=0.25, patch_size=128)  # 0.25 µm on level 0, 0.5 wanted
    assert (found.mpp, found.mpp_from, found.patch_size_level0) == (0.25, "table", 256)
    x, y = found.coords[3]
    blocks = image[y : y + 256, x : x + 256].reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(pixels[3] - blocks).max() <= 1


def test_a_level_of_about_the_wanted_mpp_is_read_as_it_is(slide: Path, image: np.ndarray) -> None:
    """1 % off counts as the same: scanners say 0.4990 or 0.2505, and pyramids divide by 3.9997."""
    for mpp in (0.498, 0.5045):
        found, pixels = tiled(slide, mpp=mpp, patch_size=128)
        x, y = found.coords[0]
        assert found.patch_size_level0 == 128
        np.testing.assert_array_equal(pixels[0], image[y : y + 128, x : x + 128])
    found, _ = tiled(slide, mpp=0.126, patch_size=128)  # level 1 is 0.504
    assert {request.level for request in found.requests} == {1}
    assert found.patch_size_level0 == 512


def test_a_slightly_coarser_slide_is_enlarged(slide: Path) -> None:
    found, pixels = tiled(slide, mpp=0.54, patch_size=128)
    assert found.patch_size_level0 == round(128 * 0.5 / 0.54)
    assert pixels.shape[1:] == (128, 128, 3)


def test_a_much_coarser_slide_is_refused(slide: Path) -> None:
    message = r"slide slide \(.*slide\.tif\): 1 µm per pixel at its finest .* than --mpp 0.5.*--mpp 1 or more"
    with pytest.raises(ExtractError, match=message):
        tiled(slide, mpp=1.0)


def test_overlap_moves_patches_closer(slide: Path) -> None:
    plain, _ = tiled(slide, patch_size=128)
    closer, _ = tiled(slide, patch_size=128, overlap=64)
    assert 3.3 < len(closer.coords) / len(plain.coords) < 4.5
    assert np.diff(np.unique(closer.coords[:, 0])).tolist() == [64] * (len(np.unique(closer.coords[:, 0])) - 1)


def test_min_tissue_decides_at_the_border(slide: Path) -> None:
    counts = [len(tiled(slide, patch_size=256, min_tissue=share)[0].coords) for share in (0.05, 0.7, 1.0)]
    assert counts[0] >= counts[1] >= counts[2]
    assert counts[0] > counts[2]


def test_patches_that_stick_out_are_left_out(tmp_path: Path, paint: Paint, write_slide: WriteSlide) -> None:
    """Outside there is nothing to see; readers paint it black."""
    whole = write_slide(tmp_path / "whole.tif", paint(600, 600, [(0, 0, 600, 600)]), 0.5)
    found, pixels = tiled(whole, patch_size=256, min_tissue=0.1)
    assert found.coords.tolist() == [[0, 0], [0, 256], [256, 0], [256, 256]]
    assert pixels.min() > 40


def test_the_whole_image_without_looking_for_tissue(slide: Path) -> None:
    found, _ = tiled(slide, tissue="none", patch_size=512)
    assert len(found.coords) == (HEIGHT // 512) * (WIDTH // 512)
    assert found.tissue == ()


def test_blank_slides_and_patches_that_do_not_fit(tmp_path: Path, paint: Paint, write_slide: WriteSlide) -> None:
    blank = write_slide(tmp_path / "blank.tif", paint(800, 800, []), 0.5)
    with pytest.raises(ExtractError, match=r"slide blank .*: no tissue found.*--tissue none"):
        tiled(blank)
    small = write_slide(tmp_path / "small.tif", paint(300, 300, [(0, 0, 300, 300)]), 0.5)
    with pytest.raises(ExtractError, match=r"no patch of 896 px = 448 µm fits.*150 × 150 µm.*smaller --patch-size"):
        tiled(small, patch_size=896)
    with pytest.raises(ExtractError, match="no patch of 896 px"):
        tiled(small, patch_size=896, tissue="none")


def test_mpp_is_the_tables_then_the_slides_then_the_options(
    slide: Path, tmp_path: Path, image: np.ndarray, write_slide: WriteSlide
) -> None:
    without = write_slide(tmp_path / "without.tif", image)
    assert tiled(slide, slide_mpp=0.25)[0].mpp_from == "slide"
    assert tiled(slide, mpp=0.25, slide_mpp=0.5)[0].mpp_from == "table"
    found, _ = tiled(without, slide_mpp=0.25)
    assert (found.mpp, found.mpp_from, found.patch_size_level0) == (0.25, "--slide-mpp", 512)
    message = r"slide without \(.*\): no µm per pixel in its metadata; expected .*--slide-mpp 0.5.*a table of slides"
    with pytest.raises(ExtractError, match=message):
        tiled(without)


def test_a_printers_resolution_is_no_mpp(tmp_path: Path, image: np.ndarray, write_slide: WriteSlide) -> None:
    printed = write_slide(tmp_path / "printed.tif", image, 1e4 / (72 / 2.54))
    with pytest.raises(ExtractError, match=r"352\.778 µm per pixel in its metadata, which no microscope has"):
        tiled(printed)
    assert tiled(printed, slide_mpp=0.5)[0].mpp_from == "--slide-mpp"


def test_what_no_reader_opens_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken.svs").write_bytes(b"II*\x00 not a slide")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG not an image")
    with pytest.raises(ExtractError, match=r"slide broken \(.*broken\.svs\): cannot be opened: openslide: "):
        tiled(tmp_path / "broken.svs")
    with pytest.raises(ExtractError, match=r"cannot be opened: openslide: .*; image: cannot identify image file"):
        tiled(tmp_path / "broken.png")


def test_nothing_is_written_beside_the_slide(slide: Path) -> None:
    tiled(slide)
    assert list(slide.parent.iterdir()) == [slide]
