"""CLAM: attention pooling with instance clustering (Lu et al. 2021, "Data-efficient and weakly supervised …").

ABMIL, and for a bag of class y the k patches of highest and the k of lowest attention are pseudo-labelled 1 and 0 for
the instance head of class y (k = 8, or half of the bag where it has fewer than 16 patches):

    L = .7 · L_task + .3 · mean CE of the pseudo-labelled patches

SB has one attention map; MB has one map and one linear head for each output of the outcome.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from momkd.experiment import ModelSettings
from momkd.models.baselines.attention import Embedding, GatedAttention
from momkd.models.lesson import Lesson
from momkd.models.memory import UNKNOWN
from momkd.models.method import Method, MethodLosses, SlideModel, SlideOutput, counts_of
from momkd.models.outcome import Outcome
from momkd.models.packed import PackedBags, segment_mean, segment_softmax, weighted_sum
from momkd.models.products import full_precision

_EACH, _BAG_SHARE = 8, 0.7


class ClamSB(SlideModel):
    """One attention map, one head."""

    several = False

    def __init__(self, in_dim: int, outcome: Outcome, settings: ModelSettings) -> None:
        super().__init__()
        own = settings.baseline
        self.outcome, self.rows = outcome, outcome.n_outputs if self.several else 1
        self.embedding = Embedding(in_dim, own.dim, own.dropout)
        self.attention = GatedAttention(own.dim, own, self.rows)
        self.heads = nn.ModuleList(
            [nn.Linear(own.dim, outcome.n_outputs if self.rows == 1 else 1) for _ in range(self.rows)]
        )

    def forward(self, bags: PackedBags) -> SlideOutput:
        """Score B bags; the attention shown is the mean of the maps."""
        return self.look(bags)[0]

    def look(self, bags: PackedBags) -> tuple[SlideOutput, Tensor, Tensor]:
        """The output, embedded patches (N, W) and attention (N, rows)."""
        h = self.embedding(bags.features)
        with full_precision(h):
            attention = segment_softmax(self.attention(h), bags.bag_of_patch, bags.n_bags)
            pooled = [weighted_sum(attention[:, row], h, bags.ptr) for row in range(self.rows)]
            outputs = torch.cat([head(z) for head, z in zip(self.heads, pooled, strict=True)], dim=1)
            mean = torch.stack(pooled).mean(0)
            out = SlideOutput(self.outcome.scores(outputs), attention=attention.mean(1), embedding=mean)
        return out, h, attention


class ClamMB(ClamSB):
    """One attention map and head for each output."""

    several = True


class Clam(Method):
    """Either of them with its instance heads, which only training needs."""

    student: ClamSB

    def __init__(self, student: ClamSB, settings: ModelSettings, genes: Mapping[str, int]) -> None:  # noqa: ARG002
        super().__init__()
        self.student = student
        n_classes = student.outcome.n_memories
        self.instance = nn.Linear(settings.baseline.dim, 2 * n_classes)

    def forward(self, bags: PackedBags, lesson: Lesson) -> MethodLosses:
        """.7 task + .3 instances."""
        out, h, attention = self.student.look(bags)
        task = self.task_loss(out.scores, lesson)
        with full_precision(h):
            by_bag = self.instance_loss(h, attention, bags, lesson.memory_class)
        instances = by_bag.sum() / max(1, counts_of(lesson).known)
        parts = {"task": task, "instances": instances}
        return MethodLosses(_BAG_SHARE * task + (1.0 - _BAG_SHARE) * instances, parts)

    def instance_loss(self, h: Tensor, attention: Tensor, bags: PackedBags, labels: Tensor) -> Tensor:
        """Mean CE of each bag's pseudo-labelled patches (B,), 0 where there are none or the class is unknown."""
        own_class = labels.clamp(min=0).index_select(0, bags.bag_of_patch)
        row = own_class if attention.shape[1] == self.student.outcome.n_memories else torch.zeros_like(own_class)
        own = attention.detach().gather(1, row.unsqueeze(1)).squeeze(1)
        pseudo = pseudo_labels(own, bags)
        logits = self.instance(h).reshape(len(h), -1, 2)
        logits = logits.gather(1, own_class.reshape(-1, 1, 1).expand(-1, 1, 2)).squeeze(1)
        chosen = (pseudo >= 0) & (labels != UNKNOWN).index_select(0, bags.bag_of_patch)
        loss = functional.cross_entropy(logits[chosen], pseudo[chosen], reduction="none")
        return segment_mean(loss, bags.bag_of_patch[chosen], bags.n_bags)


def pseudo_labels(attention: Tensor, bags: PackedBags) -> Tensor:
    """1 for the k patches of highest attention of each bag, 0 for the k of lowest, −1 for the others: (N,) int64."""
    highest_first = torch.argsort(attention, descending=True, stable=True)
    order = highest_first[torch.argsort(bags.bag_of_patch[highest_first], stable=True)]
    sizes = bags.ptr.diff().index_select(0, bags.bag_of_patch)
    # ``order`` is bag by bag, so the sizes and starts of the bags apply to it as they stand.
    place = torch.arange(len(order), device=order.device) - bags.ptr[:-1].index_select(0, bags.bag_of_patch)
    k = (sizes // 2).clamp(max=_EACH)
    marks = torch.where(place < k, 1, torch.where(place >= sizes - k, 0, -1))
    return torch.empty_like(marks).scatter_(0, order, marks)
