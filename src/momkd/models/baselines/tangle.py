"""TANGLE: slides are aligned with their omics first, and a linear probe reads the labels from what came of it.

After Jaume et al. 2024, "Transcriptomics-guided slide representation learning in computational pathology" (CVPR, arXiv
2405.11618), eq. 1–3. In the first half of the epochs (``Method.preparation``) the symmetric InfoNCE of
``contrastive`` alone trains the pooled embedding, without labels. Then all below the head stands still, without
dropout, and the head is trained on the labels:

    first half   L = InfoNCE(slides, omics)
    second half  L = L_task of head(sg z)

``genes`` empty: there is nothing to align with, and labels train the whole student. Its published name belongs to an
encoder trained on many thousand pairs; here both stages see the training patients of one fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch

from momkd.experiment import ModelSettings
from momkd.models.baselines.abmil import ABMIL
from momkd.models.baselines.contrastive import Alignment
from momkd.models.baselines.taught import pooled
from momkd.models.lesson import Lesson
from momkd.models.method import Method, MethodLosses
from momkd.models.packed import PackedBags
from momkd.models.products import full_precision


class TANGLE(Method):
    """Pre-training by alignment, then a linear probe."""

    student: ABMIL

    def __init__(self, student: ABMIL, settings: ModelSettings, genes: Mapping[str, int]) -> None:
        super().__init__()
        self.student = student
        self.alignment = Alignment(sum(genes.values()), settings) if genes else None
        self.aligning = False

    def preparation(self, epochs: int) -> int:
        """Half of the epochs; of a single one none, and then the probe reads an encoder that nothing trained."""
        return 0 if self.alignment is None else epochs // 2

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Align or probe."""
        self.aligning = epoch <= self.preparation(epochs)

    def train(self, mode: bool = True) -> Self:
        """The probe reads the student as it will be used: without dropout."""
        super().train(mode)
        if self.alignment is not None and not self.aligning:
            self.student.eval()
        return self

    def forward(self, bags: PackedBags, lesson: Lesson) -> MethodLosses:
        """The alignment, or the task loss of the head."""
        if self.alignment is None:
            task = self.task_loss(self.student(bags).scores, lesson)
            return MethodLosses(task, {"task": task, "alignment": torch.zeros_like(task)})
        with torch.set_grad_enabled(self.aligning and torch.is_grad_enabled()):
            out = self.student(bags)
        with full_precision(out.scores):
            embedding = pooled(out)
            task = self.task_loss(self.student.outcome.scores(self.student.head(embedding.detach())), lesson)
            aligned = torch.zeros_like(task)
            if self.aligning:
                # Added without weight: an optimiser step needs a gradient even where nobody is paired.
                aligned = self.alignment(out, lesson) + 0.0 * embedding.sum()
            return MethodLosses(aligned if self.aligning else task, {"task": task, "alignment": aligned})
