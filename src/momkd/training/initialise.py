"""The memory before the first step: spherical k-means on patch projections of the training slides of each class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from momkd.models.memory import spherical_kmeans
from momkd.models.momkd import MoMKD
from momkd.training.batches import pack_all
from momkd.training.samples import BagCache, Sample
from momkd.training.seeds import generator


@torch.no_grad()
def initialise_memory(model: MoMKD, samples: Sequence[Sample], bags: BagCache, device: torch.device, seed: int) -> None:
    """Place the codes of every class; ``model`` is left in eval mode.

    At most ``init_patches`` patches a class enter, an equal share of every slide, chosen at random.
    """
    memory, settings = model.student.memory, model.settings.memory
    if settings.init == "random":
        return
    model.eval()
    for label in range(len(memory.codes)):
        own = [sample for sample in samples if sample.label == label]
        share = max(1, settings.init_patches // max(1, len(own)))
        stream = generator(seed, "kmeans", label)
        points: list[Tensor] = []
        for _, packed in pack_all(own, bags, device):
            projected = model.student.project_patches(packed)
            points += [_some(bag, share, stream) for bag in torch.split(projected, packed.ptr.diff().tolist())]
        memory.set_codes(label, spherical_kmeans(torch.cat(points), settings.codes, stream))


def _some(projected: Tensor, share: int, stream: torch.Generator) -> Tensor:
    """At most ``share`` rows, chosen at random."""
    if len(projected) <= share:
        return projected
    return projected[torch.randperm(len(projected), generator=stream)[:share].to(projected.device)]
