"""Slides → packed tensors on the device: the steps of an epoch, in micro-batches within a budget of patches."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import torch

from momkd.experiment import TrainSettings
from momkd.models.lesson import Counts, Lesson, Privileged
from momkd.models.outcome import Outcome
from momkd.models.packed import PackedBags
from momkd.training.prefetch import ahead
from momkd.training.ranks import ALONE, Ranks
from momkd.training.samples import BagCache, FitData, PreparedBag, Sample, targets_of
from momkd.training.seeds import generator

# Slides that are packed together where there is no gradient.
_PATCHES_AT_ONCE = 8192
# Bags in memory of at most so many bytes are packed faster than a thread takes over.
_SMALL_BAG = 128 << 10
# Packed validation slides of so many bytes together are kept from epoch to epoch.
_KEPT_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class Batch:
    """Slides that are computed at once, on the device, and what they are taught by; a step may be several of them."""

    bags: PackedBags
    lesson: Lesson


@dataclass(frozen=True, eq=False)
class Step:
    """What one optimiser step learns from: its slides in the order drawn, and their batches."""

    samples: Sequence[Sample]
    batches: Sequence[Batch]


def training_steps(
    order: Sequence[Sample],
    data: FitData,
    outcome: Outcome,
    settings: TrainSettings,
    device: torch.device,
    epoch: int,
    ranks: Ranks = ALONE,
) -> Generator[Step, None, None]:
    """Make the steps of one epoch, ``settings.batch_size`` slides each; a thread makes the next ones where that pays.

    With ``max_patches_per_slide`` a larger slide gives a random sample of its patches, the same for one seed, epoch
    and slide. With ``max_patches_per_step`` a step is divided into batches of at most so many patches, in the order
    drawn; a slide that has more is a batch of its own. Where several processes share the steps, batches are of this
    one's part.
    """
    maker = _StepMaker(data, copy.deepcopy(outcome).cpu(), settings, device, epoch, ranks)
    size = settings.slides_a_step
    steps = (maker.step(order[start : start + size]) for start in range(0, len(order), size))
    direct = settings.max_patches_per_slide is None and device.type == "cpu"
    if direct and data.bags.at_hand([sample.slide_id for sample in order], _SMALL_BAG):
        return steps
    return ahead(steps)


class _StepMaker:
    def __init__(
        self,
        data: FitData,
        outcome: Outcome,
        settings: TrainSettings,
        device: torch.device,
        epoch: int,
        ranks: Ranks,
    ) -> None:
        self.data, self.outcome, self.settings, self.device, self.epoch = data, outcome, settings, device, epoch
        self.ranks = ranks

    def step(self, samples: Sequence[Sample]) -> Step:
        own = samples[self.ranks.share(len(samples))]
        bags = [self._bag(sample) for sample in own]
        parts = within_budget([bag.n_patches for bag in bags], self.settings.max_patches_per_step) if own else []
        lessons = [self._lesson(own[part]) for part in parts]
        counts = Counts.of(lessons if self.ranks.world == 1 else [self._lesson(samples)])
        packs = [pack(bags[part], self.device) for part in parts]
        batches = [
            Batch(packed, dataclasses.replace(lesson, counts=counts).to(self.device))
            for packed, lesson in zip(packs, lessons, strict=True)
        ]
        return Step(samples, batches)

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

    def _lesson(self, samples: Sequence[Sample]) -> Lesson:
        data, tables = self.data, {}
        targets = targets_of(samples, data.task)
        for name, table in data.tables.items():
            values, paired = table.rows.take(samples)
            profiles = None if table.profiles is None else table.profiles.take(samples)[0]
            tables[name] = Privileged(paired, values, profiles)
        soft, has_soft = (None, None) if data.soft is None else data.soft.take(samples)
        index = torch.tensor([data.numbers[sample.slide_id] for sample in samples])
        return Lesson(targets, self.outcome.memory_class(targets), tables, soft, has_soft, index)


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
        packed = packed.pin_memory()
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
            left -= bags.nbytes
            if left >= 0:
                kept.append(bags)
            yield bags
        self._kept = kept if left >= 0 else None
