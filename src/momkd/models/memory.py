"""The class-conditional memory: one codebook a class on a unit sphere, the only road between RNA and slide.

This is the file to change when you want another memory. Everything else sees four things: ``sphere()`` (the codes as
they are compared), ``affinity`` and ``class_score`` (how a query relates to each class), and ``regulariser`` (what
keeps the codes spread and the patches near them).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from momkd.experiment import MemorySettings
from momkd.models.packed import segment_mean


class Memory(nn.Module):
    """Codebooks M^y of K codes in R^S for each of C classes.

    ``codes`` (C, K, S) are ordinary parameters (update rule ``gradient``): the alignment losses move them through the
    optimiser. They are normalised to the sphere whenever they are compared with a query.
    """

    def __init__(self, n_classes: int, settings: MemorySettings) -> None:
        super().__init__()
        self.settings = settings
        codes = torch.randn(n_classes, settings.codes, settings.dim)
        self.codes = nn.Parameter(functional.normalize(codes, dim=-1))

    def sphere(self) -> Tensor:
        """The normalised codes c: (C, K, S)."""
        return functional.normalize(self.codes, dim=-1)

    def affinity(self, queries: Tensor) -> Tensor:
        """max_k q·c_k for each class, with the codes held constant: (N, S) unit rows → (N, C).

        The gradient stop is the decoupling of the paper: the classifier, which learns through the attention made
        from this, cannot move the memory.
        """
        codes = self.sphere().detach()
        return (queries @ codes.flatten(0, 1).T).reshape(-1, *codes.shape[:2]).max(-1).values

    def class_score(self, queries: Tensor) -> Tensor:
        """φ(q, c) = (1/β)·logsumexp_k(β·q·c_k) for each class, β = 5: (B, S) unit rows → (B, C)."""
        beta = self.settings.sharpness
        codes = self.sphere()
        similarity = (queries @ codes.flatten(0, 1).T).reshape(-1, *codes.shape[:2])
        return torch.logsumexp(beta * similarity, dim=-1) / beta

    def alignment_loss(self, queries: Tensor, labels: Tensor) -> Tensor:
        """L_align(q) = softplus(γ·(margin − Δ(q))), γ = 20, for each query: (B, S), (B,) → (B,).

        Δ(q) = φ(q, c^y) − the highest φ of another class.
        """
        score = self.class_score(queries)
        own = score.gather(1, labels.unsqueeze(1)).squeeze(1)
        other = score.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1)
        return functional.softplus(self.settings.alignment_scale * (self.settings.margin - (own - other)))

    def commitment_loss(self, patches: Tensor, bag_of_patch: Tensor, labels: Tensor) -> Tensor:
        """mean_{i,s}(M^y[nearest(p_i)] − p_i)² of each bag, the codes held constant: (N, S), (N,), (B,) → (B,).

        Nearest is Euclidean among the *unnormalised* codes of the bag's own class.
        """
        codes = self.codes.detach()
        # ‖m − p‖² = ‖p‖² + min_k(‖m_k‖² − 2·m_k·p): the nearest code and the distance to it at once.
        product = (patches @ codes.flatten(0, 1).T).reshape(-1, *codes.shape[:2])
        beyond = (codes.square().sum(-1) - 2.0 * product).min(-1).values
        own_class = labels.index_select(0, bag_of_patch).unsqueeze(1)
        distance = patches.square().sum(-1) + beyond.gather(1, own_class).squeeze(1)
        return segment_mean(distance / patches.shape[1], bag_of_patch, len(labels))

    def orthogonality(self) -> Tensor:
        """orth(M) = Σ_{jk}(ĉ_j·ĉ_k)² / K² − 1/K for each class's codebook: (C,)."""
        codes = self.sphere()
        k = codes.shape[1]
        gram = codes @ codes.transpose(1, 2)
        return gram.square().sum((1, 2)) / k**2 - 1.0 / k

    @torch.no_grad()
    def set_codes(self, label: int, codes: Tensor) -> None:
        """Replace the codebook of one class by ``codes`` (K, S)."""
        self.codes[label].copy_(codes)


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
        centres = functional.normalize(sums, dim=-1)
    return centres
