"""Plain images (PNG, JPEG, untiled TIFF …) as slides of one level: a reader for wsidata, backed by Pillow."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from wsidata.reader import READERS, ReaderBase, SlideProperties

from momkd.extract.sources import IMAGE_SUFFIXES

NAME = "image"
# Pillow decodes an image whole; beyond this (Pillow's own limit for bombs, 537 MB decoded) it must be a pyramid.
_MOST_PIXELS = 178_956_970
_WHITE = (255, 255, 255)


class ImageReader(ReaderBase):  # type: ignore[misc]
    """One image, decoded once as RGB; transparent pixels become white, only the first page of a TIFF is read.

    Its metadata give no µm per pixel: the resolution in an image file is a printer's. Raises ValueError for more than
    179 million pixels and for images of other than 8 bits a channel.
    """

    name = NAME
    pkg_namespaces = "PIL"
    extensions = IMAGE_SUFFIXES
    _pixels: np.ndarray | None = None

    def __init__(self, file: Path | str, **_: Any) -> None:
        self.file = str(file)
        self._pixels = _decode(Path(file))
        height, width = self._pixels.shape[:2]
        shape = [height, width]
        self.set_properties(SlideProperties(shape, 1, [shape], [1.0], bounds=[0, 0, width, height], raw="{}"))

    def get_region(self, x: int, y: int, width: int, height: int, level: int = 0, **_: Any) -> np.ndarray:  # noqa: ARG002
        """Return (height, width, 3) uint8, at most to the image's edges."""
        return self._all()[int(y) : int(y) + int(height), int(x) : int(x) + int(width)]

    def get_thumbnail(self, size: int, **_: Any) -> np.ndarray:
        """Return the image with its longer side scaled to ``size``."""
        height, width = self._all().shape[:2]
        longer = max(height, width)
        return np.asarray(self.resize_img(self._all(), (width * size // longer, height * size // longer)))

    def create_reader(self) -> None:
        """Decode the image, if it is not."""
        self.set_reader(self._all())

    def detach_reader(self) -> None:
        """Let the pixels go; copies of this reader, which share them, keep theirs."""
        self.set_reader(None)
        self._pixels = None

    def _all(self) -> np.ndarray:
        if self._pixels is None:
            self._pixels = _decode(Path(self.file))
        return self._pixels


def register_image_reader() -> None:
    """Let wsidata open plain images; it tries this reader after those of whole-slide formats."""
    if NAME not in READERS:
        READERS[NAME] = ImageReader


def _decode(path: Path) -> np.ndarray:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            file = Image.open(path)
        except Image.DecompressionBombError as error:
            raise ValueError(
                f"more than {_MOST_PIXELS / 1e6:.0f} million pixels in an image without tiles; "
                "make it a tiled pyramid: vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg"
            ) from error
        with file:
            if file.mode.startswith(("I", "F")):
                raise ValueError(f"an image of mode {file.mode}; expected 8 bits a channel")
            if not file.has_transparency_data:
                return np.asarray(file.convert("RGB"))
            layer = file.convert("RGBA")
            canvas = Image.new("RGBA", layer.size, (*_WHITE, 255))
            return np.asarray(Image.alpha_composite(canvas, layer).convert("RGB"))
