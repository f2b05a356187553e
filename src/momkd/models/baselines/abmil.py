"""ABMIL: gated attention pooling (Ilse et al. 2018, "Attention-based deep multiple instance learning", eq. 7 and 9).

h_i = ReLU(W x_i),   a = softmax_i wᵀ(tanh(V h_i) ⊙ σ(U h_i)),   z = Σ a_i h_i,   scores = head(z)
"""

from __future__ import annotations

from torch import nn

from momkd.experiment import ModelSettings
from momkd.models.baselines.attention import Embedding, GatedAttention
from momkd.models.method import SlideModel, SlideOutput
from momkd.models.outcome import Outcome
from momkd.models.packed import PackedBags
from momkd.models.products import full_precision


class ABMIL(SlideModel):
    """The usual baseline of the field, and the student of most methods with privileged omics."""

    def __init__(self, in_dim: int, outcome: Outcome, settings: ModelSettings) -> None:
        super().__init__()
        own = settings.baseline
        self.outcome = outcome
        self.embedding = Embedding(in_dim, own.dim, own.dropout)
        self.attention = GatedAttention(own.dim, own)
        self.head = nn.Linear(own.dim, outcome.n_outputs)

    def forward(self, bags: PackedBags) -> SlideOutput:
        """Score B bags."""
        h = self.embedding(bags.features)
        with full_precision(h):
            attention, pooled = self.attention.pool(h, bags)
            return SlideOutput(self.outcome.scores(self.head(pooled)), attention=attention, embedding=pooled)
