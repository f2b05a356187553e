"""Graph attention, version 2 (Brody, Alon & Yahav 2021, "How attentive are graph attention networks?", eq. 7).

e_ij  = aᵀ LeakyReLU(W_t x_i + W_s x_j)          for an edge j → i, each head its own a
α_ij  = softmax over the incoming edges j of i
x'_i  = ‖_heads Σ_j α_ij W_s x_j + bias
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from momkd.models.graph import Graph
from momkd.models.layer import Recipe, graph_layer
from momkd.models.masks import draw_seeds


class GATv2(nn.Module):
    """One GATv2 layer with concatenated heads; separate source and target weights.

    ``forward`` takes x (N, in_dim) and a graph of N nodes, which holds the self-loops, and gives
    (N, heads · head_dim).
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

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """Attend over the senders of each node, itself among them."""
        vectors = self._vectors(None, None)
        return graph_layer(x, [self.source.weight, self.target.weight], vectors, graph, self._recipe())

    def block(
        self,
        x: Tensor,
        graph: Graph,
        *,
        norm: nn.LayerNorm,
        activation: Literal["elu", "relu"],
        dropout: float,
        residual: nn.Module,
    ) -> Tensor:
        """dropout(activation(norm(self(x, graph)))) + residual(x) in one operation: (N, in_dim) → (N, W).

        ``residual`` is an nn.Linear or an nn.Identity.
        """
        weights, linear = [self.source.weight, self.target.weight], None
        if isinstance(residual, nn.Linear):
            linear = residual
            weights.append(linear.weight)
        recipe = self._recipe(
            dropout=dropout if self.training else 0.0,
            activation=activation,
            norm=True,
            epsilon=norm.eps,
            residual="identity" if linear is None else "linear",
        )
        return graph_layer(x, weights, self._vectors(norm, linear), graph, recipe)

    def _recipe(self, **tail: Any) -> Recipe:
        attention_dropout = self.dropout if self.training else 0.0
        random = attention_dropout > 0 or tail.get("dropout", 0.0) > 0
        first, second = draw_seeds(2) if random else (0, 0)
        return Recipe(
            heads=self.heads, slope=self.slope, attention_dropout=attention_dropout, seeds=(first, second), **tail
        )

    def _vectors(self, norm: nn.LayerNorm | None, residual: nn.Linear | None) -> Tensor:
        none = torch.zeros_like(self.bias)
        return torch.stack(
            [
                self.source.bias,
                self.target.bias,
                self.attention.flatten(),
                self.bias,
                none if norm is None else norm.weight,
                none if norm is None else norm.bias,
                none if residual is None else residual.bias,
            ]
        )
