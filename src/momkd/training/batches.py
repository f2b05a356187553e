"""Slides → packed tensors on the device: the steps of an epoch, in micro-batches within a budget of patches."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from momkd.experiment import TrainSettings
from momkd.models.packed import PackedBags
from momkd.training.prefetch import ahead
from momkd.training.samples import BagCache, FitData, PreparedBag, Sample
from momkd.training.seeds import generator

# Slides that are packed together where there is no gradient.
_PATCHES_AT_ONCE = 8192
# Bags in memory of at most so many bytes are packed faster than a thread takes over.
_SMALL_BAG = 128 << 10
# Packed validation slides of so many bytes together are kept from epoch to epoch.
_KEPT_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class Batch:
    """Slides that are computed at once, on the device.

    ``bags`` packed; ``labels`` (B,); ``rna`` (B, G) and ``paired`` (B,), both None without RNA. A step may be several
    batches: ``share`` is this one's part of the step's slides, ``paired_share`` of its slides with RNA.
    """

    bags: PackedBags
    labels: Tensor
    rna: Tensor | None
    paired: Tensor | None
    share: float
    paired_share: float


@dataclass(frozen=True, eq=False)
class Step:
    """What one optimiser step learns from: its slides in the order drawn, and their batches."""

    samples: Sequence[Sample]
    batches: Sequence[Batch]


def training_steps(
    order: Sequence[Sample], data: FitData, settings: TrainSettings, device: torch.device, epoch: int
) -> Generator[Step, None, None]:
    """Make the steps of one epoch, ``settings.batch_size`` slides each; a thread makes the next ones where that pays.

    With ``max_patches_per_slide`` a larger slide gives a random sample of its patches, the same for one seed, epoch
    and slide. With ``max_patches_per_step`` a step is divided into batches of at most so many patches, in the order
    drawn; a slide that has more is a batch of its own.
    """
    maker = _StepMaker(data, settings, device, epoch)
    size = settings.batch_size
    steps = (maker.step(order[start : start + size]) for start in range(0, len(order), size))
    direct = settings.max_patches_per_slide is None and device.type == "cpu"
    if direct and data.bags.at_hand([sample.slide_id for sample in order], _SMALL_BAG):
        return steps
    return ahead(steps)


class _StepMaker:
    def __init__(self, data: FitData, settings: TrainSettings, device: torch.device, epoch: int) -> None:
        self.data, self.settings, self.device, self.epoch = data, settings, device, epoch

    def step(self, samples: Sequence[Sample]) -> Step:
        bags = [self._bag(sample) for sample in samples]
        parts = within_budget([bag.n_patches for bag in bags], self.settings.max_patches_per_step)
        paired = 0 if self.data.rna is None else sum(sample.patient_id in self.data.rna for sample in samples)
        return Step(samples, [self._batch(samples[part], bags[part], len(samples), paired) for part in parts])

    def _bag(self, sample: Sample) -> PreparedBag:
        most, bags = self.settings.max_patches_per_slide, self.data.bags
        if most is None:
            return bags[sample.slide_id]
        n_patches = bags.n_patches(sample.slide_id)
        if n_patches <= most:
            return bags[sample.slide_id]
        patient, place = self.data.ordinals[sample.slide_id]
        stream = generator(self.settings.seed, "patches", self.epoch, patient, place)
        rows = torch.randperm(n_patches, generator=stream)[:most].sort().values
        return bags.part(sample.slide_id, rows)

    def _batch(self, samples: Sequence[Sample], bags: Sequence[PreparedBag], step: int, step_paired: int) -> Batch:
        device = self.device
        packed = pack(bags, device)
        labels = torch.tensor([sample.label for sample in samples]).to(device, non_blocking=True)
        share, rows = len(samples) / step, self.data.rna_rows
        if rows is None:
            return Batch(packed, labels, None, None, share, 0.0)
        places = torch.tensor([rows.row.get(sample.patient_id, -1) for sample in samples])
        paired = places >= 0
        paired_share = int(paired.sum()) / step_paired if step_paired else 0.0
        # Place −1, a patient without RNA, is the last row, which is zero.
        rna = rows.values.index_select(0, places % len(rows.values))
        return Batch(packed, labels, rna.to(device), paired.to(device), share, paired_share)


def within_budget(sizes: Sequence[int], most: int | None) -> list[slice]:
    """Divide a row of sizes, in order, into runs whose sums stay within ``most``; a larger one stands alone."""
    if most is None:
        return [slice(0, len(sizes))]
    runs: list[slice] = []
    start = total = 0
    for place, size in enumerate(sizes):
        if place > start and total + size > most:
            runs.append(slice(start, place))
            start, total = place, 0
        total += size
    return [*runs, slice(start, len(sizes))] if sizes else runs


def pack(bags: Sequence[PreparedBag], device: torch.device) -> PackedBags:
    """Pack bags and bring them to the device; features of half precision are widened where they are used."""
    packed = PackedBags.pack([bag.features for bag in bags], [bag.graph for bag in bags])
    if device.type == "cuda":
        packed = PackedBags(packed.features.pin_memory(), packed.ptr.pin_memory(), packed.graph.pin_memory())
    return packed.to(device)


def pack_all(
    samples: Sequence[Sample], cache: BagCache, device: torch.device, most_patches: int = _PATCHES_AT_ONCE
) -> Iterator[tuple[Sequence[Sample], PackedBags]]:
    """Go through slides in order, as many at a time as have ``most_patches`` patches together (at least one)."""
    packs = _packs(samples, cache, device, most_patches)
    small = device.type == "cpu" and cache.at_hand([sample.slide_id for sample in samples], _SMALL_BAG)
    return packs if small else ahead(packs)


def _packs(
    samples: Sequence[Sample], cache: BagCache, device: torch.device, most_patches: int
) -> Iterator[tuple[Sequence[Sample], PackedBags]]:
    own: list[Sample] = []
    bags: list[PreparedBag] = []
    patches = 0
    for sample in samples:
        bag = cache[sample.slide_id]
        if bags and patches + bag.n_patches > most_patches:
            yield own, pack(bags, device)
            own, bags, patches = [], [], 0
        own.append(sample)
        bags.append(bag)
        patches += bag.n_patches
    if bags:
        yield own, pack(bags, device)


class PackedSlides:
    """Some slides that are gone through again and again: packed once where they are small, else at each pass."""

    def __init__(self, samples: Sequence[Sample], cache: BagCache, device: torch.device) -> None:
        self._samples, self._cache, self._device = samples, cache, device
        self._kept: list[PackedBags] | None = None

    def __iter__(self) -> Iterator[PackedBags]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[PackedBags] = []
        left = _KEPT_BYTES
        for _, bags in pack_all(self._samples, self._cache, self._device):
            left -= bags.features.nbytes + bags.graph.nbytes
            if left >= 0:
                kept.append(bags)
            yield bags
        self._kept = kept if left >= 0 else None
