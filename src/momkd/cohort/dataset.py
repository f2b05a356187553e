"""A checked cohort, ready for a study: who is in it, their bags, their omics."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from momkd.cohort.examine import Examination, examine
from momkd.cohort.table import Cohort
from momkd.errors import ExperimentError, raise_problems
from momkd.experiment import Experiment
from momkd.omics.table import OmicsTable
from momkd.slides.bag import Bag, BagInfo
from momkd.slides.graph import bag_edges
from momkd.slides.mpp import SlideMpp
from momkd.slides.packing import PackReport, Progress, pack_store
from momkd.slides.readers import bag_digest, read_bag
from momkd.slides.remote import RemoteFile
from momkd.slides.store import FeatureStore

if TYPE_CHECKING:
    import torch

# Of bags that one opened cohort keeps in memory, where nothing else is said.
CACHE_BYTES = 2 << 30


class CohortData:
    """Patients, slides, omics, and bags on demand.

    ``cohort`` is who is in it, ``omics`` the omics tables by name. Bags are kept in memory up to ``cache_bytes``
    (features, coordinates and edges as read), the least recently used going first; for one thread at a time. With a
    ``store``, bags are views of it and none is kept. Pickled, it leaves the bags behind.
    """

    def __init__(
        self,
        cohort: Cohort,
        headers: dict[str, BagInfo],
        omics: Mapping[str, OmicsTable],
        slide_mpp: SlideMpp = None,
        cache_bytes: int = CACHE_BYTES,
        store: FeatureStore | None = None,
    ) -> None:
        self.cohort, self.omics, self.store = cohort, omics, store
        self._cache_bytes = cache_bytes
        self._headers, self._slide_mpp = headers, slide_mpp
        self._paths = dict(zip(cohort.slides["slide_id"], cohort.slides["path"], strict=True))
        self._slides: dict[str, list[str]] = {}
        for patient, slide in zip(cohort.slides["patient_id"], cohort.slides["slide_id"], strict=True):
            self._slides.setdefault(patient, []).append(slide)
        self._ordered: set[str] = set()
        self._kept: OrderedDict[str, Bag] = OrderedDict()
        self._left = cache_bytes

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), (
            self.cohort,
            self._headers,
            self.omics,
            self._slide_mpp,
            self._cache_bytes,
            self.store,
        )

    @property
    def width(self) -> int:
        """D, the feature width that all slides share."""
        return next(iter(self._headers.values())).width

    @property
    def labels(self) -> dict[str, int]:
        """The class number of every patient; the quarter of a continuous value; survival: 1 with the event, else 0."""
        return {str(patient): int(label) for patient, label in self.cohort.patients["label"].items()}

    @property
    def values(self) -> dict[str, float]:
        """The value of every patient, for survival the time; NaN where the task has classes."""
        return {str(patient): float(value) for patient, value in self.cohort.patients["value"].items()}

    def n_patches(self, slide_id: str) -> int:
        """P of a slide, from its header."""
        return self._headers[slide_id].n_patches

    def fingerprint(self) -> str:
        """SHA-256 of what the feature files are by headers, sizes and, behind a URL, versions; values are not read."""
        lines = []
        for slide_id, info in sorted(self._headers.items()):
            path = self._paths[slide_id]
            if isinstance(path, RemoteFile):
                size = f"{path.size} {path.version}"
            else:
                size = str(path.stat().st_size if path.is_file() else 0)
            lines.append(f"{slide_id} {info.n_patches} {info.width} {info.dtype} {size}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def bag(self, slide_id: str) -> Bag:
        """Return the validated bag of a slide. Raises FeatureFileError."""
        if self.store is not None:
            return self.store.bag(self._headers[slide_id])
        bag = self._kept.pop(slide_id, None)
        if bag is None:
            bag = read_bag(self._paths[slide_id], slide_mpp=self._slide_mpp)
            self._left -= _size(bag)
        self._kept[slide_id] = bag
        while self._left < 0 and self._kept:
            _, dropped = self._kept.popitem(last=False)
            self._left += _size(dropped)
        return bag

    def tensor(self, slide_id: str) -> torch.Tensor:
        """Return a slide's features as a tensor (P, D), as they are stored: float16, bfloat16 or float32."""
        if self.store is not None:
            return self.store.tensor(slide_id)
        import torch

        return torch.from_numpy(self.bag(slide_id).features)

    def edges(self, slide_id: str, k: int) -> np.ndarray:
        """Return the graph (2, E) int64 of a slide as ``bag_edges`` does, from the store where it is there."""
        stored = self.store.graph(slide_id, k) if self.store is not None and k > 0 else None
        return bag_edges(self.bag(slide_id), k) if stored is None else stored

    def slides_of(self, patient_id: str) -> tuple[str, ...]:
        """Return the slides of a patient in the order of their content digests.

        Not in the order of their names, so that renaming slides changes no result. A patient's slides are read for
        that, once, where there are several. Raises FeatureFileError.
        """
        slides = self._slides[patient_id]
        if len(slides) > 1 and patient_id not in self._ordered:
            slides.sort(key=lambda slide: (self._digest(slide), slide))
            self._ordered.add(patient_id)
        return tuple(slides)

    def _digest(self, slide_id: str) -> str:
        return bag_digest(self.bag(slide_id)) if self.store is None else self.store.digest(slide_id)


def load_data(experiment: Experiment, *, cache_bytes: int = CACHE_BYTES, packed: bool = True) -> CohortData:
    """Examine a cohort and open it, with its store if ``features.store`` names one and ``packed`` is true.

    A store is made, or brought up to date with the feature files, first. Raises CohortError listing every problem of
    the tables and of the feature files' headers at once, FeatureFileError for files that cannot be packed. Whether
    folds can be made is not asked: an external cohort may be too small for them.
    """
    found = examine(experiment, folds=False)
    raise_problems(found.problems)
    store = None
    if packed and experiment.features.store is not None:
        _pack(experiment, found, None)
        store = FeatureStore(experiment.features.store)
    return CohortData(found.cohort, found.headers, found.omics, found.slide_mpp, cache_bytes, store)


def pack_features(experiment: Experiment, *, progress: Progress | None = None) -> PackReport:
    """Make the experiment's ``features.store``, or bring it up to date with the feature files of the cohort.

    Raises CohortError listing every problem of the cohort, FeatureFileError for files that cannot be packed, and
    ExperimentError where the experiment names no store.
    """
    if experiment.features.store is None:
        raise ExperimentError("the experiment names no features.store; set it, or give momkd pack --store FOLDER")
    found = examine(experiment, folds=False)
    raise_problems(found.problems)
    return _pack(experiment, found, progress)


def _pack(experiment: Experiment, found: Examination, progress: Progress | None) -> PackReport:
    features = experiment.features
    if features.store is None:
        raise ValueError("no features.store")
    return pack_store(
        features.store,
        dict(zip(found.cohort.slides["slide_id"], found.cohort.slides["path"], strict=True)),
        dtype=features.store_dtype,
        graph_k=experiment.graph.k,
        slide_mpp=found.slide_mpp,
        progress=progress,
    )


def _size(bag: Bag) -> int:
    coords = 0 if bag.coords is None else bag.coords.nbytes
    return int(bag.features.nbytes + coords + sum(edges.nbytes for edges in bag.edges.values()))
