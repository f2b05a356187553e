"""Plain images as slides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("wsi")


def pixels(height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_regions_are_the_images_pixels(tmp_path: Path, suffix: str) -> None:
    import wsidata
    from PIL import Image

    from momkd.extract.images import register_image_reader

    register_image_reader()
    Image.fromarray(pixels()).save(tmp_path / f"a{suffix}")
    slide = wsidata.open_wsi(tmp_path / f"a{suffix}", store=None)
    assert (slide.reader.name, slide.properties.shape, slide.properties.mpp) == ("image", [60, 80], None)
    np.testing.assert_array_equal(slide.reader.get_region(10, 20, 30, 15), pixels()[20:35, 10:40])
    assert slide.reader.get_thumbnail(40).shape == (30, 40, 3)


def test_transparent_is_white_and_grey_is_rgb(tmp_path: Path) -> None:
    from PIL import Image

    from momkd.extract.images import ImageReader

    layer = np.dstack([pixels(), np.full((60, 80), 255, np.uint8)])
    layer[:30, :, 3] = 0
    Image.fromarray(layer).save(tmp_path / "a.png")
    region = ImageReader(tmp_path / "a.png").get_region(0, 0, 80, 60)
    assert (region[:30] == 255).all()
    np.testing.assert_array_equal(region[30:], pixels()[30:])
    Image.fromarray(pixels()[..., 0]).save(tmp_path / "g.png")
    np.testing.assert_array_equal(ImageReader(tmp_path / "g.png").get_region(0, 0, 80, 60)[..., 2], pixels()[..., 0])


def test_copies_share_the_pixels(tmp_path: Path) -> None:
    import copy

    from PIL import Image

    from momkd.extract.images import ImageReader

    Image.fromarray(pixels()).save(tmp_path / "a.png")
    reader = ImageReader(tmp_path / "a.png")
    other = copy.copy(reader)
    assert np.shares_memory(reader.get_region(0, 0, 5, 5), other.get_region(0, 0, 5, 5))
    reader.detach_reader()
    np.testing.assert_array_equal(other.get_region(0, 0, 80, 60), pixels())


def test_what_is_no_image_for_an_encoder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    from momkd.extract.images import ImageReader

    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="mode I;16; expected 8 bits a channel"):
        ImageReader(tmp_path / "deep.png")
    Image.fromarray(pixels()).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with pytest.raises(ValueError, match="vips tiffsave"):
        ImageReader(tmp_path / "large.png")
