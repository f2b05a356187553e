"""A slide → where its patches are: micrometres settled, tissue found, LazySlide's tiles laid over it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from momkd.errors import ExtractError
from momkd.extract.faults import fault
from momkd.extract.overview import Overview, find_tissue, make_overview
from momkd.extract.settings import ExtractSettings, plausible_mpp
from momkd.extract.sources import IMAGE_SUFFIXES, Slide

# A level whose µm per pixel is this close to the wanted one is read as it is.
_SAME = 0.01
# A slide this much coarser than wanted is enlarged: scanners of one magnification differ by about so much.
_ENLARGE = 1.10


@dataclass(frozen=True, eq=False)
class Tiling:
    """Where the patches of a slide are, and how each is read.

    ``coords`` (P, 2) int64, top-left corners in level-0 pixels; ``requests`` P wsidata TileRequests in the same order,
    each giving (patch_size, patch_size, 3) pixels; ``patch_size_level0`` in level-0 pixels; ``mpp`` µm per level-0
    pixel and ``mpp_from`` where it came from (slide, table or --slide-mpp); ``tissue`` shapely polygons in level-0
    pixels (none for a grid over the whole image), ``tissue_mm2`` their area.
    """

    coords: np.ndarray
    requests: tuple[Any, ...]
    patch_size_level0: int
    mpp: float
    mpp_from: str
    overview: Overview
    tissue: tuple[Any, ...]
    tissue_mm2: float


@contextmanager
def open_slide(slide: Slide, settings: ExtractSettings) -> Iterator[tuple[Any, str]]:
    """Open a slide with wsidata, its µm per pixel settled; yield it and where that number came from.

    Raises ExtractError naming the slide, where no reader opens it or its µm per pixel is not known.
    """
    import wsidata

    from momkd.extract.images import register_image_reader

    register_image_reader()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = wsidata.open_wsi(slide.path, store=None, reader=settings.reader)
    except Exception as error:  # a reader may raise anything
        raise fault(named(slide), f"cannot be opened: {_reason(slide.path, error)}", "a whole-slide image") from error
    try:
        mpp, mpp_from = _settle_mpp(slide, opened.properties, settings.slide_mpp)
        opened.set_mpp(mpp)
        yield opened, mpp_from
    finally:
        opened.reader.detach_reader()


def tile(slide: Slide, opened: Any, mpp_from: str, settings: ExtractSettings) -> Tiling:
    """Find the tissue of an open slide and lay patches over it.

    A patch counts if at least ``min_tissue`` of it is tissue and all of it lies on the slide. Raises ExtractError
    naming the slide, where it is too coarse for the mpp asked for, has no tissue, or no patch fits.
    """
    mpp = float(opened.properties.mpp)
    spec = _spec(slide, mpp, [float(d) for d in opened.properties.level_downsample], settings)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            overview = make_overview(opened.reader, mpp)
            tissue = [] if settings.tissue == "none" else find_tissue(overview, settings.tissue)
            if settings.tissue != "none" and not tissue:
                raise _without_tissue(slide)
            coords, requests, size = _tiles(opened, tissue, spec, settings)
    except ExtractError:
        raise
    except Exception as error:  # a reader may raise anything
        raise fault(named(slide), f"cannot be tiled: {_words(error)}", "a readable slide") from error
    if not len(coords):
        raise _without_patch(slide, opened.properties, tissue, settings)
    area = sum(piece.area for piece in tissue) * mpp**2 / 1e6
    return Tiling(coords, requests, size, mpp, mpp_from, overview, tuple(tissue), area)


@dataclass(frozen=True)
class _Spec:
    """What LazySlide is asked for: patches of ``pixels`` every ``stride`` at ``mpp``."""

    mpp: float
    pixels: int
    stride: int


def _spec(slide: Slide, mpp: float, downsamples: list[float], settings: ExtractSettings) -> _Spec:
    pixels, stride = settings.patch_size, settings.patch_size - settings.overlap
    nearest = min((mpp * downsample for downsample in downsamples), key=lambda value: abs(value / settings.mpp - 1))
    if abs(nearest / settings.mpp - 1) <= _SAME:
        return _Spec(nearest, pixels, stride)
    if mpp <= settings.mpp:
        return _Spec(settings.mpp, pixels, stride)
    if mpp > _ENLARGE * settings.mpp:
        found = f"{mpp:g} µm per pixel at its finest level, coarser than --mpp {settings.mpp:g}"
        raise fault(named(slide), found, f"at most {_ENLARGE * settings.mpp:g}", f"extract with --mpp {mpp:g} or more")
    share = settings.mpp / mpp
    return _Spec(mpp, max(1, round(pixels * share)), max(1, round(stride * share)))


def _tiles(
    opened: Any, tissue: list[Any], spec: _Spec, settings: ExtractSettings
) -> tuple[np.ndarray, tuple[Any, ...], int]:
    """Return corners (P, 2) of the patches that lie on the slide, the reads that give them, their level-0 size."""
    import lazyslide
    from wsidata import shapes2tiles
    from wsidata.io import add_tissues

    if tissue:
        add_tissues(opened, "tissues", tissue)
    lazyslide.pp.tile_tissues(
        opened,
        spec.pixels,
        stride_px=spec.stride,
        mpp=spec.mpp,
        # At the far side of a piece a patch may stick out; whether enough of it is tissue is then asked.
        edge=bool(tissue),
        background_fraction=1 - settings.min_tissue,
        tissue_key="tissues" if tissue else None,
    )
    if "tiles" not in opened.shapes:
        return np.empty((0, 2), np.int64), (), 0
    size = int(opened.tile_spec("tiles").base_width)
    requests = shapes2tiles(opened, "tiles")
    coords = np.array([(request.x, request.y) for request in requests], np.int64).reshape(-1, 2)
    left, top, width, height = (int(value) for value in opened.properties.bounds)
    beyond = (coords < (left, top)) | (coords + size > (left + width, top + height))
    inside = ~np.any(beyond, axis=1)
    wanted = (settings.patch_size, settings.patch_size)
    resized = [
        request._replace(dsize=None if (request.width, request.height) == wanted else wanted)
        for request, keep in zip(requests, inside.tolist(), strict=True)
        if keep
    ]
    return coords[inside], tuple(resized), size


def _settle_mpp(slide: Slide, properties: Any, given: float | None) -> tuple[float, str]:
    """Return µm per level-0 pixel and whence: the table's (it is about this very slide), the slide's own, the option's.

    Metadata that no microscope could have (72 dpi of a TIFF are 353 µm) count as none.
    """
    if slide.mpp is not None:
        return slide.mpp, "table"
    own = properties.mpp
    if own is not None and plausible_mpp(float(own)):
        return float(own), "slide"
    if given is not None:
        return given, "--slide-mpp"
    found = "no µm per pixel in its metadata"
    if own is not None:
        found = f"{float(own):g} µm per pixel in its metadata, which no microscope has"
    power = properties.magnification
    hint = "" if power is None else f"; its magnification of {power:g}× suggests {10 / power:g}"
    mend = (
        "give --slide-mpp 0.5 (20× slides) or 0.25 (40×) for all slides without one, "
        f"or a table of slides with columns file and mpp{hint}"
    )
    raise fault(named(slide), found, "µm per level-0 pixel", mend)


def named(slide: Slide) -> str:
    """Return a slide's id and file, as errors name it."""
    return f"slide {slide.slide_id} ({slide.path})"


def _without_tissue(slide: Slide) -> ExtractError:
    mend = "look at the slide; --tissue entropy finds pale or non-H&E tissue, --tissue none takes the whole image"
    return fault(named(slide), "no tissue found", "stained tissue", mend)


def _without_patch(slide: Slide, properties: Any, tissue: list[Any], settings: ExtractSettings) -> ExtractError:
    um = settings.patch_size * settings.mpp
    height, width = (float(value) * properties.mpp for value in properties.shape)
    found = f"no patch of {settings.patch_size} px = {um:g} µm fits"
    if tissue:
        found += f" on the tissue with {100 * settings.min_tissue:g} % of it covered"
    return fault(named(slide), f"{found}; the image is {width:.0f} × {height:.0f} µm", "one patch or more", _SMALLER)


_SMALLER = "give a smaller --patch-size, a lower --min-tissue, or leave the slide out"


def _reason(path: Path, error: Exception) -> str:
    """Say why nothing opened a file: wsidata tries every reader and forgets what each one said."""
    from wsidata.reader import READERS

    names = ["openslide", *(["image"] if path.suffix.lower() in IMAGE_SUFFIXES else [])]
    said = []
    for name in names:
        try:
            READERS[name](path)
        except Exception as reason:  # noqa: BLE001 - a reader may raise anything
            said.append(f"{name}: {_words(reason)}")
    return "; ".join(said) or _words(error)


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
