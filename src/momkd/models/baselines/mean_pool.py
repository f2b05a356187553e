"""Mean pooling: h_i = ReLU(W x_i), z = mean of h_i, scores = head(z). The simplest network over patches."""

from __future__ import annotations

from torch import nn

from momkd.experiment import ModelSettings
from momkd.models.baselines.attention import Embedding
from momkd.models.method import SlideModel, SlideOutput
from momkd.models.outcome import Outcome
from momkd.models.packed import PackedBags, segment_mean
from momkd.models.products import full_precision


class MeanPool(SlideModel):
    """Every patch counts the same."""

    def __init__(self, in_dim: int, outcome: Outcome, settings: ModelSettings) -> None:
        super().__init__()
        own = settings.baseline
        self.outcome = outcome
        self.embedding = Embedding(in_dim, own.dim, own.dropout)
        self.head = nn.Linear(own.dim, outcome.n_outputs)

    def forward(self, bags: PackedBags) -> SlideOutput:
        """Score B bags."""
        h = self.embedding(bags.features)
        with full_precision(h):
            pooled = segment_mean(h, bags.bag_of_patch, bags.n_bags)
            return SlideOutput(self.outcome.scores(self.head(pooled)), embedding=pooled)
