"""momkd's own feature file: one contiguous HDF5 file a slide, written whole or not at all.

    features (P, D) float16 | float32     coords (P, 2) int32, optional     edge_index_k<k> (2, E) int32, optional
    attributes of the file: momkd_bag_format 1, producer, content_sha256; where known encoder, patch_size_level0
    (level-0 px), mpp (µm per level-0 px), source_file, source_sha256, source_layout, settings (JSON)

Contiguous and uncompressed, because such a file reads whole and in random rows an order of magnitude faster than one
with (1, D) chunks; float16, because it halves that again. Equal bags give equal bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from momkd.errors import Problem
from momkd.files import atomic_path
from momkd.slides.bag import Bag
from momkd.slides.checks import as_coords, check_bag
from momkd.slides.graph import knn_edges
from momkd.slides.hdf5 import open_h5, text
from momkd.slides.layouts import FORMAT_ATTRIBUTE, FORMAT_VERSION
from momkd.slides.readers import bag_digest, inspect_bag, read_bag
from momkd.slides.sheet import defect

_INT32_MAX = np.iinfo(np.int32).max
_FLOAT16_MAX = float(np.finfo(np.float16).max)
_FLOAT16_NORMAL = float(np.finfo(np.float16).tiny)


@dataclass(frozen=True)
class SourceNote:
    """What a feature file was made from: the source's name, SHA-256 and layout, and the settings used, as JSON."""

    file: str
    sha256: str
    layout: str = ""
    settings: str = ""


def write_bag(
    bag: Bag, target: Path, *, dtype: str = "float16", producer: str, source_note: SourceNote | None = None
) -> None:
    """Write a bag as momkd's own feature file, atomically (temporary file, fsync, rename).

    ``dtype`` "float16" or "float32" is how features are stored; ``producer`` names the program. The bag is checked
    first, as strictly as when reading. Raises FeatureFileError, naming the slide, for a bad bag, for values that
    float16 cannot hold, for coordinates beyond int32, and for a target that is not ``<slide_id>.h5``.
    """
    target = Path(target)
    if target.name != f"{bag.slide_id}.h5":
        raise defect(target, f"the target of slide {bag.slide_id}", f"a file named {bag.slide_id}.h5")
    check_bag(bag)
    stored = _as_stored(bag, dtype)
    attributes: dict[str, object] = {
        FORMAT_ATTRIBUTE: FORMAT_VERSION,
        "producer": producer,
        "content_sha256": bag_digest(stored),
        "encoder": bag.encoder,
        "patch_size_level0": bag.patch_size_level0,
        "mpp": bag.mpp,
    }
    if source_note is not None:
        attributes |= {
            "source_file": source_note.file,
            "source_sha256": source_note.sha256,
            "source_layout": source_note.layout or None,
            "settings": source_note.settings or None,
        }
    with _new_h5(target) as file:
        file.create_dataset("features", data=stored.features)
        if stored.coords is not None:
            file.create_dataset("coords", data=stored.coords.astype(np.int32))
        for k, edges in stored.edges.items():
            file.create_dataset(f"edge_index_k{k}", data=edges.astype(np.int32))
        for name, value in attributes.items():
            if value is not None:
                file.attrs[name] = value


@contextmanager
def _new_h5(target: Path) -> Iterator[Any]:
    """An HDF5 file that is whole, or not there; raises OSError where it cannot be written.

    It is made in memory: on a disk that is full, HDF5 raises in places where nothing can be caught.
    """
    with h5py.File(target.name, "w", driver="core", backing_store=False) as file:
        yield file
        file.flush()
        image = file.id.get_file_image()
    with atomic_path(target) as temporary:
        temporary.write_bytes(image)


def read_notes(path: Path) -> Mapping[str, str]:
    """Return the text attributes of a feature file of ours (producer, content_sha256, source_file …) that are there.

    Raises FeatureFileError where the file cannot be opened.
    """
    names = ("producer", "content_sha256", "source_file", "source_sha256", "source_layout", "settings")
    with open_h5(Path(path)) as file:
        return {name: value for name in names if (value := text(file, name)) is not None}


def write_graph(path: Path, k: int) -> bool:
    """Add the KNN graph edge_index_k<k> to a feature file of ours, rewriting it atomically; everything else stays.

    Returns False, and writes nothing, where the file has that graph. Raises FeatureFileError where the file has another
    layout (files of other tools are never changed), or no coordinates; ValueError for k below 1.
    """
    path = Path(path)
    if k < 1:
        raise ValueError(f"k is {k}; expected 1 or more")
    info = inspect_bag(path)
    if info.layout != "momkd":
        mend = f"momkd import-features {path.parent} --out DIR --k {k}"
        raise defect(path, f"a file of layout {info.layout}, which momkd does not change", "momkd's own file", mend)
    if k in info.edge_ks:
        return False
    bag, notes = with_graph(read_bag(path), k), read_notes(path)
    note = None
    if "source_file" in notes:
        rest = (notes.get(name, "") for name in ("source_sha256", "source_layout", "settings"))
        note = SourceNote(notes["source_file"], *rest)
    write_bag(bag, path, dtype=info.dtype, producer=notes.get("producer", "unknown"), source_note=note)
    return True


def with_graph(bag: Bag, k: int) -> Bag:
    """Return the bag with edge_index_k<k> from its coordinates, or as it is where it has that graph.

    Raises FeatureFileError where it has no coordinates and more than one patch.
    """
    if k in bag.edges:
        return bag
    if bag.coords is None and bag.n_patches > 1:
        mend = "use feature files with coordinates, or import without a graph and set graph.k: 0"
        raise defect(bag.source, f"no coords, so no graph of k {k} can be made", "coords", mend)
    edges = np.empty((2, 0), dtype=np.int64) if bag.coords is None else knn_edges(bag.coords, k)
    return dataclasses.replace(bag, edges=dict(sorted({**bag.edges, k: edges}.items())))


def precision_note(bag: Bag) -> Problem | None:
    """Return a note where float16 would blur whole columns: their values all lie below 6.1e-5, its smallest normal."""
    if bag.features.dtype == np.float16:
        return None
    largest = np.abs(bag.features).max(axis=0)
    small = int(((largest > 0) & (largest < _FLOAT16_NORMAL)).sum())
    if not small:
        return None
    found = f"{small} of {bag.width} features stay below {_FLOAT16_NORMAL:.1e}, where float16 keeps fewer digits"
    return Problem(f"slide {bag.slide_id}", found, mend="import with --dtype float32", severity="note")


def _as_stored(bag: Bag, dtype: str) -> Bag:
    """Return the bag as it will be read back from the file."""
    name = f"slide {bag.slide_id}"
    if dtype not in ("float16", "float32"):
        raise defect(name, f"dtype {dtype!r}", "float16 or float32")
    if dtype == "float16" and bag.features.dtype != np.float16:
        largest = float(np.abs(bag.features).max())
        if largest > _FLOAT16_MAX:
            found = f"features reach {largest:.6g}, which float16 cannot hold"
            raise defect(name, found, f"values up to {_FLOAT16_MAX:.0f}", "import with --dtype float32")
    features = bag.features.astype(dtype)
    if not features.any():
        raise defect(name, "every feature is 0 in float16", "larger values", "import with --dtype float32")
    coords = None if bag.coords is None else as_coords(Path(name), bag.coords)
    if coords is not None and coords.max() > _INT32_MAX:
        raise defect(name, f"coords reach {coords.max()}", f"level-0 pixels up to {_INT32_MAX}")
    return dataclasses.replace(bag, features=features, coords=coords)
