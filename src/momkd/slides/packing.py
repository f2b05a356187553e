"""Feature files → a packed store: resumable, one slide in memory at a time, never out of date without saying so."""

from __future__ import annotations

import dataclasses
import logging
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from momkd.errors import FeatureFileError, Problem, raise_problems
from momkd.slides.bag import Bag
from momkd.slides.graph import knn_edges
from momkd.slides.mpp import SlideMpp, mpp_of
from momkd.slides.readers import bag_digest, read_bag
from momkd.slides.remote import FeatureFile
from momkd.slides.sheet import defect, problem_of
from momkd.slides.store import (
    COORDS,
    DATA_FILES,
    EDGES,
    FEATURES,
    INDEX,
    Entry,
    Fingerprint,
    Index,
    StoreDtype,
    float32_as_bfloat16,
    head,
    read_index,
    write_index,
)

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]

_ALIGN = 64
_INT32_MAX = int(np.iinfo(np.int32).max)
_SAVE_EVERY_SECONDS = 30.0
_LOCK = ".lock"


@dataclass(frozen=True)
class PackReport:
    """What packing did, by slide id: ``packed`` from their sources, ``refreshed`` (a file was touched, its contents
    are the same), ``unchanged``.
    """

    path: Path
    packed: tuple[str, ...]
    refreshed: tuple[str, ...]
    unchanged: tuple[str, ...]


def pack_store(
    path: Path,
    sources: Mapping[str, FeatureFile],
    *,
    dtype: StoreDtype = "float16",
    graph_k: int = 0,
    slide_mpp: SlideMpp = None,
    progress: Progress | None = None,
) -> PackReport:
    """Bring a store up to date with the feature files of some slides, {slide id: file}; make it where there is none.

    A slide is taken as it is in the store when its file has the size and times that it had; else the file is read, and
    packed again where its contents changed. ``graph_k`` > 0 also stores the graph of every slide that has coordinates
    and brings no graph. Slides of the store that are not in ``sources`` stay. A damaged store is packed anew.
    Interrupted, it goes on where it was. Memory: one slide. One process packs at a time; others wait for it.

    Raises FeatureFileError listing every file that cannot be packed: unreadable, or with values that ``dtype`` cannot
    hold; for a store of another dtype; and for a folder that holds something else.
    """
    path = Path(path)
    fresh = _fresh(path, sources, dtype, graph_k, slide_mpp)
    if fresh is not None:
        return fresh
    _refuse_other_folders(path)
    path.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        index = _readable_index(path) or _new_store(path, dtype)
        _check_dtype(path, index, dtype)
        packer = _Packer(path, index, graph_k, slide_mpp)
        try:
            problems = packer.pack(sources, progress)
        finally:
            packer.close()
    raise_problems(problems, FeatureFileError)
    return PackReport(path, tuple(packer.packed), tuple(packer.refreshed), tuple(packer.unchanged))


def _fresh(
    path: Path, sources: Mapping[str, FeatureFile], dtype: StoreDtype, graph_k: int, slide_mpp: SlideMpp
) -> PackReport | None:
    """The report of a store that needs nothing, found without a lock and without writing; else None."""
    index = _readable_index(path)
    if index is None:
        return None
    _check_dtype(path, index, dtype)
    for slide_id, source in sources.items():
        entry = index.slides.get(slide_id)
        if (
            entry is None
            or not _untouched(entry, source, mpp_of(slide_mpp, source.stem))
            or _lacks_graph(entry, graph_k)
        ):
            return None
    return PackReport(path, (), (), tuple(sorted(sources)))


def _untouched(entry: Entry, source: FeatureFile, slide_mpp: float | None) -> bool:
    try:
        return entry.slide_mpp == slide_mpp and entry.source == Fingerprint.of(source)
    except OSError:
        return False  # reading it will say what is wrong


def _lacks_graph(entry: Entry, k: int) -> bool:
    wanted = k > 0 and entry.coords is not None and entry.n_patches > 1 and not entry.own_edges
    return wanted and k not in entry.knn_edges


def _check_dtype(path: Path, index: Index, dtype: StoreDtype) -> None:
    if index.dtype != dtype:
        mend = f"give another features.store, set features.store_dtype: {index.dtype}, or delete the folder"
        raise defect(path, f"a store of {index.dtype}", f"one of {dtype}", mend)


def _readable_index(path: Path) -> Index | None:
    """The index of a store; None where there is none, or where it is damaged (logged) and has to be made anew."""
    if not (path / INDEX).is_file():
        return None
    try:
        return read_index(path)
    except FeatureFileError as error:
        logger.warning("packing anew: %s", error)
        return None


def _refuse_other_folders(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise defect(path, "a file", "a folder for the store", "give another features.store")
    known = {INDEX, _LOCK, *DATA_FILES}
    others = sorted(item.name for item in path.iterdir() if item.name not in known) if path.is_dir() else []
    others = [name for name in others if not (name.startswith(".index.") and ".tmp" in name)]
    if others:
        raise defect(
            path, f"a folder that holds {others[0]}", "a store or an empty folder", "give another features.store"
        )


def _new_store(path: Path, dtype: StoreDtype) -> Index:
    """Begin an empty store. Older files are unlinked, not cut short: whoever has them mapped keeps them."""
    store_id = secrets.token_hex(16)
    for name in (INDEX, *DATA_FILES):
        (path / name).unlink(missing_ok=True)
    for name in DATA_FILES:
        (path / name).write_bytes(head(store_id))
    index = Index(store_id, dtype, {name: len(head(store_id)) for name in DATA_FILES}, {})
    write_index(path, index)
    return index


class _Packer:
    """Appends slides to the data files, and now and then the index that knows of them."""

    def __init__(self, path: Path, index: Index, graph_k: int, slide_mpp: SlideMpp) -> None:
        self.path, self.index, self.graph_k, self.slide_mpp = path, index, graph_k, slide_mpp
        self.packed: list[str] = []
        self.refreshed: list[str] = []
        self.unchanged: list[str] = []
        self._files: dict[str, BinaryIO] = {}
        for name in DATA_FILES:
            file = (path / name).open("rb+")
            # What lies beyond the index's sizes is left of a pack that was cut off; nobody has it mapped.
            file.truncate(index.sizes[name])
            file.seek(0, os.SEEK_END)
            self._files[name] = file
        self._saved = time.monotonic()

    def pack(self, sources: Mapping[str, FeatureFile], progress: Progress | None) -> list[Problem]:
        """Bring every slide up to date; returns what stood in the way."""
        problems: list[Problem] = []
        try:
            for number, slide_id in enumerate(sorted(sources), 1):
                try:
                    self._slide(slide_id, sources[slide_id])
                except FeatureFileError as error:
                    problems.append(problem_of(error))
                if progress is not None:
                    progress(number, len(sources), slide_id)
                if time.monotonic() - self._saved >= _SAVE_EVERY_SECONDS:
                    self.save()
        finally:
            self.save()
        return problems

    def _slide(self, slide_id: str, source: FeatureFile) -> None:
        entry = self.index.slides.get(slide_id)
        if entry is not None and _untouched(entry, source, mpp_of(self.slide_mpp, source.stem)):
            self.unchanged.append(slide_id)
        else:
            entry = self._from_source(slide_id, source, entry)
        if _lacks_graph(entry, self.graph_k):
            entry = self._with_graph(entry)
        self.index.slides[slide_id] = entry

    def _from_source(self, slide_id: str, source: FeatureFile, entry: Entry | None) -> Entry:
        """Read a feature file: the entry with its new times where the contents are those of the store, else packed."""
        slide_mpp = mpp_of(self.slide_mpp, source.stem)
        bag, before = _read_still(source, slide_mpp)
        digest = bag_digest(bag)
        if entry is not None and entry.content_sha256 == digest:
            self.refreshed.append(slide_id)
            return dataclasses.replace(entry, source=before, slide_mpp=slide_mpp)
        if entry is not None:
            logger.info("%s changed since it was packed, and is packed again", source)
        stored = _as_stored(bag, self.index.dtype)
        made = Entry(
            source=before,
            content_sha256=digest,
            slide_mpp=slide_mpp,
            n_patches=bag.n_patches,
            width=bag.width,
            features=self._append(FEATURES, stored),
            coords=None if bag.coords is None else self._append(COORDS, _as_int32(bag, bag.coords)),
            own_edges={k: (self._append(EDGES, edges.astype("<i4")), edges.shape[1]) for k, edges in bag.edges.items()},
        )
        self.packed.append(slide_id)
        return made

    def _with_graph(self, entry: Entry) -> Entry:
        """Make a slide's graph from its coordinates; edges sorted by patch, then neighbour."""
        file = self._files[COORDS]
        file.flush()
        file.seek(entry.coords or 0)
        coords = np.frombuffer(file.read(8 * entry.n_patches), dtype="<i4").reshape(-1, 2).astype(np.int64)
        file.seek(0, os.SEEK_END)
        edges = knn_edges(coords, self.graph_k)
        place = (self._append(EDGES, edges.astype("<i4")), edges.shape[1])
        return dataclasses.replace(entry, knn_edges={**entry.knn_edges, self.graph_k: place})

    def _append(self, name: str, values: np.ndarray) -> int:
        """Write an array at the end of a data file; returns its offset."""
        file = self._files[name]
        file.write(bytes(-file.tell() % _ALIGN))
        offset = file.tell()
        file.write(np.ascontiguousarray(values).data.cast("B") if values.size else b"")
        return offset

    def save(self) -> None:
        """Make everything so far durable: data first, then the index that names it."""
        for name, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            self.index.sizes[name] = file.tell()
        write_index(self.path, self.index)
        self._saved = time.monotonic()

    def close(self) -> None:
        """Close the data files."""
        for file in self._files.values():
            file.close()


def _read_still(source: FeatureFile, slide_mpp: float | None) -> tuple[Bag, Fingerprint]:
    """Read a file that nobody writes meanwhile."""
    try:
        before = Fingerprint.of(source)
    except OSError as error:
        raise defect(source, f"cannot be read ({error.strerror})", "a feature file") from error
    bag = read_bag(source, slide_mpp=slide_mpp)
    if Fingerprint.of(source) != before:
        raise defect(source, "changed while it was being packed", "a finished file", "run the same command again")
    return bag, before


def _as_stored(bag: Bag, dtype: StoreDtype) -> np.ndarray:
    """Features in the store's type; bfloat16 as its bits."""
    largest = float(np.abs(bag.features).max())
    wider = "set features.store_dtype: float32 (momkd pack --dtype float32)"
    if dtype == "float32":
        return bag.features.astype("<f4")
    if dtype == "float16":
        limit = float(np.finfo(np.float16).max)
        if largest > limit:
            raise defect(
                bag.source, f"features reach {largest:.6g}, which float16 cannot hold", f"up to {limit:.0f}", wider
            )
        rounded = bag.features.astype("<f2")
        is_lost = not rounded.any()
    else:
        rounded = float32_as_bfloat16(bag.features).astype("<u2")
        if int((rounded & 0x7FFF).max()) >= 0x7F80:
            raise defect(
                bag.source, f"features reach {largest:.6g}, which bfloat16 cannot hold", "up to 3.38e38", wider
            )
        is_lost = not (rounded & 0x7FFF).any()
    if is_lost:
        raise defect(bag.source, f"every feature is 0 in {dtype}", "larger values", wider)
    return rounded


def _as_int32(bag: Bag, coords: np.ndarray) -> np.ndarray:
    if coords.size and coords.max() > _INT32_MAX:
        raise defect(bag.source, f"coords reach {coords.max()}", f"level-0 pixels up to {_INT32_MAX}")
    return coords.astype("<i4")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the store's lock: where the system has advisory locks, one process packs at a time."""
    with (path / _LOCK).open("a") as file:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
