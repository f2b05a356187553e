"""What a bag must be: first by its header (shapes, types), then by its values."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from momkd.slides.bag import Bag
from momkd.slides.remote import FeatureFile
from momkd.slides.sheet import Sheet, Stored, defect

_MEND = "make the feature file again with the tool that wrote it, or list the slide in cohort.exclude"
_FLOATS = (np.float16, np.float32, np.float64)


def check_header(sheet: Sheet) -> tuple[int, int]:
    """Check shapes and types of a file's arrays without reading them; return (P, D).

    Raises FeatureFileError naming the array, its shape and the expected one.
    """
    n_patches, width = _check_features_header(sheet.path, sheet.features, is_vector=sheet.is_vector)
    if sheet.coords is not None:
        _check_coords_header(sheet.path, sheet.coords, n_patches)
    for stored in sheet.edges.values():
        _check_edges_header(sheet.path, stored)
    return n_patches, width


def _check_features_header(path: FeatureFile, features: Stored, *, is_vector: bool) -> tuple[int, int]:
    shape = features.shape
    expected = f"{features.name} (patches, features) of float16, float32 or float64"
    if features.dtype.newbyteorder("=") not in _FLOATS:
        raise defect(path, f"{features} is not floating point", expected, _MEND)
    if is_vector and len(shape) == 1:
        shape = (1, *shape)
    if len(shape) == 3 and shape[0] == 1:
        mend = f"drop the first axis and save {features.name}[0], of shape {shape[1:]}"
        raise defect(path, f"{features} has an extra first axis", expected, mend)
    if len(shape) != 2:
        raise defect(path, f"{features} has {len(shape)} axes", expected, _MEND)
    if shape[0] == 0:
        mend = "segment the slide's tissue again, or list the slide in cohort.exclude"
        raise defect(path, f"{features} holds no patch", "at least one patch", mend)
    if shape[1] == 0:
        raise defect(path, f"{features} holds no feature", expected, _MEND)
    return shape[0], shape[1]


def _check_coords_header(path: FeatureFile, coords: Stored, n_patches: int) -> None:
    expected = f"{coords.name} ({n_patches}, 2): x, y of every patch"
    if coords.dtype.kind not in "iuf":
        raise defect(path, f"{coords} is not numeric", expected, _MEND)
    if coords.shape == (n_patches, 2):
        return
    if coords.shape == (2, n_patches):
        raise defect(path, f"{coords} is transposed", expected, f"save {coords.name}.T")
    if len(coords.shape) == 2 and coords.shape[1] == 2:
        raise defect(path, f"{n_patches} rows of features but {coords.shape[0]} of {coords.name}", expected, _MEND)
    raise defect(path, f"{coords} has the wrong shape", expected, _MEND)


def _check_edges_header(path: FeatureFile, edges: Stored) -> None:
    expected = f"{edges.name} (2, edges) of integers: row 0 the patch, row 1 its neighbour"
    mend = f"remove {edges.name}; momkd builds the graph from coords"
    if edges.dtype.kind not in "iu":
        raise defect(path, f"{edges} is not integer", expected, mend)
    if len(edges.shape) != 2 or edges.shape[0] != 2:
        hint = " is transposed" if len(edges.shape) == 2 and edges.shape[1] == 2 else " has the wrong shape"
        raise defect(path, f"{edges}{hint}", expected, mend)


def as_features(path: FeatureFile, values: np.ndarray) -> np.ndarray:
    """Return features as a C-contiguous native (P, D) float16 or float32 array; float64 becomes float32.

    Raises FeatureFileError for NaN or infinite values (naming the first rows), for values beyond float32, and for
    features that are all zero: a dataset that was created but never filled reads so.
    """
    _check_finite(path, values)
    target = np.float16 if values.dtype == np.float16 else np.float32
    with np.errstate(over="ignore"):
        features = np.ascontiguousarray(values, dtype=target)
    if values.dtype == np.float64 and not np.isfinite(features).all():
        largest = float(np.abs(values).max())
        raise defect(path, f"features reach {largest:.3g}", "values within float32 (3.4e38)", _MEND)
    if _largest_bits(features) == 0:
        raise defect(path, "every feature is 0", "features of an encoder; the file was created but not filled", _MEND)
    return features


# Of IEEE numbers without their sign: infinity, above which is NaN only, as an unsigned integer.
_INFINITE = {np.dtype(np.float16): 0x7C00, np.dtype(np.float32): 0x7F800000}


def _largest_bits(values: np.ndarray) -> int:
    """The largest magnitude of float16 or float32 values as the integer of its bits; 0 where all are 0.

    Integers of float bits are in the order of the magnitudes, and NumPy compares integers several times faster than it
    asks float16 whether it is finite: half the time of reading a slide.
    """
    unsigned: type[np.unsignedinteger] = np.uint16 if values.itemsize == 2 else np.uint32
    bits = np.ascontiguousarray(values).view(unsigned)
    return int((bits & unsigned((1 << (8 * values.itemsize - 1)) - 1)).max(initial=0))


def _check_finite(path: FeatureFile, values: np.ndarray) -> None:
    if values.dtype in _INFINITE and _largest_bits(values) < _INFINITE[values.dtype]:
        return
    finite = np.isfinite(values)
    if finite.all():
        return
    rows = np.flatnonzero(~finite.all(axis=1))
    shown = ", ".join(map(str, rows[:5])) + (" …" if len(rows) > 5 else "")
    found = f"NaN or infinite features in {len(rows)} of {len(values)} patches (rows {shown}, counted from 0)"
    raise defect(path, found, "finite features", _MEND)


def as_coords(path: FeatureFile, values: np.ndarray, um_per_px: float | None = None) -> np.ndarray:
    """Return coordinates as (P, 2) int64 level-0 pixels, µm being divided by ``um_per_px``; fractions are rounded.

    Whole pixels, because momkd's own files store int32 and an imported slide must give the graph of its source.
    Raises FeatureFileError for non-finite or negative values, and where rounding would merge patches (not pixels).
    """
    if values.dtype.kind in "iu":
        if values.size and values.max() > np.iinfo(np.int64).max:
            raise defect(path, f"coords reach {values.max()}", "level-0 pixels", _MEND)
        coords = values.astype(np.int64)
        if um_per_px is not None:
            coords = _whole_pixels(path, coords / um_per_px)
    else:
        wide = values.astype(np.float64)
        coords = _whole_pixels(path, wide if um_per_px is None else wide / um_per_px)
    negative = np.flatnonzero((coords < 0).any(axis=1))
    if len(negative):
        row = int(negative[0])
        x, y = coords[row]
        found = f"coords row {row} is ({x}, {y}), negative" + (f" (and {len(negative) - 1} more)" * (len(negative) > 1))
        raise defect(path, found, "top-left corners in level-0 pixels, 0 or more", _MEND)
    return np.ascontiguousarray(coords)


def _whole_pixels(path: FeatureFile, coords: np.ndarray) -> np.ndarray:
    bad = np.flatnonzero(~(np.abs(coords) < 2**62).all(axis=1))  # catches NaN and infinity too
    if len(bad):
        row = int(bad[0])
        raise defect(path, f"coords row {row} is {tuple(coords[row].tolist())}", "finite level-0 pixels", _MEND)
    whole: np.ndarray = np.rint(coords).astype(np.int64)
    if (whole != coords).any() and len(np.unique(whole, axis=0)) < len(np.unique(coords, axis=0)):
        found = f"coords are fractions of a pixel (row 0: {tuple(coords[0].tolist())})"
        raise defect(path, found, "top-left corners in level-0 pixels", _MEND)
    return whole


def as_edges(path: FeatureFile, name: str, values: np.ndarray, n_patches: int) -> np.ndarray:
    """Return edges as (2, E) int64 in the file's order.

    Raises FeatureFileError where an index is not one of the ``n_patches`` patches.
    """
    if values.size and (values.min() < 0 or values.max() >= n_patches):
        found = f"{name} points to patches {values.min()} … {values.max()}"
        mend = f"remove {name}; momkd builds the graph from coords"
        raise defect(path, found, f"indices 0 … {n_patches - 1} for {n_patches} patches", mend)
    return np.ascontiguousarray(values, dtype=np.int64)


def check_bag(bag: Bag) -> None:
    """Check a bag that was made in memory as strictly as one that was read.

    Raises FeatureFileError naming the slide.
    """

    def stored(name: str, values: np.ndarray) -> Stored:
        return Stored(name, tuple(values.shape), values.dtype, lambda: values)

    name = Path(f"slide {bag.slide_id}")
    edges = {k: stored(f"edge_index_k{k}", values) for k, values in bag.edges.items()}
    coords = None if bag.coords is None else stored("coords", bag.coords)
    check_header(Sheet(name, bag.layout, stored("features", bag.features), coords, edges))
    as_features(name, bag.features)
    if bag.coords is not None:
        as_coords(name, bag.coords)
    for k, values in bag.edges.items():
        as_edges(name, f"edge_index_k{k}", values, bag.n_patches)
