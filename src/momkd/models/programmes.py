"""The programme memory: what kinds of each class there are in the omics, and what a slide knows of them.

A patient's profile ρ is its omics on the n leading whitened principal components, on the unit sphere. The prototypes
c^y_k are the spherical k-means centres of the training profiles of each class y: they say which *kinds* of a class
there are, not only which class. They are constants: omics makes them, no gradient moves them.

    z      = A x̄ + B V                                 programmes predicted from the slide: mean features and pooled bag
    q(z)   = (z·c^0_1 … z·c^0_K, z·c^1_1 …)            affinities; z has any length: how sure histology is
    L_prog = (n / CK) Σ_{y,k} (q^y_k(z) − q^y_k(ρ))²   the slide learns its own patient's affinities
    s_mem  = ω q(sg z) + b                             the memory's vote on the scores; sg: no gradient into z
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from momkd.experiment import ProgrammeSettings
from momkd.models.kmeans import spherical_kmeans


class Programmes(nn.Module):
    """The programme memory of one omics table, with the maps that predict a slide's programmes."""

    codes: Tensor

    def __init__(self, in_dim: int, width: int, n_memories: int, n_scores: int, settings: ProgrammeSettings) -> None:
        super().__init__()
        directions = torch.randn(n_memories, settings.codes, settings.dim)
        self.register_buffer("codes", functional.normalize(directions, dim=-1))
        # A and B start at zero: no programme is claimed before one is learnt. Nor has the vote an opinion.
        self.from_mean = zero_linear(in_dim, settings.dim)
        self.from_pooled = zero_linear(width, settings.dim)
        self.readout = zero_linear(n_memories * settings.codes, n_scores)

    def predict(self, mean: Tensor, pooled: Tensor) -> Tensor:
        """Mean features (B, D) and pooled bags (B, W) → programmes z (B, n); of patches: (N, D), (N, W) → (N, n)."""
        programmes: Tensor = self.from_mean(mean) + self.from_pooled(pooled)
        return programmes

    def vote(self, programmes: Tensor) -> Tensor:
        """s_mem: (B, n) → (B, O)."""
        vote: Tensor = self.readout(self.affinities(programmes))
        return vote

    def affinities(self, programmes: Tensor) -> Tensor:
        """q: (B, n) → (B, C · K)."""
        return programmes @ self.codes.flatten(0, 1).T

    def loss(self, programmes: Tensor, profiles: Tensor) -> Tensor:
        """L_prog of each slide: predicted programmes (B, n), unit profiles (B, n) → (B,)."""
        return self.codes.shape[-1] * self.affinities(programmes - profiles).square().mean(-1)

    @torch.no_grad()
    def fill(self, profiles: Tensor, memory_class: Tensor, generator: torch.Generator) -> None:
        """Set the prototypes from unit training profiles (N, n) and their memory classes (N,), −1 where unknown."""
        for label in range(len(self.codes)):
            self.codes[label] = spherical_kmeans(profiles[memory_class == label], self.codes.shape[1], generator)


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear map that starts at zero."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
