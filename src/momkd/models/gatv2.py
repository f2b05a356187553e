"""Graph attention, version 2 (Brody, Alon & Yahav 2021, "How attentive are graph attention networks?", eq. 7).

e_ij  = aᵀ LeakyReLU(W_t x_i + W_s x_j)          for an edge j → i, each head its own a
α_ij  = softmax over the incoming edges j of i
x'_i  = ‖_heads Σ_j α_ij W_s x_j + bias
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from momkd.models.packed import segment_softmax, segment_sum


class GATv2(nn.Module):
    """One GATv2 layer with concatenated heads and self-loops; separate source and target weights.

    ``forward`` takes x (N, in_dim) and edge_index (2, E) int64, row 0 the source and row 1 the target, and
    gives (N, heads · head_dim). Self-loops in edge_index are replaced by exactly one a node; multi-edges count as often
    as they occur.
    """

    def __init__(self, in_dim: int, head_dim: int, heads: int, *, dropout: float = 0.0, slope: float = 0.2) -> None:
        super().__init__()
        self.head_dim, self.heads, self.dropout, self.slope = head_dim, heads, dropout, slope
        self.source = nn.Linear(in_dim, heads * head_dim)
        self.target = nn.Linear(in_dim, heads * head_dim)
        self.attention = nn.Parameter(torch.empty(heads, head_dim))
        self.bias = nn.Parameter(torch.zeros(heads * head_dim))
        for linear in (self.source, self.target):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        limit = math.sqrt(6.0 / (heads + head_dim))
        nn.init.uniform_(self.attention, -limit, limit)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Attend over the sources of each node's incoming edges and the node itself."""
        n_nodes = len(x)
        source, target = with_self_loops(edge_index, n_nodes)
        x_source = self.source(x).reshape(n_nodes, self.heads, self.head_dim)
        x_target = self.target(x).reshape(n_nodes, self.heads, self.head_dim)

        sent = x_source.index_select(0, source)
        pair = functional.leaky_relu(sent + x_target.index_select(0, target), self.slope)
        alpha = segment_softmax((pair * self.attention).sum(-1), target, n_nodes)
        alpha = functional.dropout(alpha, self.dropout, self.training)
        out = segment_sum(sent * alpha.unsqueeze(-1), target, n_nodes)
        return out.reshape(n_nodes, self.heads * self.head_dim) + self.bias


def with_self_loops(edge_index: Tensor, n_nodes: int) -> tuple[Tensor, Tensor]:
    """Return (source, target), each (E',), with exactly one self-loop a node, after the other edges."""
    loops = torch.arange(n_nodes, device=edge_index.device)
    kept = edge_index[:, edge_index[0] != edge_index[1]]
    return torch.cat([kept[0], loops]), torch.cat([kept[1], loops])
