"""What attention-based baselines share: the patch embedding, gated attention, bags of one size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from momkd.experiment.model import BaselineSettings
from momkd.models.packed import PackedBags, segment_softmax, weighted_sum


class Embedding(nn.Module):
    """h = dropout(ReLU(W x + b)): features (N, D) of any floating dtype → (N, width) in that of the weights.

    Under ``precision: bf16`` this product alone is made from bfloat16: sums over thousands of patches cannot be.
    """

    def __init__(self, in_dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(in_dim, width), nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Widen features of half precision, and embed them."""
        dtype = self.linear.weight.dtype
        embedded: Tensor = self.dropout(self.linear(features.to(dtype)).to(dtype).relu())
        return embedded


class GatedAttention(nn.Module):
    """Logits w_rᵀ(tanh(V h) ⊙ σ(U h)) of ``rows`` attention maps: (N, W) → (N, rows); Ilse et al. 2018, eq. 9."""

    def __init__(self, width: int, settings: BaselineSettings, rows: int = 1) -> None:
        super().__init__()
        self.tanh, self.gate = nn.Linear(width, settings.attention), nn.Linear(width, settings.attention)
        self.dropout = nn.Dropout(settings.dropout)
        # A bias would cancel in the softmax.
        self.weight = nn.Linear(settings.attention, rows, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """Score every patch."""
        hidden = self.dropout(torch.tanh(self.tanh(h))) * self.dropout(torch.sigmoid(self.gate(h)))
        logits: Tensor = self.weight(hidden)
        return logits

    def pool(self, h: Tensor, bags: PackedBags) -> tuple[Tensor, Tensor]:
        """Attention (N,) of the first map, softmax in each bag, and pooled bags (B, W)."""
        attention = segment_softmax(self(h)[:, 0], bags.bag_of_patch, bags.n_bags)
        return attention, weighted_sum(attention, h, bags.ptr)


def bags_by_size(ptr: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Bags of equal size together: their numbers (B',) and the rows of their patches (B', P), smallest first.

    What needs a bag as a matrix is then computed for all bags of a size at once, without padding.
    """
    sizes = ptr.diff()
    found = []
    for size in torch.unique(sizes).tolist():
        numbers = (sizes == size).nonzero().squeeze(1)
        found.append((numbers, ptr[numbers].unsqueeze(1) + torch.arange(size, device=ptr.device)))
    return found
