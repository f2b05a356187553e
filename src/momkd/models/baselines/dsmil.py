"""DSMIL: dual-stream MIL (Li, Li and Eliceiri 2021, eq. 3–8).

s_i = c(h_i),  m = argmax_i s_i                      the critical patch, for each score
a   = softmax_i(q_i·q_m / √d),  q = W_q h,  z = Σ a_i h_i,  s_bag = head(z)
L   = ½ L_task(s_bag) + ½ L_task(s_m),               scores = ½ (s_bag + s_m)
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from momkd.experiment import ModelSettings
from momkd.models.baselines.attention import Embedding
from momkd.models.lesson import Lesson
from momkd.models.method import Method, MethodLosses, SlideModel, SlideOutput
from momkd.models.outcome import Outcome
from momkd.models.packed import PackedBags, segment_softmax, weighted_sum
from momkd.models.products import full_precision

_QUERY = 128


class DSMILModel(SlideModel):
    """Both streams."""

    def __init__(self, in_dim: int, outcome: Outcome, settings: ModelSettings) -> None:
        super().__init__()
        own, n = settings.baseline, outcome.n_scores
        self.outcome = outcome
        self.embedding = Embedding(in_dim, own.dim, own.dropout)
        self.instance, self.query = nn.Linear(own.dim, n), nn.Linear(own.dim, _QUERY)
        self.head = nn.Linear(n * own.dim, n)

    def forward(self, bags: PackedBags) -> SlideOutput:
        """Score B bags; the attention shown is the mean over scores."""
        bag, critical, attention, pooled = self.streams(bags)
        return SlideOutput(0.5 * (bag + critical), attention=attention.mean(1), embedding=pooled.mean(1))

    def streams(self, bags: PackedBags) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Scores of the bags and of their critical patches (B, O), attention (N, O), pooled bags (B, O, W)."""
        h = self.embedding(bags.features)
        with full_precision(h):
            return self._streams(h, bags)

    def _streams(self, h: Tensor, bags: PackedBags) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        owner = bags.bag_of_patch
        scores, query = self.instance(h), self.query(h)
        first = critical_patches(scores, bags)
        attention = torch.stack(
            [
                segment_softmax((query * query[first[:, o]][owner]).sum(1) / math.sqrt(_QUERY), owner, bags.n_bags)
                for o in range(scores.shape[1])
            ],
            dim=1,
        )
        pooled = torch.stack([weighted_sum(attention[:, o], h, bags.ptr) for o in range(scores.shape[1])], dim=1)
        return self.head(pooled.flatten(1)), scores.gather(0, first), attention, pooled


class DSMIL(Method):
    """The model with the loss of both streams."""

    student: DSMILModel

    def __init__(self, student: DSMILModel, settings: ModelSettings, genes: Mapping[str, int]) -> None:  # noqa: ARG002
        super().__init__()
        self.student = student

    def forward(self, bags: PackedBags, lesson: Lesson) -> MethodLosses:
        """½ bag + ½ critical patch."""
        bag, critical, _, _ = self.student.streams(bags)
        task, patch = self.task_loss(bag, lesson), self.task_loss(critical, lesson)
        return MethodLosses(0.5 * (task + patch), {"task": task, "critical": patch})


def critical_patches(scores: Tensor, bags: PackedBags) -> Tensor:
    """The row of the patch with the highest score of each bag, the first of equals: (N, O) → (B, O) int64."""
    owner, n = bags.bag_of_patch.unsqueeze(1).expand_as(scores), len(scores)
    peak = scores.new_full((bags.n_bags, scores.shape[1]), -torch.inf)
    peak = peak.scatter_reduce(0, owner, scores.detach(), reduce="amax")
    rows = torch.arange(n, device=scores.device).unsqueeze(1)
    candidates = torch.where(scores.detach() == peak.gather(0, owner), rows, n)
    return torch.full_like(peak, n, dtype=torch.int64).scatter_reduce(0, owner, candidates, reduce="amin")
