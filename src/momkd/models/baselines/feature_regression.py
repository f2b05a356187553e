"""Feature regression: the pooled slide is to predict the embedding of its omics.

Romero et al. 2015, "FitNets: hints for thin deep nets" (arXiv 1412.6550), eq. 3, with omics as the hint:

    L = ‖W z − sg(e)‖² / R

z (W) the pooled embedding of the student, e (R) the features of the omics teacher, W a linear map that training alone
has. sg: no gradient; the teacher stands still (``taught``).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from momkd.experiment import ModelSettings
from momkd.models.baselines.taught import Pairs, Taught
from momkd.models.method import SlideModel


class FeatureRegression(Taught):
    """The student regresses the teacher's features."""

    def __init__(self, student: SlideModel, settings: ModelSettings, genes: Mapping[str, int]) -> None:
        super().__init__(student, settings, genes)
        self.map = nn.Linear(settings.baseline.dim, self.taught_width)

    def distil(self, pairs: Pairs, task: Tensor, embedding: Tensor) -> Tensor:  # noqa: ARG002
        """Mean squared error over bags and features."""
        return functional.mse_loss(self.map(pairs.embedding), pairs.features)
