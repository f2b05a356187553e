"""Spherical k-means: where the codes of a class start."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def spherical_kmeans(points: Tensor, k: int, generator: torch.Generator, iterations: int = 20) -> Tensor:
    """Cluster unit vectors by cosine: points (N, S) → k unit centres (k, S), deterministic given the generator.

    With fewer than k points the remaining centres are random directions, so that every code exists. A centre that
    loses all its points moves to the point that is served worst.
    """
    points = functional.normalize(points, dim=-1)
    order = torch.randperm(len(points), generator=generator).to(points.device)
    centres = points[order[:k]].clone()
    if len(centres) < k:
        extra = torch.randn(k - len(centres), points.shape[1], generator=generator).to(points)
        return torch.cat([centres, functional.normalize(extra, dim=-1)])
    for _ in range(iterations):
        similarity, owner = (points @ centres.T).max(1)
        sums = torch.zeros_like(centres).index_add(0, owner, points)
        empty = torch.bincount(owner, minlength=k) == 0
        if empty.any():
            worst = similarity.argsort(stable=True)[: int(empty.sum())]
            sums[empty] = points[worst]
        # Points that cancel out have no mean direction: their centre stays.
        centres = torch.where(sums.norm(dim=-1, keepdim=True) > 1e-6, functional.normalize(sums, dim=-1), centres)
    return centres
