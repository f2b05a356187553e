"""DTFD-MIL: double-tier feature distillation (Zhang et al. 2022, eq. 8–13, aggregated features).

A bag is divided into four pseudo-bags (fewer where it has fewer patches), at random in training and by the places of
the patches in evaluation. The first tier is a gated ABMIL on each pseudo-bag, taught with the label of its bag; each
gives its pooled feature to the second tier, another gated ABMIL, whose score is that of the bag.

    L = L_task(second tier) + mean over pseudo-bags L_task(first tier)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from momkd.experiment import ModelSettings
from momkd.models.baselines.attention import Embedding, GatedAttention
from momkd.models.lesson import Lesson
from momkd.models.method import Method, MethodLosses, SlideModel, SlideOutput, counts_of
from momkd.models.outcome import Outcome
from momkd.models.packed import PackedBags, segment_mean, segment_softmax, segment_sum
from momkd.models.products import full_precision

_PARTS = 4


@dataclass(frozen=True, eq=False)
class _Tiers:
    """Scores of Q pseudo-bags (Q, O), the bag of each (Q,), and what the second tier says."""

    pseudo: Tensor
    owner: Tensor
    output: SlideOutput


class DTFDModel(SlideModel):
    """Both tiers."""

    def __init__(self, in_dim: int, outcome: Outcome, settings: ModelSettings) -> None:
        super().__init__()
        own = settings.baseline
        self.outcome = outcome
        self.embedding = Embedding(in_dim, own.dim, own.dropout)
        self.first, self.second = GatedAttention(own.dim, own), GatedAttention(own.dim, own)
        self.pseudo_head = nn.Linear(own.dim, outcome.n_outputs)
        self.head = nn.Linear(own.dim, outcome.n_outputs)

    def forward(self, bags: PackedBags) -> SlideOutput:
        """Score B bags; a patch's attention is that in its pseudo-bag times that of its pseudo-bag."""
        return self.tiers(bags).output

    def tiers(self, bags: PackedBags) -> _Tiers:
        """Score pseudo-bags and bags."""
        h = self.embedding(bags.features)
        pseudo, owner = pseudo_bags(bags, at_random=self.training)
        with full_precision(h):
            inner, features = _pool(self.first, h, pseudo, len(owner))
            outer, pooled = _pool(self.second, features, owner, bags.n_bags)
            scores = self.outcome.scores(self.head(pooled))
            attention = inner * outer.index_select(0, pseudo)
            output = SlideOutput(scores, attention=attention, embedding=pooled)
            return _Tiers(self.outcome.scores(self.pseudo_head(features)), owner, output)


class DTFD(Method):
    """The model with the loss of both tiers."""

    student: DTFDModel

    def __init__(self, student: DTFDModel, settings: ModelSettings, genes: Mapping[str, int]) -> None:  # noqa: ARG002
        super().__init__()
        self.student = student

    def forward(self, bags: PackedBags, lesson: Lesson) -> MethodLosses:
        """Second tier + first tier."""
        tiers = self.student.tiers(bags)
        task = self.task_loss(tiers.output.scores, lesson)
        each = self.student.outcome.loss(tiers.pseudo, lesson.targets.index_select(0, tiers.owner))
        first = segment_mean(each, tiers.owner, bags.n_bags).sum() / counts_of(lesson).slides
        return MethodLosses(task + first, {"task": task, "first_tier": first})


def pseudo_bags(bags: PackedBags, *, at_random: bool) -> tuple[Tensor, Tensor]:
    """The pseudo-bag of every patch (N,), numbered 0 … Q − 1 bag by bag, and the bag of each pseudo-bag (Q,).

    The patches of a bag go round its min(4, P) pseudo-bags, in the order of the file or in a random one.
    """
    owner, sizes = bags.bag_of_patch, bags.ptr.diff()
    order = torch.arange(len(owner), device=owner.device)
    if at_random:
        shuffled = torch.randperm(len(owner)).to(owner.device)
        order = shuffled[torch.argsort(owner[shuffled], stable=True)]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - bags.ptr[:-1].index_select(0, owner)
    parts = sizes.clamp(max=_PARTS)
    starts = parts.cumsum(0) - parts
    pseudo = starts.index_select(0, owner) + place % parts.index_select(0, owner)
    return pseudo, torch.repeat_interleave(torch.arange(len(sizes), device=owner.device), parts)


def _pool(attention: GatedAttention, rows: Tensor, segment: Tensor, n: int) -> tuple[Tensor, Tensor]:
    weights = segment_softmax(attention(rows)[:, 0], segment, n)
    return weights, segment_sum(weights.unsqueeze(1) * rows, segment, n)
