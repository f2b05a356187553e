"""Everything that is fitted before the first step, fitted on the training patients of one fold and nobody else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from momkd.cohort.dataset import CohortData
from momkd.errors import OmicsError
from momkd.experiment import Experiment
from momkd.models.graph import Graph
from momkd.omics.prepare import OmicsPreparer
from momkd.slides.graph import bag_edges, induced_edges, knn_edges
from momkd.slides.normalize import NoNormalizer, Normalizer, make_normalizer
from momkd.training.samples import BagCache, FitData, FloatArray, PreparedBag, Sample


@dataclass(frozen=True)
class Roles:
    """The patients of one fold; ``test`` is empty in a final fit."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class PreparedFold:
    """A fit's data with what was fitted for it; ``genes`` (rank, gene, score) is None without RNA."""

    data: FitData
    normalizer: Normalizer
    genes: pd.DataFrame | None


def prepare_fold(cohort: CohortData, roles: Roles, experiment: Experiment) -> PreparedFold:
    """Fit the feature normaliser, the gene selection and the RNA scaler on the training patients of a fold.

    Raises OmicsError when fewer than two training patients have RNA.
    """
    train = samples_of(cohort, roles.train)
    normalizer = make_normalizer(experiment.features.normalize)
    normalizer.fit(cohort.bag(sample.slide_id).features for sample in train)
    bags = _Bags(cohort, normalizer, experiment.graph.k)
    rna, gene_table = _prepare_rna(cohort, roles.train, experiment)
    data = FitData(
        train=train,
        val=samples_of(cohort, roles.val),
        bags=BagCache(bags.whole, prepare_part=bags.part, n_patches=cohort.n_patches),
        classes=cohort.cohort.classes,
        width=cohort.width,
        rna=rna,
        genes=() if gene_table is None else tuple(gene_table["gene"]),
    )
    return PreparedFold(data, normalizer, gene_table)


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
    labels = cohort.labels
    return [
        Sample(patient, slide_id, labels[patient])
        for patient in sorted(patients)
        for slide_id in cohort.slides_of(patient)
    ]


def _prepare_rna(
    cohort: CohortData, patients: Sequence[str], experiment: Experiment
) -> tuple[dict[str, FloatArray] | None, pd.DataFrame | None]:
    """Selected and scaled RNA rows of the training patients that have RNA."""
    if cohort.omics is None or experiment.omics is None:
        return None, None
    values = cohort.omics.values
    paired = [patient for patient in sorted(patients) if patient in values.index]
    if len(paired) < 2:
        raise OmicsError(
            f"{cohort.omics.source}: only {len(paired)} of the {len(patients)} training patients of a fold have RNA; "
            "give a table with more of them, or leave omics out"
        )
    own = values.loc[paired]
    labels = cohort.cohort.patients.loc[paired, "label"].to_numpy()
    preparer = OmicsPreparer(experiment.omics, seed=experiment.train.seed).fit(own, labels)
    rows = np.asarray(preparer.transform(own), dtype=np.float32)
    return dict(zip(paired, rows, strict=True)), preparer.genes_table()
