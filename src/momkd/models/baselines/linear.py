"""A linear model on the mean patch features of a slide: the floor that a deep model must beat."""

from __future__ import annotations

from torch import nn

from momkd.experiment import ModelSettings
from momkd.models.method import SlideModel, SlideOutput
from momkd.models.outcome import Outcome
from momkd.models.packed import PackedBags, bag_means


class Linear(SlideModel):
    """scores = W x̄ + b."""

    def __init__(self, in_dim: int, outcome: Outcome, settings: ModelSettings) -> None:  # noqa: ARG002
        super().__init__()
        self.outcome = outcome
        self.linear = nn.Linear(in_dim, outcome.n_scores)

    def forward(self, bags: PackedBags) -> SlideOutput:
        """Score B bags."""
        mean = bag_means(bags.features, bags.ptr, self.linear.weight.dtype)
        return SlideOutput(self.linear(mean), embedding=mean)
