"""Gated Kronecker fusion of two embeddings: what multimodal teachers are made of.

Chen et al. 2022, "Pathomic fusion" (IEEE TMI, arXiv 1912.08937), eq. 4–6, with a gate from both sides and 1 appended,
so that the product holds each side alone as well as every pair:

    a' = σ(G_a [a, b]) ⊙ ReLU(H_a a),   b' = σ(G_b [a, b]) ⊙ ReLU(H_b b)
    f  = ReLU(P ([a', 1] ⊗ [b', 1]))
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# Width of a gated side: the product has 33 · 33 entries.
_SIDE = 32


class KroneckerFusion(nn.Module):
    """Embeddings (B, A) and (B, E) → fused (B, width)."""

    def __init__(self, first: int, second: int, width: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(first, _SIDE), nn.Linear(second, _SIDE)
        self.gate_first, self.gate_second = (nn.Linear(first + second, _SIDE) for _ in range(2))
        self.mix = nn.Linear((_SIDE + 1) ** 2, width)
        self.dropout = dropout

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Fuse."""
        both = torch.cat([first, second], dim=1)
        a = torch.sigmoid(self.gate_first(both)) * self.first(first).relu()
        b = torch.sigmoid(self.gate_second(both)) * self.second(second).relu()
        a, b = functional.pad(a, (0, 1), value=1.0), functional.pad(b, (0, 1), value=1.0)
        product = (a.unsqueeze(2) * b.unsqueeze(1)).flatten(1)
        fused: Tensor = self.mix(functional.dropout(product, self.dropout, self.training)).relu()
        return fused
