"""Where the memory starts: spherical k-means on patch projections of the training slides of each class."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from momkd.experiment import memory_notes
from momkd.models.kmeans import spherical_kmeans
from momkd.models.method import Method
from momkd.models.momkd import MoMKD
from momkd.training.batches import pack_all
from momkd.training.samples import BagCache, Sample
from momkd.training.seeds import generator

logger = logging.getLogger(__name__)


def begin_epoch(
    model: Method, samples: Sequence[Sample], bags: BagCache, device: torch.device, seed: int, epoch: int, epochs: int
) -> None:
    """Make a method ready for epoch ``epoch``, from 1; ``model`` may be left in eval mode."""
    model.begin_epoch(epoch, epochs)
    if isinstance(model, MoMKD):
        _begin_memory_epoch(model, samples, bags, device, seed, epoch)


def _begin_memory_epoch(
    model: MoMKD, samples: Sequence[Sample], bags: BagCache, device: torch.device, seed: int, epoch: int
) -> None:
    """Place the codes when it is their time, start a new record.

    ``kmeans`` and ``random`` place them before epoch 1. Under ``warmup`` the first ``warmup_epochs`` epochs have random
    codes that stand still and neither alignment nor memory losses; k-means follows.
    """
    settings = model.settings.memory
    start = settings.warmup_epochs + 1 if settings.init == "warmup" else 1
    if epoch == 1:
        for note in memory_notes(model.settings, omics=model.with_omics):
            logger.warning(note)
    if epoch == start:
        if settings.init != "random":
            initialise_memory(model, samples, bags, device, seed)
        if model.updates is not None:
            model.updates.start_from(model.student.memory)
    model.begin_memory(warming=epoch < start)


@torch.no_grad()
def initialise_memory(model: MoMKD, samples: Sequence[Sample], bags: BagCache, device: torch.device, seed: int) -> None:
    """Place the codes of every class by k-means; ``model`` is left in eval mode.

    At most ``init_patches`` patches a class enter, an equal share of every slide, chosen at random. Slides of unknown
    class (label −1) do not enter; a class without slides keeps its random codes.
    """
    memory, settings = model.student.memory, model.settings.memory
    model.eval()
    for label in range(len(memory.codes)):
        own = [sample for sample in samples if sample.label == label]
        if not own:
            continue
        share = max(1, settings.init_patches // len(own))
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
