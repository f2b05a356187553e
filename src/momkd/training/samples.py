"""What a fit is given: slides with labels, their prepared bags, and the RNA rows of their patients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from momkd.experiment import TaskSettings
from momkd.models.graph import Graph


@dataclass(frozen=True)
class Sample:
    """One labelled slide; ``label`` and ``value`` as in ``Cohort.patients``."""

    patient_id: str
    slide_id: str
    label: int
    value: float = math.nan


def targets_of(samples: Sequence[Sample], task: TaskSettings) -> Tensor:
    """The targets (N, 2) float32 of slides, as ``models.outcome`` wants them."""
    if task.categorical:
        rows = [(float(sample.label), 0.0) for sample in samples]
    else:
        event = task.type == "survival"
        rows = [(sample.value, float(sample.label) if event else 0.0) for sample in samples]
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 2)


@dataclass(frozen=True, eq=False)
class PreparedBag:
    """A bag as the network sees it: ``features`` (P, D) floating, normalised; its sorted ``graph``.

    ``mapped``: the features lie in a mapped file, so they cost no memory of ours.
    """

    features: Tensor
    graph: Graph
    mapped: bool = False

    @property
    def n_patches(self) -> int:
        """P."""
        return len(self.features)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds in memory."""
        return (0 if self.mapped else self.features.nbytes) + self.graph.nbytes


class BagCache:
    """Prepared bags by slide id, kept in memory up to a budget; past it, bags are prepared anew at each use.

    Which bags are kept depends on the order of use, what is returned does not. ``prepare_part`` prepares some rows of
    a bag without the others, where that is asked for; ``n_patches`` tells the size of a bag that was not prepared yet.
    For one thread at a time.
    """

    def __init__(
        self,
        prepare: Callable[[str], PreparedBag],
        budget_bytes: int = 4 << 30,
        *,
        prepare_part: Callable[[str, Tensor], PreparedBag] | None = None,
        n_patches: Callable[[str], int] | None = None,
    ) -> None:
        self._prepare, self._prepare_part, self._n_patches = prepare, prepare_part, n_patches
        self._left = budget_bytes
        self._kept: dict[str, PreparedBag] = {}

    def __getitem__(self, slide_id: str) -> PreparedBag:
        """The prepared bag of a slide."""
        bag = self._kept.get(slide_id)
        if bag is None:
            bag = self._prepare(slide_id)
            if bag.nbytes <= self._left:
                self._left -= bag.nbytes
                self._kept[slide_id] = bag
        return bag

    def n_patches(self, slide_id: str) -> int:
        """P of a slide."""
        return self[slide_id].n_patches if self._n_patches is None else self._n_patches(slide_id)

    def part(self, slide_id: str, rows: Tensor) -> PreparedBag:
        """Some patches of a slide, prepared and not kept: ``rows`` ascending, int64.

        Raises ValueError where these bags cannot be had in parts.
        """
        if self._prepare_part is None:
            raise ValueError("max_patches_per_slide needs bags that can be prepared in parts (prepare_part)")
        return self._prepare_part(slide_id, rows)

    def at_hand(self, slide_ids: Sequence[str], most_bytes: int) -> bool:
        """Whether all these bags are kept and each has features of at most ``most_bytes``."""
        bags = [self._kept.get(slide_id) for slide_id in slide_ids]
        return all(bag is not None and bag.features.nbytes <= most_bytes for bag in bags)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of some patients: ``values`` (patients + 1, columns) float32, the last row zero; ``row`` by patient id."""

    values: Tensor
    row: dict[str, int]

    @classmethod
    def of(cls, rows: Mapping[str, npt.NDArray[np.floating]]) -> Rows:
        """One row (columns,) a patient."""
        table = np.stack([*rows.values(), np.zeros_like(next(iter(rows.values())))])
        return cls(torch.from_numpy(table.astype(np.float32)), {patient: i for i, patient in enumerate(rows)})

    def take(self, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        """The rows of slides (B, columns), zero where the patient has none, and whether it has one (B,) bool."""
        places = torch.tensor([self.row.get(sample.patient_id, -1) for sample in samples], dtype=torch.int64)
        # Place −1, a patient without a row, is the last row, which is zero.
        return self.values.index_select(0, places % len(self.values)), places >= 0


@dataclass(frozen=True, eq=False)
class OmicsRows:
    """An omics table as a fit sees it: selected and scaled ``rows`` (G named ``genes``), unit ``profiles`` or None."""

    genes: tuple[str, ...]
    rows: Rows
    profiles: Rows | None = None


@dataclass(frozen=True, eq=False)
class FitData:
    """The slides of one fit.

    ``tables``: what is known of the training patients by omics table, patients without it being absent; empty trains
    the student alone. ``soft``: scores of the omics teacher, where there is one. ``inner_part``: the part of each
    training patient where a penalty is chosen within. ``omics_at_test``: an upper bound, whose ``tables`` have the
    validation and test patients too.
    """

    train: Sequence[Sample]
    val: Sequence[Sample]
    bags: BagCache
    task: TaskSettings
    width: int
    tables: Mapping[str, OmicsRows] = field(default_factory=dict)
    soft: Rows | None = None
    inner_part: Mapping[str, int] = field(default_factory=dict)
    omics_at_test: bool = False

    @property
    def genes(self) -> dict[str, int]:
        """G of each table."""
        return {name: len(table.genes) for name, table in self.tables.items()}

    def rows_of(self, samples: Sequence[Sample]) -> Tensor:
        """The rows (slides, G) of all tables side by side, zero where a patient has none."""
        return torch.cat([table.rows.take(samples)[0] for table in self.tables.values()], dim=1)

    def omics_of(self, samples: Sequence[Sample]) -> Tensor:
        """What a model is given beside the slides: (slides, G), or (slides, 0) unless it is an upper bound."""
        return self.rows_of(samples) if self.omics_at_test else torch.empty(len(samples), 0)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each training slide, from 0."""
        return {sample.slide_id: number for number, sample in enumerate(self.train)}

    @cached_property
    def ordinals(self) -> dict[str, tuple[str, int]]:
        """Each training slide as (patient, its place among the patient's slides): a name that renaming a file keeps."""
        found: dict[str, tuple[str, int]] = {}
        counts: dict[str, int] = {}
        for sample in self.train:
            place = counts.get(sample.patient_id, 0)
            found[sample.slide_id] = (sample.patient_id, place)
            counts[sample.patient_id] = place + 1
        return found
