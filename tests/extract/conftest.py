"""Small slides, and an encoder small enough for tests; everything that needs the extra asks for the fixture wsi."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAPER, PINK, PURPLE = (243, 241, 244), (226, 150, 190), (110, 60, 140)

WriteSlide = Callable[..., Path]


@pytest.fixture(scope="session")
def wsi() -> None:
    """Skip where the extra is not installed."""
    if find_spec("lazyslide") is None or find_spec("openslide") is None:
        pytest.skip("needs the extra wsi: pip install 'momkd[wsi]'")


Paint = Callable[..., np.ndarray]


@pytest.fixture(scope="session")
def paint() -> Paint:
    """paint(height, width, boxes, seed=0): paper (height, width, 3) uint8 with boxes (x, y, w, h) of tissue on it."""
    return _paint


def _paint(height: int, width: int, boxes: list[tuple[int, int, int, int]], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.empty((height, width, 3), np.uint8)
    image[:] = PAPER
    for x, y, w, h in boxes:
        nuclei = np.kron(rng.random((h // 8 + 1, w // 8 + 1)) < 0.35, np.ones((8, 8), bool))[:h, :w]
        image[y : y + h, x : x + w] = np.where(nuclei[..., None], PURPLE, PINK)
    noise = rng.integers(-6, 7, image.shape, dtype=np.int16)
    return np.clip(image.astype(np.int16) + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def write_slide(wsi: None) -> WriteSlide:
    """A function (path, image, mpp=None, levels=1) that writes a tiled pyramidal TIFF which OpenSlide opens."""

    def write(path: Path, image: np.ndarray, mpp: float | None = None, levels: int = 1) -> Path:
        import tifffile

        options: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "compression": "deflate"}
        if mpp is not None:
            options |= {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
        path.parent.mkdir(parents=True, exist_ok=True)
        with tifffile.TiffWriter(path) as file:
            for level in range(levels):
                smaller = image[:: 4**level, :: 4**level]
                file.write(smaller, subfiletype=int(level > 0), metadata=None, **options)
        return path

    return write


@pytest.fixture(scope="session")
def tiny_weights(wsi: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of timm's test_vit (64 features, 0.3 million parameters), its weights random."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    module = timm.create_model("test_vit", pretrained=False, num_classes=0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(module.state_dict(), path)
    return path
