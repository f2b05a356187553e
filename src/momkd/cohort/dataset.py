"""A checked cohort, ready for a study: who is in it, their bags, their RNA."""

from __future__ import annotations

from collections import OrderedDict

from momkd.cohort.examine import examine
from momkd.cohort.table import Cohort
from momkd.errors import raise_problems
from momkd.experiment import Experiment
from momkd.omics.table import OmicsTable
from momkd.slides.bag import Bag, BagInfo
from momkd.slides.readers import bag_digest, read_bag

_CACHE_BYTES = 2 << 30


class CohortData:
    """Patients, slides, RNA, and bags on demand.

    ``cohort`` is who is in it, ``omics`` the RNA table or None. Bags are kept in memory up to ``cache_bytes``
    (features, coordinates and edges as read), the least recently used going first; for one thread.
    """

    def __init__(
        self,
        cohort: Cohort,
        headers: dict[str, BagInfo],
        omics: OmicsTable | None,
        slide_mpp: float | None = None,
        cache_bytes: int = _CACHE_BYTES,
    ) -> None:
        self.cohort, self.omics = cohort, omics
        self._headers, self._slide_mpp = headers, slide_mpp
        self._paths = dict(zip(cohort.slides["slide_id"], cohort.slides["path"], strict=True))
        self._slides: dict[str, list[str]] = {}
        for patient, slide in zip(cohort.slides["patient_id"], cohort.slides["slide_id"], strict=True):
            self._slides.setdefault(patient, []).append(slide)
        self._ordered: set[str] = set()
        self._kept: OrderedDict[str, Bag] = OrderedDict()
        self._left = cache_bytes

    @property
    def width(self) -> int:
        """D, the feature width that all slides share."""
        return next(iter(self._headers.values())).width

    @property
    def labels(self) -> dict[str, int]:
        """The class number of every patient."""
        return {str(patient): int(label) for patient, label in self.cohort.patients["label"].items()}

    def n_patches(self, slide_id: str) -> int:
        """P of a slide, from its header."""
        return self._headers[slide_id].n_patches

    def bag(self, slide_id: str) -> Bag:
        """Return the validated bag of a slide. Raises FeatureFileError."""
        bag = self._kept.pop(slide_id, None)
        if bag is None:
            bag = read_bag(self._paths[slide_id], slide_mpp=self._slide_mpp)
            self._left -= _size(bag)
        self._kept[slide_id] = bag
        while self._left < 0 and self._kept:
            _, dropped = self._kept.popitem(last=False)
            self._left += _size(dropped)
        return bag

    def slides_of(self, patient_id: str) -> tuple[str, ...]:
        """Return the slides of a patient in the order of their content digests.

        Not in the order of their names, so that renaming slides changes no result. A patient's slides are read for
        that, once, where there are several. Raises FeatureFileError.
        """
        slides = self._slides[patient_id]
        if len(slides) > 1 and patient_id not in self._ordered:
            slides.sort(key=lambda slide: (bag_digest(self.bag(slide)), slide))
            self._ordered.add(patient_id)
        return tuple(slides)


def load_data(experiment: Experiment, *, cache_bytes: int = _CACHE_BYTES) -> CohortData:
    """Examine a cohort and open it.

    Raises CohortError listing every problem of the tables and of the feature files' headers at once. Whether folds can
    be made is not asked: an external cohort may be too small for them.
    """
    found = examine(experiment, folds=False)
    raise_problems(found.problems)
    return CohortData(found.cohort, found.headers, found.omics, experiment.features.slide_mpp, cache_bytes)


def _size(bag: Bag) -> int:
    coords = 0 if bag.coords is None else bag.coords.nbytes
    return int(bag.features.nbytes + coords + sum(edges.nbytes for edges in bag.edges.values()))
