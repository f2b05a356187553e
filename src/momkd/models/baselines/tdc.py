"""TDC: comprehensive learning from a multimodal teacher, each part of which is taken only where it agrees.

Xing et al. 2023, "Comprehensive learning and adaptive teaching: distilling multi-modal knowledge for pathological
glioma grading" (Medical Image Analysis). The teacher sees slide and omics (attention pooling of its own, gated
Kronecker fusion with the omics embedding); it learns first, then stands still (``taught``). Two losses of each bag:

    contrast  the NCE of ``crd`` against memories of all training slides, with six positives: the slide itself and the
              five of its memory class whose teacher rows are nearest to its own; negatives are all of other classes
    logits    T² · KL at T = 4 (``soft_labels``)

Adaptive in two ways. A bag counts w = clip(margin of the teacher − margin of the student, 0, 1): where the teacher
knows no more, it does not teach. And of each loss, its gradient in the pooled embeddings is compared with that of the
task loss: if the cosine is below 0.25 the loss is left out of this step. Which neighbours, and a gate that is open or
shut, are our reading of the paper.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from momkd.experiment import ModelSettings
from momkd.models.baselines.banks import Banks
from momkd.models.baselines.fusion import KroneckerFusion
from momkd.models.baselines.soft_labels import soft_cost
from momkd.models.baselines.taught import Pairs, Taught, Teacher, encoder, pooled
from momkd.models.memory import UNKNOWN
from momkd.models.method import SlideModel, TrainingSet
from momkd.models.outcome import Nominal, Ordinal, Outcome
from momkd.models.packed import PackedBags

_SHARED = 128
_POSITIVES = 6
_TEMPERATURE = 4.0
_AGREEMENT = 0.25


class MultimodalTeacher(Teacher):
    """Slide and omics: f = fusion(pooled slide, e), scores = head(f). Its slide branch starts as a copy."""

    def __init__(self, student: SlideModel, n_genes: int, settings: ModelSettings) -> None:
        super().__init__()
        self.slide, self.outcome = copy.deepcopy(student), copy.deepcopy(student.outcome)
        self.width = settings.baseline.dim
        self.encoder = encoder(n_genes, settings.rna)
        self.fusion = KroneckerFusion(self.width, settings.rna.dim, self.width, settings.baseline.dropout)
        self.head = nn.Linear(self.width, self.outcome.n_outputs)

    def forward(self, bags: PackedBags, values: Tensor, paired: Tensor) -> tuple[Tensor, Tensor]:
        """Bags and rows (B, G) → f (M, W) and scores (M, O)."""
        fused = self.fusion(pooled(self.slide(bags))[paired], self.encoder(values[paired]))
        return fused, self.outcome.scores(self.head(fused))


class TDC(Taught):
    """Class-guided contrast and logits, weighted by what the teacher knows better and gated by agreement."""

    def __init__(self, student: SlideModel, settings: ModelSettings, genes: Mapping[str, int]) -> None:
        super().__init__(student, settings, genes)
        self.from_slide = nn.Linear(settings.baseline.dim, _SHARED)
        self.from_teacher = nn.Linear(self.taught_width, _SHARED)
        self.banks = Banks(_SHARED)

    def make_teacher(self, n_genes: int) -> Teacher:
        """The multimodal teacher."""
        return MultimodalTeacher(self.student, n_genes, self.settings)

    def start(self, training: TrainingSet) -> None:
        """Memories for the slides of the fit."""
        super().start(training)
        self.banks.start(training.memory_class)

    def after_step(self) -> None:
        """Write the rows of the step into the memories."""
        self.banks.after_step()

    def distil(self, pairs: Pairs, task: Tensor, embedding: Tensor) -> Tensor:
        """Both losses, where they agree with the task."""
        teacher = self.teacher
        if teacher is None:
            return torch.zeros_like(task)
        theirs = margin(teacher.outcome, pairs.told, pairs.targets)
        ours = margin(self.student.outcome, pairs.scores.detach(), pairs.targets)
        weight = (theirs - ours).clamp(0.0, 1.0)
        logits = weight * soft_cost(self.student.outcome, pairs.scores, pairs.told, _TEMPERATURE)
        losses = [(weight * self._contrast(pairs)).mean(), logits.mean()]
        return torch.stack([gate(loss, task, embedding) * loss for loss in losses]).sum()

    def _contrast(self, pairs: Pairs) -> Tensor:
        slides = functional.normalize(self.from_slide(pairs.embedding), dim=1)
        theirs = functional.normalize(self.from_teacher(pairs.features), dim=1)
        banks = self.banks
        if self.training:
            banks.observe(pairs.numbers, slides, theirs)
        if not banks.seen.any():
            return pairs.embedding.new_zeros(len(slides))
        same = (banks.classes == pairs.memory_class.unsqueeze(1)) & (banks.classes != UNKNOWN)
        known = (banks.classes != UNKNOWN) & (pairs.memory_class != UNKNOWN).unsqueeze(1)
        own = torch.arange(len(banks.seen), device=banks.seen.device) == pairs.numbers.unsqueeze(1)
        positive = neighbours(theirs.detach() @ banks.teacher.T, own & banks.seen, same & banks.seen)
        return banks.losses(slides, theirs, positive, known & ~same & banks.seen)


def neighbours(similarity: Tensor, own: Tensor, candidates: Tensor) -> Tensor:
    """Mask of the six positives of each row: itself first, then the most similar candidates: (M, N) → (M, N) bool."""
    similarity = torch.where(candidates | own, similarity, -torch.inf)
    best = torch.where(own, torch.inf, similarity).topk(min(_POSITIVES, similarity.shape[1]), dim=1)
    chosen = torch.zeros_like(own).scatter(1, best.indices, best.values > -torch.inf)
    # A slide that is not in the memories yet has neighbours there, but no row of its own to be compared with.
    return chosen & own.any(1, keepdim=True)


def margin(outcome: Outcome, scores: Tensor, targets: Tensor) -> Tensor:
    """p(y) − the highest p of another class; for values and times the likelihood, exp(−loss): (B,)."""
    if not isinstance(outcome, Nominal | Ordinal):
        return (-outcome.loss(scores, targets)).exp()
    probability, label = outcome.predict(scores), targets[:, :1].long()
    own = probability.gather(1, label).squeeze(1)
    return own - probability.scatter(1, label, -1.0).amax(1)


def gate(loss: Tensor, task: Tensor, embedding: Tensor) -> Tensor:
    """1 where the gradients of both losses in the embedding (B, W) have a cosine of at least 0.25, else 0."""
    if not (loss.requires_grad and task.requires_grad):
        return torch.ones_like(loss)
    gradients: list[Tensor | None] = [
        torch.autograd.grad(value, embedding, retain_graph=True, allow_unused=True)[0] for value in (loss, task)
    ]
    of_loss, of_task = gradients
    if of_loss is None or of_task is None:
        return torch.zeros_like(loss)
    cosine = functional.cosine_similarity(of_loss.flatten(), of_task.flatten(), dim=0)
    return (cosine >= _AGREEMENT).to(loss.dtype)
