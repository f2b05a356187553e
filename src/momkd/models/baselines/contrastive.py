"""Batch-local alignment: a slide is to be nearer to its own omics than to those of the others in the mini-batch.

Van den Oord et al. 2018 (InfoNCE, arXiv 1807.03748), in the symmetric form of Radford et al. 2021 (arXiv 2103.00020).
With unit projections s_i of the pooled slides and r_i of the omics, T = 0.07:

    L = −½ mean_i [ log softmax_j(s_i·r_j / T)_i + log softmax_j(r_i·s_j / T)_i ]

The comparison is among the paired bags that are packed at once, which is what a memory is meant to widen; j runs over
the bag itself and those of other patients. Both encoders learn from it, with the task loss, from the first step on.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from momkd.experiment import ModelSettings
from momkd.models.baselines.taught import encoder, joined, pooled
from momkd.models.lesson import Lesson
from momkd.models.method import Method, MethodLosses, SlideModel, SlideOutput, counts_of
from momkd.models.packed import PackedBags
from momkd.models.products import full_precision

_TEMPERATURE = 0.07
# Width of the space in which slides and omics are compared.
_SHARED = 128


def info_nce(slides: Tensor, omics: Tensor, patient: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE of unit rows (B, S), row i of one belonging to row i of the other: scalar, 0 for one bag.

    ``patient`` (B,) int64: bags of one patient are not told from one another.
    """
    logits, own = slides @ omics.T / _TEMPERATURE, torch.arange(len(slides), device=slides.device)
    if patient is not None:
        same = (patient.unsqueeze(0) == patient.unsqueeze(1)).fill_diagonal_(False)
        logits = logits.masked_fill(same, -torch.inf)
    return 0.5 * (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own))


class Alignment(nn.Module):
    """An omics encoder, and projections of slides and omics onto a unit sphere. Training only."""

    def __init__(self, n_genes: int, settings: ModelSettings) -> None:
        super().__init__()
        self.encoder = encoder(n_genes, settings.rna)
        self.from_slide = nn.Linear(settings.baseline.dim, _SHARED)
        self.from_omics = nn.Linear(settings.rna.dim, _SHARED)

    def forward(self, out: SlideOutput, lesson: Lesson) -> Tensor:
        """InfoNCE of the paired bags, times their share of the step's slides; 0 if nobody is paired."""
        embedding = pooled(out)
        with full_precision(embedding):
            values, paired = joined(lesson)
            if not paired.any():
                return embedding.new_zeros(())
            slides = functional.normalize(self.from_slide(embedding[paired]), dim=1)
            omics = functional.normalize(self.from_omics(self.encoder(values[paired])), dim=1)
            # Slides of one patient, or a slide drawn twice, have the same omics row.
            patient = torch.unique(values[paired], dim=0, return_inverse=True)[1]
            share: Tensor = info_nce(slides, omics, patient) * (len(slides) / counts_of(lesson).slides)
            return share


class InfoNCE(Method):
    """L = L_task + weight · InfoNCE; ``genes`` empty: L_task alone."""

    student: SlideModel

    def __init__(self, student: SlideModel, settings: ModelSettings, genes: Mapping[str, int]) -> None:
        super().__init__()
        self.student, self.weight = student, settings.baseline.weight
        self.alignment = Alignment(sum(genes.values()), settings) if genes else None

    def forward(self, bags: PackedBags, lesson: Lesson) -> MethodLosses:
        """The task loss and the alignment of the mini-batch."""
        out = self.student(bags)
        with full_precision(out.scores):
            task = self.task_loss(out.scores, lesson)
            aligned = torch.zeros_like(task)
            if self.alignment is not None and lesson.tables:
                aligned = self.alignment(out, lesson)
            return MethodLosses(task + self.weight * aligned, {"task": task, "alignment": aligned})
