"""WiKG: a knowledge-aware graph between patches (Li et al. 2024, "Dynamic graph representation …", eq. 1–9).

    x'_i = ½ (x_i + mean x) embedded,  h = W_h x',  t = W_t x'          head and tail
    N(i) = the six j of largest h_i·t_j / √d,  p = softmax over them
    r_ij = p_ij t_j + (1 − p_ij) h_i                                    the relation
    u_ij = t_j · tanh(h_i + r_ij),  a = softmax_j u_ij                  knowledge-aware attention
    n_i  = Σ_j a_ij t_j
    e_i  = LeakyReLU(W_1 (h_i + n_i)) + LeakyReLU(W_2 (h_i ⊙ n_i))      bi-interaction
    z    = LN(mean e_i),  scores = head(z)

A patch may be its own neighbour. The published code has Σ_c t_jc · Σ_c tanh(…)_c in the place of the inner product
u_ij; ``model.baseline.wikg_sums`` gives that.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from momkd.experiment import ModelSettings
from momkd.models.baselines.attention import Embedding, bags_by_size
from momkd.models.method import SlideModel, SlideOutput
from momkd.models.outcome import Outcome
from momkd.models.packed import PackedBags, segment_mean
from momkd.models.products import full_precision

_NEIGHBOURS = 6
# Similarities exist for so many pairs of patches at a time.
_PAIRS = 1 << 22


class WiKG(SlideModel):
    """Six neighbours by similarity, wherever they lie."""

    def __init__(self, in_dim: int, outcome: Outcome, settings: ModelSettings) -> None:
        super().__init__()
        own = settings.baseline
        self.outcome, self.sums = outcome, own.wikg_sums
        self.embedding = Embedding(in_dim, own.dim, 0.0)
        self.head_map, self.tail_map = nn.Linear(own.dim, own.dim), nn.Linear(own.dim, own.dim)
        self.plus, self.times = nn.Linear(own.dim, own.dim), nn.Linear(own.dim, own.dim)
        self.dropout, self.norm = nn.Dropout(own.dropout), nn.LayerNorm(own.dim)
        self.head = nn.Linear(own.dim, outcome.n_outputs)

    def forward(self, bags: PackedBags) -> SlideOutput:
        """Score B bags."""
        x = self.embedding(bags.features)
        with full_precision(x):
            return self._aggregate(x, bags)

    def _aggregate(self, x: Tensor, bags: PackedBags) -> SlideOutput:
        owner = bags.bag_of_patch
        x = 0.5 * (x + segment_mean(x, owner, bags.n_bags).index_select(0, owner))
        h, t = self.head_map(x), self.tail_map(x)
        near = nearest(h.detach(), t.detach(), bags.ptr)
        n = self.gather(h, t, near)
        e = functional.leaky_relu(self.plus(h + n)) + functional.leaky_relu(self.times(h * n))
        pooled = self.norm(segment_mean(self.dropout(e), owner, bags.n_bags))
        return SlideOutput(self.outcome.scores(self.head(pooled)), embedding=pooled)

    def gather(self, h: Tensor, t: Tensor, near: Tensor) -> Tensor:
        """n: heads and tails (N, W), neighbours (N, 6) with −1 where a bag has fewer → (N, W)."""
        missing = near < 0
        tails = t[near.clamp(min=0)]
        similarity = (h.unsqueeze(1) * tails).sum(-1) / math.sqrt(h.shape[1])
        p = torch.softmax(similarity.masked_fill(missing, -torch.inf), dim=1).unsqueeze(-1)
        gate = torch.tanh(h.unsqueeze(1) + p * tails + (1.0 - p) * h.unsqueeze(1))
        u = tails.sum(-1) * gate.sum(-1) if self.sums else (tails * gate).sum(-1)
        a = torch.softmax(u.masked_fill(missing, -torch.inf), dim=1)
        return (a.unsqueeze(-1) * tails).sum(1)


def nearest(h: Tensor, t: Tensor, ptr: Tensor) -> Tensor:
    """The rows of the six most similar tails of each head within its bag, −1 where there are fewer: (N, 6) int64."""
    found = torch.full((len(h), _NEIGHBOURS), -1, dtype=torch.int64, device=h.device)
    for _, rows in bags_by_size(ptr):
        size = rows.shape[1]
        some, chunk = max(1, _PAIRS // (size * size)), max(1, _PAIRS // size)
        for bags in torch.split(rows, some):
            for own in torch.split(bags, chunk, dim=1):
                place = (h[own] @ t[bags].transpose(1, 2)).topk(min(_NEIGHBOURS, size), dim=2).indices
                first = bags[:, :1].unsqueeze(2)
                found[own.flatten(), : place.shape[2]] = (first + place).flatten(0, 1)
    return found
