"""CRD: the slide is to be told from all other training slides by its omics, against memories of every instance.

Tian, Krishnan & Isola 2020, "Contrastive representation distillation" (ICLR, arXiv 1910.10699), eq. 10–19. Unit rows
u = normalise(A z) of the pooled slide and v = normalise(B e) of the omics features (S = 128); each side is compared
with the memory of the other side over all N training slides, T = 0.07, momentum 0.5:

    L = 0.8 · mean_i [ NCE(u_i; memory of v) + NCE(v_i; memory of u) ]

Own slide positive, all others negative. The paper draws 16384 of them because it has millions; here all N are taken, so
nothing is drawn; other slides of the same patient, of which a fit knows no more than the slides, are among them. A
slide takes part from its second draw on, when its rows are in the memories.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from momkd.experiment import ModelSettings
from momkd.models.baselines.banks import Banks
from momkd.models.baselines.taught import Pairs, Taught
from momkd.models.method import SlideModel, TrainingSet

_SHARED = 128
_FACTOR = 0.8


class CRD(Taught):
    """Contrast against instance memories."""

    def __init__(self, student: SlideModel, settings: ModelSettings, genes: Mapping[str, int]) -> None:
        super().__init__(student, settings, genes)
        self.from_slide = nn.Linear(settings.baseline.dim, _SHARED)
        self.from_omics = nn.Linear(self.taught_width, _SHARED)
        self.banks = Banks(_SHARED)

    def start(self, training: TrainingSet) -> None:
        """Memories for the slides of the fit."""
        super().start(training)
        self.banks.start(training.memory_class)

    def after_step(self) -> None:
        """Write the rows of the step into the memories."""
        self.banks.after_step()

    def distil(self, pairs: Pairs, task: Tensor, embedding: Tensor) -> Tensor:  # noqa: ARG002
        """Mean over the paired bags; those that are not in the memories yet cost 0."""
        slides = functional.normalize(self.from_slide(pairs.embedding), dim=1)
        omics = functional.normalize(self.from_omics(pairs.features), dim=1)
        if self.training:
            self.banks.observe(pairs.numbers, slides, omics)
        seen = self.banks.seen
        if not seen.any():
            return torch.zeros_like(task)
        own = torch.arange(len(seen), device=seen.device) == pairs.numbers.unsqueeze(1)
        return _FACTOR * self.banks.losses(slides, omics, own & seen, ~own & seen).mean()
