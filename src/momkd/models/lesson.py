"""What slides are taught by: targets, omics rows, soft labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from momkd.models.memory import UNKNOWN


@dataclass(eq=False)  # not frozen: Fabric rebuilds what a forward is given
class Privileged:
    """What one omics table says of B slides; rows of slides whose patient is not in it are ignored.

    ``paired`` (B,) bool; ``values`` (B, G), selected and scaled; ``profiles`` (B, n), the unit profiles ρ.
    """

    paired: Tensor
    values: Tensor
    profiles: Tensor | None = None


@dataclass(frozen=True)
class Counts:
    """What the losses of a step are divided by, so that those of its parts add up to those of all its slides.

    ``slides`` B; ``known``: slides whose memory class is known; ``paired`` and ``paired_known`` by omics table.
    """

    slides: int
    known: int
    paired: dict[str, int]
    paired_known: dict[str, int]

    @classmethod
    def of(cls, lessons: Sequence[Lesson]) -> Counts:
        """Count the slides of the parts of a step."""
        known = [lesson.memory_class != UNKNOWN for lesson in lessons]
        pairs = {name: [lesson.tables[name].paired for lesson in lessons] for name in lessons[0].tables}
        return cls(
            slides=sum(len(lesson.targets) for lesson in lessons),
            known=sum(int(mask.sum()) for mask in known),
            paired={name: sum(int(mask.sum()) for mask in masks) for name, masks in pairs.items()},
            paired_known={
                name: sum(int((mask & other).sum()) for mask, other in zip(masks, known, strict=True))
                for name, masks in pairs.items()
            },
        )


@dataclass(eq=False)
class Lesson:
    """What B slides are taught by.

    ``targets`` (B, 2) float, as the outcome wants them; ``memory_class`` (B,) int64, −1 where it is unknown; ``tables``
    by name; ``soft`` (B, O), scores of the omics teacher, and ``has_soft`` (B,) bool, where there is one; ``index``
    (B,) int64, the numbers of the slides among those of the fit; ``counts`` of the whole step, where these slides are a
    part of it.
    """

    targets: Tensor
    memory_class: Tensor
    tables: dict[str, Privileged] = field(default_factory=dict)
    soft: Tensor | None = None
    has_soft: Tensor | None = None
    index: Tensor | None = None
    counts: Counts | None = None

    def to(self, device: torch.device) -> Lesson:
        """Move to a device."""
        if device.type == "cpu":
            return self

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        tables = {
            name: Privileged(t.paired.to(device), t.values.to(device, non_blocking=True), moved(t.profiles))
            for name, t in self.tables.items()
        }
        targets, labels = self.targets.to(device), self.memory_class.to(device)
        return Lesson(targets, labels, tables, moved(self.soft), moved(self.has_soft), moved(self.index), self.counts)

    @classmethod
    def of_classes(cls, labels: Tensor, rna: Tensor | None = None, paired: Tensor | None = None) -> Lesson:
        """Class numbers (B,) and, where given, rows (B, G) of one table named rna."""
        targets = torch.stack([labels.float(), torch.zeros_like(labels, dtype=torch.float32)], dim=1)
        tables = {} if rna is None or paired is None else {"rna": Privileged(paired, rna)}
        return cls(targets, labels, tables)
