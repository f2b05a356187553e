"""slideflow bags: ``<slide>.pt``, ``<slide>.index.npz`` with the tiles' centres, ``bags_config.json`` of the folder."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np

from momkd.slides.sheet import GIVE_MPP, Sheet, Stored, defect
from momkd.slides.sources import SLIDEFLOW_CONFIG


def describe_slideflow(path: Path, features: Stored, index: Path, slide_mpp: float | None) -> Sheet:
    """Describe a slideflow bag whose tensor is ``features``.

    The index has tile centres in level-0 pixels, in the order of the tensor; a tile's top-left is its centre less half
    of its size, ⌊tile_um / mpp⌋ pixels, as slideflow computes it. Raises FeatureFileError where config, index or mpp is
    missing.
    """
    tile_um, encoder = _config(path.with_name(SLIDEFLOW_CONFIG))
    if slide_mpp is None:
        found = "slideflow's tile centres, and no µm per pixel to tell the tiles' size in pixels"
        raise defect(path, found, "the slide's mpp", GIVE_MPP)
    size = int(tile_um / slide_mpp)
    centres = _centres(index)
    coords = Stored("arr_0", centres.shape, centres.dtype, lambda: centres - size // 2)
    return Sheet(path, "slideflow", features, coords, patch_size_level0=float(size), mpp=slide_mpp, encoder=encoder)


def _config(path: Path) -> tuple[float, str | None]:
    """tile_um and the extractor's name."""
    mend = "copy it from the folder of bags that slideflow wrote"
    if not path.is_file():
        raise defect(path, "no such file", "slideflow's bags_config.json beside its bags", mend)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        tile_um = raw["tile_um"]
    except (ValueError, KeyError, TypeError) as error:
        raise defect(path, f"cannot be read ({error})", "slideflow's bags_config.json with tile_um", mend) from error
    if isinstance(tile_um, bool) or not isinstance(tile_um, int | float) or not 0 < tile_um < np.inf:
        found = f"tile_um {tile_um!r}"
        mend = "extract the tiles by size in µm; a magnification does not tell how many pixels a tile has"
        raise defect(path, found, "the tiles' size in µm", mend)
    extractor = raw.get("extractor")
    name = extractor.get("class") if isinstance(extractor, dict) else None
    return float(tile_um), name.rpartition(".")[2] if isinstance(name, str) else None


def _centres(path: Path) -> np.ndarray:
    mend = "let slideflow write the bags again"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if "arr_0" not in arrays:
                raise defect(path, f"arrays {', '.join(arrays) or 'none'}", "arr_0: the tiles' centres", mend)
            return np.asarray(arrays["arr_0"])
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise defect(path, f"cannot be read ({error})", "slideflow's index: arr_0 (tiles, 2)", mend) from error
