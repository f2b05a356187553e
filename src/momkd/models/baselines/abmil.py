"""ABMIL: gated attention pooling.

Ilse, Tomczak & Welling 2018, "Attention-based deep multiple instance learning" (ICML, arXiv 1802.04712), eq. 7–9:

    h_i = ReLU(W x_i),   a_i = softmax_i( wᵀ(tanh(V h_i) ⊙ σ(U h_i)) ),   z = Σ_i a_i h_i,   scores = head z

W to 512, V and U to 256, dropout of 0.25 on h and on the gated attention (``model.baseline``).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from momkd.experiment import ModelSettings
from momkd.models.method import SlideModel, SlideOutput
from momkd.models.outcome import Outcome
from momkd.models.packed import PackedBags, segment_softmax, weighted_sum
from momkd.models.products import full_precision


class ABMIL(SlideModel):
    """Attention-based multiple instance learning."""

    def __init__(self, in_dim: int, outcome: Outcome, settings: ModelSettings) -> None:
        super().__init__()
        self.outcome, sizes = outcome, settings.baseline
        self.embed = nn.Linear(in_dim, sizes.dim)
        self.tanh, self.gate = nn.Linear(sizes.dim, sizes.attention), nn.Linear(sizes.dim, sizes.attention)
        self.attend = nn.Linear(sizes.attention, 1)
        self.head = nn.Linear(sizes.dim, outcome.n_outputs)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, bags: PackedBags) -> SlideOutput:
        """Score B bags."""
        patches = self.dropout(functional.relu(self.embed(bags.features.to(self.embed.weight.dtype))))
        gated = self.dropout(torch.tanh(self.tanh(patches)) * torch.sigmoid(self.gate(patches)))
        with full_precision(patches):
            patches = patches.float()
            attention = segment_softmax(self.attend(gated.float()).squeeze(1), bags.bag_of_patch, bags.n_bags)
            embedding = weighted_sum(attention, patches, bags.ptr)
            return SlideOutput(self.outcome.scores(self.head(embedding)), attention, embedding=embedding)
