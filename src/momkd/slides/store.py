"""The packed features of a cohort: a few large files that are mapped, not read.

    STORE/features.bin   features of one slide after another, float16, bfloat16 or float32, little-endian
          coords.bin     coordinates, int32 level-0 px      edges.bin   graphs (2, E), int32
          index.json     where each slide lies, what it was packed from, and the sizes of the files; written last

Every process that maps a store reads through the one page cache of the machine, so folds, workers and ranks share its
memory. Data files only ever grow and the index is replaced whole: whoever has a store open goes on seeing what it
opened, and a crash leaves the last index with everything that it names. ``packing.py`` writes stores.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np

from momkd.errors import FeatureFileError
from momkd.files import read_json, write_json
from momkd.slides.bag import Bag, BagInfo
from momkd.slides.remote import FeatureFile, RemoteFile
from momkd.slides.sheet import defect
from momkd.slides.sources import source_files

if TYPE_CHECKING:
    import torch

StoreDtype = Literal["float16", "bfloat16", "float32"]
FORMAT_VERSION = 1
INDEX, FEATURES, COORDS, EDGES = "index.json", "features.bin", "coords.bin", "edges.bin"
DATA_FILES = (FEATURES, COORDS, EDGES)
# Each data file begins with this, then the store's id (32 hex digits), so that files of two stores cannot be mixed up.
MAGIC = b"momkd feature store, version 1\n\n"
HEAD_BYTES = len(MAGIC) + 32
_REPACK = "delete the folder, or run `momkd pack` on the experiment: it packs a damaged store anew"


@dataclass(frozen=True)
class Fingerprint:
    """What a source file looked like when it was packed; times in ns. Equal fingerprints: it was not touched since."""

    name: str
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: FeatureFile) -> Self:
        """Look at a source: the size of all its files, and the latest of their times.

        A file behind a URL has a number made of its URL and version in the place of the times.
        """
        if isinstance(path, RemoteFile):
            mark = int(hashlib.sha256(f"{path.url}\n{path.version}".encode()).hexdigest()[:15], 16)
            return cls(path.name, path.size, mark, mark)
        states = [file.stat() for file in source_files(path)] or [path.stat()]
        size = sum(state.st_size for state in states)
        return cls(path.name, size, max(s.st_mtime_ns for s in states), max(s.st_ctime_ns for s in states))


@dataclass(frozen=True)
class Entry:
    """One slide of a store.

    ``content_sha256`` is ``bag_digest`` of the source as read; ``slide_mpp`` the setting it was read with. Places are
    byte offsets: ``features`` (P, D), ``coords`` (P, 2) or None, ``own_edges`` and ``knn_edges`` {k: (offset, E)}, the
    graphs that the source brings and those made from its coordinates.
    """

    source: Fingerprint
    content_sha256: str
    slide_mpp: float | None
    n_patches: int
    width: int
    features: int
    coords: int | None
    own_edges: dict[int, tuple[int, int]] = field(default_factory=dict)
    knn_edges: dict[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Index:
    """What index.json says: the store's id, how features are stored, the sizes of the data files, the slides."""

    id: str
    dtype: StoreDtype
    sizes: dict[str, int]
    slides: dict[str, Entry]


class FeatureStore:
    """An open store. Arrays are views of the mapped files, copied only when written to; pickling sends the path."""

    def __init__(self, path: Path) -> None:
        """Open a store; raises FeatureFileError where it is none, is damaged, or is of another version."""
        self.path = Path(path)
        self.index = read_index(self.path)
        self._maps = {name: _map(self.path / name, self.index.sizes[name]) for name in DATA_FILES}

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        return type(self), (self.path,)

    def __contains__(self, slide_id: object) -> bool:
        return slide_id in self.index.slides

    def digest(self, slide_id: str) -> str:
        """The ``bag_digest`` of the slide's source, from before features were rounded to the store's type."""
        return self.index.slides[slide_id].content_sha256

    def bag(self, info: BagInfo) -> Bag:
        """The bag of a slide: arrays from the store, everything else from its source's header.

        Features are float16 or float32 (P, D); bfloat16 is widened to float32, which is exact.
        """
        entry = self.index.slides[info.slide_id]
        features = self._features(entry)
        if self.index.dtype == "bfloat16":
            features = bfloat16_as_float32(features)
        coords = None
        if entry.coords is not None:
            flat = self._array(COORDS, "<i4", entry.coords, 2 * entry.n_patches)
            coords = flat.reshape(-1, 2).astype(np.int64)
        return Bag(
            slide_id=info.slide_id,
            features=features,
            coords=coords,
            patch_size_level0=info.patch_size_level0,
            mpp=info.mpp,
            encoder=info.encoder,
            edges={k: self._edges(*place) for k, place in entry.own_edges.items()},
            layout=info.layout,
            source=info.source,
        )

    def tensor(self, slide_id: str) -> torch.Tensor:
        """The features of a slide as a tensor (P, D) of the store's type that shares the mapped file's memory."""
        import torch

        entry = self.index.slides[slide_id]
        self._announce(entry)
        features = torch.from_numpy(self._features(entry))
        return features.view(torch.bfloat16) if self.index.dtype == "bfloat16" else features

    def graph(self, slide_id: str, k: int) -> np.ndarray | None:
        """The k-nearest-neighbour graph (2, E) int64 that was made from the slide's coordinates, if it is stored."""
        place = self.index.slides[slide_id].knn_edges.get(k)
        return None if place is None else self._edges(*place)

    def _features(self, entry: Entry) -> np.ndarray:
        """Features as stored: float16, float32, or the bits of bfloat16 as uint16."""
        dtype = {"float16": "<f2", "float32": "<f4", "bfloat16": "<u2"}[self.index.dtype]
        return self._array(FEATURES, dtype, entry.features, entry.n_patches * entry.width).reshape(-1, entry.width)

    def _edges(self, offset: int, count: int) -> np.ndarray:
        return self._array(EDGES, "<i4", offset, 2 * count).reshape(2, -1).astype(np.int64)

    def _array(self, name: str, dtype: str, offset: int, count: int) -> np.ndarray:
        values: np.ndarray = np.frombuffer(self._maps[name], dtype=dtype, count=count, offset=offset)
        return values

    def _announce(self, entry: Entry) -> None:
        """Ask the system to read a slide's features now: in one go, instead of page by page as they are touched."""
        if hasattr(mmap, "MADV_WILLNEED"):
            start = entry.features // mmap.PAGESIZE * mmap.PAGESIZE
            stop = entry.features + entry.n_patches * entry.width * item_bytes(self.index.dtype)
            self._maps[FEATURES].madvise(mmap.MADV_WILLNEED, start, stop - start)


def item_bytes(dtype: StoreDtype) -> int:
    """Bytes of one stored feature."""
    return 4 if dtype == "float32" else 2


def bfloat16_as_float32(bits: np.ndarray) -> np.ndarray:
    """Widen the bits of bfloat16 numbers, uint16, to float32; exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def float32_as_bfloat16(values: np.ndarray) -> np.ndarray:
    """Round finite float32 numbers to bfloat16, to nearest with ties to even; returns their bits, uint16."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint32(16)).astype(np.uint16)


def read_index(path: Path) -> Index:
    """Read and check a store's index, and the sizes and heads of its data files.

    Raises FeatureFileError where the folder is no store, or is damaged: an index that was changed, a data file that is
    shorter than the index says or belongs to another store.
    """
    target = path / INDEX
    if not target.is_file():
        raise defect(path, "no feature store" if path.is_dir() else "no such folder", INDEX, _REPACK)
    try:
        raw = read_json(target)
        version = raw["format_version"]
        if version != FORMAT_VERSION:
            mend = "upgrade momkd, or give another features.store"
            raise defect(target, f"version {version} of the store's format", f"version {FORMAT_VERSION}", mend)
        if raw.pop("sha256") != _digest(raw):
            raise defect(target, "its contents do not match their digest", "an index as it was written", _REPACK)
        index = _parse(raw)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise defect(target, f"not an index ({error!r})", "an index as it was written", _REPACK) from error
    for name in DATA_FILES:
        _check_data_file(path / name, index)
    return index


def write_index(path: Path, index: Index) -> None:
    """Write index.json atomically."""
    raw = {"format_version": FORMAT_VERSION, "id": index.id, "dtype": index.dtype, "sizes": index.sizes}
    raw["slides"] = {slide_id: asdict(entry) for slide_id, entry in sorted(index.slides.items())}
    raw = json.loads(json.dumps(raw))
    write_json(path / INDEX, {**raw, "sha256": _digest(raw)})


def head(store_id: str) -> bytes:
    """The first bytes of every data file."""
    return MAGIC + store_id.encode("ascii")


def _digest(raw: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(raw, sort_keys=True).encode("utf-8")).hexdigest()


def _parse(raw: dict[str, Any]) -> Index:
    if raw["dtype"] not in get_args(StoreDtype):
        raise ValueError(f"dtype {raw['dtype']!r}")
    slides = {}
    for slide_id, fields in raw["slides"].items():
        for name in ("own_edges", "knn_edges"):
            fields[name] = {int(k): (int(place[0]), int(place[1])) for k, place in fields[name].items()}
        slides[slide_id] = Entry(**{**fields, "source": Fingerprint(**fields["source"])})
    return Index(raw["id"], raw["dtype"], {name: int(raw["sizes"][name]) for name in DATA_FILES}, slides)


def _check_data_file(path: Path, index: Index) -> None:
    expected = f"{index.sizes[path.name]} bytes or more"
    if not path.is_file():
        raise defect(path, "no such file", expected, _REPACK)
    size = path.stat().st_size
    if size < index.sizes[path.name]:
        raise defect(path, f"truncated: {size} bytes", expected, _REPACK)
    with path.open("rb") as file:
        if file.read(HEAD_BYTES) != head(index.id):
            raise defect(path, "belongs to another store, or is damaged", f"the file of store {index.id}", _REPACK)


def _map(path: Path, size: int) -> mmap.mmap:
    """Map the first ``size`` bytes; writing to the map changes neither the file nor what others see."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
    except (OSError, ValueError) as error:
        raise FeatureFileError(f"{path}: cannot be mapped: {error}") from error
