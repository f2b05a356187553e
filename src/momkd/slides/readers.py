"""Any feature file → a validated bag."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from momkd.slides.bag import Bag, BagInfo
from momkd.slides.cache import local_copy
from momkd.slides.checks import as_coords, as_edges, as_features, check_header
from momkd.slides.hdf5 import open_h5
from momkd.slides.layouts import describe_h5
from momkd.slides.lazyslide import open_lazyslide
from momkd.slides.mpp import SlideMpp, mpp_of
from momkd.slides.remote import FeatureFile, RemoteFile
from momkd.slides.sheet import Sheet, defect
from momkd.slides.tensors import describe_pt


def read_bag(path: FeatureFile, *, slide_mpp: SlideMpp = None, table: str | None = None) -> Bag:
    """Read one feature file of any known layout as a Bag, everything checked.

    ``slide_mpp`` (µm per level-0 pixel, of all slides or by slide id) turns coordinates in µm into pixels and fills
    ``mpp`` where the file has none; a file's own mpp wins. ``table`` names the features of a LazySlide store that has
    several. The slide id is the file name without its last suffix. A file behind a URL is read from its copy in the
    cache. Raises FeatureFileError naming file, finding and
    expectation; no failure ever gives an empty or a made-up bag.
    """
    path = _place(path)
    with local_copy(path) as file, _sheet(file, mpp_of(slide_mpp, path.stem), table) as sheet:
        n_patches, width = check_header(sheet)
        features = as_features(file, sheet.features.read().reshape(n_patches, width))
        coords = None if sheet.coords is None else as_coords(file, sheet.coords.read(), sheet.um_per_px)
        edges = {k: as_edges(file, s.name, s.read(), n_patches) for k, s in sheet.edges.items()}
    return Bag(
        slide_id=path.stem,
        features=features,
        coords=coords,
        patch_size_level0=sheet.patch_size_level0,
        mpp=sheet.mpp,
        encoder=sheet.encoder,
        edges=edges,
        layout=sheet.layout,
        source=path,
    )


def inspect_bag(path: FeatureFile, *, slide_mpp: SlideMpp = None, table: str | None = None) -> BagInfo:
    """Read what a feature file's header says: sizes, types, names; about a millisecond, whatever its size.

    Shapes and types are checked as ``read_bag`` does; values (NaN, negative coordinates, edge indices) are not read.
    Raises FeatureFileError.
    """
    path = _place(path)
    with _sheet(path, mpp_of(slide_mpp, path.stem), table) as sheet:
        n_patches, width = check_header(sheet)
        return BagInfo(
            slide_id=path.stem,
            n_patches=n_patches,
            width=width,
            dtype=sheet.features.dtype.name,
            has_coords=sheet.coords is not None,
            edge_ks=tuple(sheet.edges),
            patch_size_level0=sheet.patch_size_level0,
            mpp=sheet.mpp,
            encoder=sheet.encoder,
            layout=sheet.layout,
            source=path,
        )


def _place(path: FeatureFile) -> FeatureFile:
    return path if isinstance(path, RemoteFile) else Path(path)


@contextmanager
def _sheet(path: FeatureFile, slide_mpp: float | None, table: str | None) -> Iterator[Sheet]:
    """Open a file, or a store, by its suffix and describe it."""
    if path.suffix == ".h5":
        with open_h5(path) as file:
            yield describe_h5(path, file, slide_mpp)
    elif isinstance(path, Path) and path.suffix == ".pt":
        yield describe_pt(path, slide_mpp)
    elif isinstance(path, Path) and path.suffix == ".zarr":
        with open_lazyslide(path, slide_mpp, table) as sheet:
            yield sheet
    else:
        found = f"a file of type {path.suffix or 'none'}, which this version does not read"
        mend = "export the features with TRIDENT, CLAM, STAMP or LazySlide, or make them with momkd extract"
        raise defect(path, found, "<slide>.h5, <slide>.pt or <slide>.zarr", mend)


def bag_digest(bag: Bag) -> str:
    """Return the SHA-256 (hex) of a bag's contents: features with type and shape, coordinates, edges; not its name."""
    digest = hashlib.sha256()

    def add(name: str, values: np.ndarray, dtype: str) -> None:
        digest.update(f"{name} {dtype} {values.shape};".encode())
        digest.update(np.ascontiguousarray(values, dtype=dtype).data)

    add("features", bag.features, f"<f{bag.features.dtype.itemsize}")
    if bag.coords is not None:
        add("coords", bag.coords, "<f8")
    for k in sorted(bag.edges):
        add(f"edge_index_k{k}", bag.edges[k], "<i8")
    return digest.hexdigest()
