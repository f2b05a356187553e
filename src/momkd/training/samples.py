"""What a fit is given: slides with labels, their prepared bags, and the RNA rows of their patients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from momkd.models.packed import PackedBags

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """One labelled slide."""

    patient_id: str
    slide_id: str
    label: int


@dataclass(frozen=True, eq=False)
class PreparedBag:
    """A bag as the network sees it: ``features`` (P, D) float32, normalised; ``edges`` (2, E) int64."""

    features: Tensor
    edges: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes that it holds in memory."""
        return self.features.nbytes + self.edges.nbytes


class BagCache:
    """Prepared bags by slide id, kept in memory up to a budget; past it, bags are prepared anew at each use.

    Which bags are kept depends on the order of use, what is returned does not.
    """

    def __init__(self, prepare: Callable[[str], PreparedBag], budget_bytes: int = 4 << 30) -> None:
        self._prepare = prepare
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


@dataclass(frozen=True, eq=False)
class FitData:
    """The slides of one fit.

    ``rna`` maps a training patient to a row (G,) float32, already selected and scaled; patients without RNA are absent;
    None trains the student alone. ``genes`` names the G columns.
    """

    train: Sequence[Sample]
    val: Sequence[Sample]
    bags: BagCache
    classes: tuple[str, ...]
    width: int
    rna: dict[str, FloatArray] | None = None
    genes: tuple[str, ...] = ()

    @property
    def n_genes(self) -> int | None:
        """G, or None without RNA."""
        return None if self.rna is None else len(self.genes)


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's slides: packed bags, ``labels`` (B,), ``rna`` (B, G) and ``paired`` (B,), both None without RNA."""

    bags: PackedBags
    labels: Tensor
    rna: Tensor | None
    paired: Tensor | None


def pack_all(
    samples: Sequence[Sample], cache: BagCache, device: torch.device, most_patches: int = 8192
) -> Iterator[tuple[Sequence[Sample], PackedBags]]:
    """Go through slides in order, as many at a time as have ``most_patches`` patches together (at least one)."""
    start = 0
    while start < len(samples):
        bags: list[PreparedBag] = []
        patches = 0
        for sample in samples[start:]:
            bag = cache[sample.slide_id]
            if bags and patches + len(bag.features) > most_patches:
                break
            bags.append(bag)
            patches += len(bag.features)
        packed = PackedBags.pack([bag.features for bag in bags], [bag.edges for bag in bags])
        yield samples[start : start + len(bags)], packed.to(device)
        start += len(bags)


def collate(samples: Sequence[Sample], data: FitData, device: torch.device) -> Batch:
    """Pack the slides of one step; the RNA row of an unpaired patient is zero and marked as not paired."""
    prepared = [data.bags[sample.slide_id] for sample in samples]
    bags = PackedBags.pack([bag.features for bag in prepared], [bag.edges for bag in prepared]).to(device)
    labels = torch.tensor([sample.label for sample in samples], device=device)
    if data.rna is None:
        return Batch(bags, labels, None, None)
    nothing = np.zeros(len(data.genes), dtype=np.float32)
    rows = np.stack([data.rna.get(sample.patient_id, nothing) for sample in samples])
    paired = torch.tensor([sample.patient_id in data.rna for sample in samples], device=device)
    return Batch(bags, labels, torch.from_numpy(rows).to(device), paired)
