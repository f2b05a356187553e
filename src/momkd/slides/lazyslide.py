"""LazySlide stores: ``<slide>.zarr``, a SpatialData folder with a table of features and a table of tile polygons."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from momkd.slides.sheet import Sheet, Stored, defect

_MEND = "let LazySlide write the store again"
# Well-known binary of a polygon of one ring: byte order, type 3, one ring, number of points; then x and y of each.
_HEAD, _POLYGON = struct.Struct("<BIII"), 3


@contextmanager
def open_lazyslide(path: Path, slide_mpp: float | None, table: str | None = None) -> Iterator[Sheet]:
    """Describe a LazySlide store; ``table`` names the features where it holds those of several encoders.

    Coordinates are the upper left corners of the tile polygons, joined to the features by tile id. A store that has no
    mpp takes ``slide_mpp``. Raises FeatureFileError for what is no such store, or a damaged one.
    """
    import zarr

    if not path.is_dir():
        raise defect(path, "a file" if path.exists() else "no such folder", "a LazySlide store, which is a folder")
    try:
        root = zarr.open_group(str(path), mode="r")
        tables = {
            str(name): group
            for name, group in (root["tables"].groups() if "tables" in root else ())  # type: ignore[union-attr]
            if "X" in group
        }
        yield _describe(path, root, tables, _choose(path, tables, table), slide_mpp)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        found = f"cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        raise defect(path, found, "a SpatialData store (zarr) that LazySlide wrote", _MEND) from error


def _choose(path: Path, tables: dict[str, Any], table: str | None) -> str:
    names = ", ".join(sorted(tables))
    if table is not None:
        if table not in tables:
            raise defect(path, f"no features {table!r}; it holds {names or 'none'}", "one of them in --table")
        return table
    if not tables:
        mend = "run LazySlide's feature extraction on this slide, or momkd extract"
        raise defect(path, "no table of features", "tables/<encoder>_tiles", mend)
    if len(tables) > 1:
        mend = "import them with momkd import-features --table NAME, and use those files"
        raise defect(path, f"features of several encoders: {names}", "one encoder's features", mend)
    return next(iter(tables))


def _describe(path: Path, root: Any, tables: dict[str, Any], name: str, slide_mpp: float | None) -> Sheet:
    table = tables[name]
    values = table["X"]
    features = Stored(f"tables/{name}/X", tuple(values.shape), np.dtype(values.dtype), lambda: np.asarray(values[:]))
    region, key = str(table.attrs.get("region", "tiles")), str(table.attrs.get("instance_key", "tile_id"))
    corners, sizes = _corners(path, region, key, np.asarray(table["obs"][key][:]))
    coords = Stored(f"shapes/{region}", corners.shape, corners.dtype, lambda: corners)
    mpp = dict(root.attrs.get("slide_properties") or {}).get("mpp")
    return Sheet(
        path,
        "lazyslide",
        features,
        coords,
        patch_size_level0=float(sizes[0, 0]) if len(sizes) and np.ptp(sizes) == 0 else None,
        mpp=_number(mpp) or slide_mpp,
        encoder=name.removesuffix(f"_{region}"),
    )


def _number(value: object) -> float | None:
    """A size above 0, or None."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < np.inf
    return float(value) if usable else None  # type: ignore[arg-type]


def _corners(path: Path, region: str, key: str, tile_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Upper left corner and extent (tiles, 2) float64 of the tiles, in the order of ``tile_ids``."""
    import pyarrow
    import pyarrow.parquet

    file = path / "shapes" / region / "shapes.parquet"
    if not file.is_file():
        raise defect(path, f"no {file.relative_to(path)}", "the tiles' polygons", _MEND)
    try:
        shapes = pyarrow.parquet.read_table(file, columns=[key, "geometry"])
    except (pyarrow.ArrowException, OSError, KeyError) as error:
        raise defect(file, f"cannot be read ({error})", f"a Parquet table with {key} and geometry", _MEND) from error
    ids = shapes[key].to_numpy()
    place = {tile: number for number, tile in enumerate(ids.tolist())}
    wanted = tile_ids.tolist()
    if len(place) != len(ids) or len(set(wanted)) != len(wanted):
        raise defect(path, f"a {key} that occurs twice", f"one {key} a tile", _MEND)
    if missing := [tile for tile in wanted if tile not in place]:
        found = f"{len(missing)} rows of features without a polygon ({key} {missing[0]} first)"
        raise defect(path, found, "a polygon for every row", _MEND)
    polygons = [shapes["geometry"][place[tile]].as_py() for tile in wanted]
    bounds = np.array([_bounds(file, polygon) for polygon in polygons], dtype=np.float64).reshape(-1, 4)
    return bounds[:, :2], bounds[:, 2:] - bounds[:, :2]


def _bounds(file: Path, polygon: bytes) -> tuple[float, float, float, float]:
    """Least x and y, greatest x and y of a polygon in well-known binary."""
    if not isinstance(polygon, bytes) or len(polygon) < _HEAD.size:
        raise defect(file, "a geometry that is no polygon", "polygons in well-known binary", _MEND)
    order, kind, rings, points = _HEAD.unpack_from(polygon)
    if (order, kind, rings) != (1, _POLYGON, 1) or len(polygon) != _HEAD.size + 16 * points or points < 3:
        raise defect(file, "a geometry that is no polygon of one ring", "the tiles' outlines", _MEND)
    ring = np.frombuffer(polygon, dtype="<f8", offset=_HEAD.size).reshape(points, 2)
    (left, top), (right, bottom) = ring.min(axis=0), ring.max(axis=0)
    return float(left), float(top), float(right), float(bottom)
