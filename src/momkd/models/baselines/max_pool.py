"""Max pooling: h_i = ReLU(W x_i), z = elementwise max of h_i, scores = head(z)."""

from __future__ import annotations

from torch import nn

from momkd.experiment import ModelSettings
from momkd.models.baselines.attention import Embedding
from momkd.models.method import SlideModel, SlideOutput
from momkd.models.outcome import Outcome
from momkd.models.packed import PackedBags
from momkd.models.products import full_precision


class MaxPool(SlideModel):
    """One patch a feature decides."""

    def __init__(self, in_dim: int, outcome: Outcome, settings: ModelSettings) -> None:
        super().__init__()
        own = settings.baseline
        self.outcome = outcome
        self.embedding = Embedding(in_dim, own.dim, own.dropout)
        self.head = nn.Linear(own.dim, outcome.n_outputs)

    def forward(self, bags: PackedBags) -> SlideOutput:
        """Score B bags."""
        h = self.embedding(bags.features)
        owner = bags.bag_of_patch.unsqueeze(1).expand_as(h)
        # After a ReLU nothing is below zero, so zero is a neutral start.
        pooled = h.new_zeros(bags.n_bags, h.shape[1]).scatter_reduce(0, owner, h, reduce="amax")
        with full_precision(h):
            return SlideOutput(self.outcome.scores(self.head(pooled)), embedding=pooled)
