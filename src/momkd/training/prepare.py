"""Everything that is fitted before the first step, fitted on the training patients of one fold and nobody else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from momkd.cohort.dataset import CohortData
from momkd.cohort.parts import balanced_parts
from momkd.experiment import Experiment
from momkd.models.graph import Graph
from momkd.models.registry import METHODS
from momkd.slides.graph import bag_edges, induced_edges, knn_edges
from momkd.slides.normalize import NoNormalizer, Normalizer, make_normalizer
from momkd.training.privileged import genes_table, needs_soft_labels, prepare_soft_labels, prepare_tables
from momkd.training.samples import BagCache, FitData, PreparedBag, Sample
from momkd.training.seeds import derive_seed

# Parts of the training patients within which a closed form chooses its penalty.
_INNER_PARTS = 5


@dataclass(frozen=True)
class Roles:
    """The patients of one fold; ``test`` is empty in a final fit."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...] = ()


def fit_normalizer(cohort: CohortData, patients: Sequence[str], experiment: Experiment) -> Normalizer:
    """Fit the feature normaliser on the slides of some patients."""
    normalizer = make_normalizer(experiment.features.normalize)
    normalizer.fit(cohort.bag(sample.slide_id).features for sample in samples_of(cohort, patients))
    return normalizer


def prepare_bags(cohort: CohortData, normalizer: Normalizer, experiment: Experiment) -> BagCache:
    """The bags of a cohort, normalised, with their graphs."""
    bags = _Bags(cohort, normalizer, experiment.graph.k)
    return BagCache(bags.whole, prepare_part=bags.part, n_patches=cohort.n_patches)


def prepare_fit(
    cohort: CohortData, roles: Roles, experiment: Experiment, bags: BagCache, seed: int
) -> tuple[FitData, pd.DataFrame | None]:
    """Fit gene selection, scaler, soft labels and profiles on the training patients; return also rank, gene, score.

    The table of genes is None without omics. Raises OmicsError when fewer than two training patients are in a table,
    SplitError when soft labels cannot be made out of part.
    """
    method = METHODS[experiment.model.name]
    known = method.omics != "none" and experiment.omics is not None
    tables = prepare_tables(cohort, roles.train, experiment) if known else {}
    soft = prepare_soft_labels(cohort, tables, experiment, seed) if needs_soft_labels(experiment.model) else None
    data = FitData(
        train=samples_of(cohort, roles.train),
        val=samples_of(cohort, roles.val),
        bags=bags,
        task=experiment.task,
        width=cohort.width,
        tables={name: table.rows for name, table in tables.items()},
        soft=soft,
        inner_part=_inner_parts(cohort, roles.train, seed) if method.solved else {},
        omics_at_test=method.omics == "test",
    )
    return data, genes_table(tables)


def _inner_parts(cohort: CohortData, patients: Sequence[str], seed: int) -> dict[str, int]:
    """The part of each training patient, by which a closed form chooses its penalty."""
    names = sorted(patients)
    part = balanced_parts(cohort.cohort.among(names), _INNER_PARTS, derive_seed(seed, "inner") % (1 << 31))
    return dict(zip(names, part.tolist(), strict=True))


class _Bags:
    """Bags as the network sees them: normalised, with their graph.

    Without a normaliser features stay as they are stored (float16, bfloat16 or float32; in a store, mapped from its
    file): they are widened where they are used, which gives the same values.
    """

    def __init__(self, cohort: CohortData, normalizer: Normalizer, k: int) -> None:
        self.cohort, self.normalizer, self.k = cohort, normalizer, k
        self.as_stored = isinstance(normalizer, NoNormalizer)

    def whole(self, slide_id: str) -> PreparedBag:
        """All patches of a slide."""
        edges = torch.from_numpy(self.cohort.edges(slide_id, self.k))
        graph = Graph.from_edges(edges, self.cohort.n_patches(slide_id))
        if self.as_stored:
            return PreparedBag(self.cohort.tensor(slide_id), graph, mapped=self.cohort.store is not None)
        return PreparedBag(self._normalised(self.cohort.bag(slide_id).features), graph)

    def part(self, slide_id: str, rows: Tensor) -> PreparedBag:
        """Some patches of a slide: with the graph of their positions, or the part of the graph that the file brings."""
        bag, chosen = self.cohort.bag(slide_id), rows.numpy()
        if self.k == 0 or len(chosen) == 1:
            edges = np.empty((2, 0), dtype=np.int64)
        elif bag.edges or bag.coords is None:
            edges = induced_edges(bag_edges(bag, self.k), chosen, bag.n_patches)
        else:
            edges = knn_edges(bag.coords[chosen], self.k)
        features = self.cohort.tensor(slide_id)[rows] if self.as_stored else self._normalised(bag.features[chosen])
        return PreparedBag(features, Graph.from_edges(torch.from_numpy(edges), len(chosen)))

    def _normalised(self, features: np.ndarray) -> Tensor:
        return torch.from_numpy(self.normalizer.transform(features))


def samples_of(cohort: CohortData, patients: Sequence[str]) -> list[Sample]:
    """The slides of some patients: patients sorted, a patient's slides in the order of their contents."""
    rows = cohort.cohort.among(sorted(patients))
    known = zip(rows.index, rows["label"].tolist(), rows["value"].tolist(), strict=True)
    return [
        Sample(str(patient), slide_id, label, value)
        for patient, label, value in known
        for slide_id in cohort.slides_of(str(patient))
    ]
