"""The class-conditional memory: one codebook a class on a unit sphere, the only road between RNA and slide.

This is the file to change when you want another memory. Everything else sees four things: ``sphere()`` (the codes as
they are compared), ``affinity`` and ``class_score`` (how a query relates to each class), and the losses that keep the
codes spread and queries and patches near them. What moves the codes besides the optimiser is in
``memory_updates.py``; the equation of every option is in docs/memory.md.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from momkd.experiment import MemorySettings
from momkd.models.packed import segment_mean

# The label of a bag whose memory class is unknown (a censored patient): it takes no part in the memory.
UNKNOWN = -1


class Memory(nn.Module):
    """Codebooks M^y of K codes in R^S for each of C classes.

    ``codes`` (C, K, S) are normalised to the sphere whenever they are compared with a query. Under the update rules
    ``gradient`` and ``hybrid`` they are ordinary parameters that the losses move through the optimiser; under the
    others no gradient reaches them.
    """

    def __init__(self, n_classes: int, settings: MemorySettings) -> None:
        super().__init__()
        self.settings = settings
        codes = functional.normalize(torch.randn(n_classes, settings.codes, settings.dim), dim=-1)
        self.codes = nn.Parameter(codes, requires_grad=settings.update in ("gradient", "hybrid"))

    def parameter_options(self) -> dict[str, float]:
        """What the optimiser's group of ``codes`` needs: ``lr_mult``, the factor of the learning rate."""
        return {"lr_mult": self.settings.lr_mult}

    def sphere(self) -> Tensor:
        """The normalised codes c: (C, K, S)."""
        return functional.normalize(self.codes, dim=-1)

    def affinity(self, queries: Tensor) -> Tensor:
        """max_k q·c_k for each class, the codes held constant: (N, S) unit rows → (N, C).

        The gradient stop is the decoupling of the paper: the classifier, which learns through the attention made
        from this, cannot move the memory (unless ``decoupling.classifier`` is below 1).
        """
        codes = damp(self.sphere(), self.settings.decoupling.classifier)
        return (queries @ codes.flatten(0, 1).T).reshape(-1, *codes.shape[:2]).max(-1).values

    def class_score(self, queries: Tensor, decoupling: float = 0.0) -> Tensor:
        """φ(q, c) = (1/β)·logsumexp_k(β·q·c_k) for each class, β = 5: (B, S) unit rows → (B, C).

        With ``offset: false``, ln K / β less: a soft maximum between the mean and the largest q·c_k. The gradient of
        the codes is multiplied by 1 − ``decoupling``.
        """
        beta = self.settings.sharpness
        codes = damp(self.sphere(), decoupling)
        similarity = (queries @ codes.flatten(0, 1).T).reshape(-1, *codes.shape[:2])
        score = torch.logsumexp(beta * similarity, dim=-1) / beta
        return score if self.settings.offset else score - math.log(codes.shape[1]) / beta

    def margin(self, queries: Tensor, labels: Tensor, decoupling: float = 0.0) -> Tensor:
        """Δ(q) = φ(q, c^y) − the highest φ of another class: (B, S), (B,) → (B,); meaningless for an unknown label."""
        score, own_class = self.class_score(queries, decoupling), labels.clamp(min=0).unsqueeze(1)
        own = score.gather(1, own_class).squeeze(1)
        other = score.scatter(1, own_class, -torch.inf).amax(1)
        return own - other

    def alignment_loss(self, queries: Tensor, labels: Tensor, decoupling: float = 0.0) -> Tensor:
        """L_align(q) = softplus(γ·(margin − Δ(q))), γ = 20, for each query: (B, S), (B,) → (B,); 0 if unknown."""
        beyond = self.settings.margin - self.margin(queries, labels, decoupling)
        return _of_known(functional.softplus(self.settings.alignment_scale * beyond), labels)

    def commitment_loss(self, patches: Tensor, bag_of_patch: Tensor, labels: Tensor) -> Tensor:
        """mean_{i,s}(M^y[nearest(p_i)] − p_i)² of each bag, the codes held constant: (N, S), (N,), (B,) → (B,).

        Nearest is Euclidean among the *unnormalised* codes of the bag's own class; 0 for a bag of unknown class.
        """
        codes = self.codes.detach()
        # ‖m − p‖² = ‖p‖² + min_k(‖m_k‖² − 2·m_k·p): the nearest code and the distance to it at once.
        product = (patches @ codes.flatten(0, 1).T).reshape(-1, *codes.shape[:2])
        beyond = (codes.square().sum(-1) - 2.0 * product).min(-1).values
        own_class = labels.clamp(min=0).index_select(0, bag_of_patch).unsqueeze(1)
        distance = patches.square().sum(-1) + beyond.gather(1, own_class).squeeze(1)
        return _of_known(segment_mean(distance / patches.shape[1], bag_of_patch, len(labels)), labels)

    def orthogonality(self) -> Tensor:
        """What ``settings.orthogonality`` asks to be small, for each class's codebook: (C,).

        within (published): orth(M) = Σ_{jk}(ĉ_j·ĉ_k)² / K² − 1/K, at least 1/S − 1/K where K > S. across: the mean of
        (ĉ_j·ĉ_k)² over the codes ĉ_j of the class and ĉ_k of the others. both: their sum.
        """
        codes, asked = self.sphere(), self.settings.orthogonality
        n_classes, k, _ = codes.shape
        terms = []
        if asked in ("within", "both"):
            gram = codes @ codes.transpose(1, 2)
            terms.append(gram.square().sum((1, 2)) / k**2 - 1.0 / k)
        if asked in ("across", "both"):
            flat = codes.flatten(0, 1)
            pairs = (flat @ flat.T).square().reshape(n_classes, k, n_classes, k).sum((1, 3))
            terms.append((pairs.sum(1) - pairs.diagonal()) / (k**2 * (n_classes - 1)))
        return sum(terms[1:], terms[0]) if terms else codes.new_zeros(n_classes)

    def orthogonality_loss(self, labels: Tensor) -> Tensor:
        """The term of each bag's own class: (B,) → (B,); 0 for a bag of unknown class."""
        return _of_known(self.orthogonality().index_select(0, labels.clamp(min=0)), labels)

    @torch.no_grad()
    def set_codes(self, label: int, codes: Tensor) -> None:
        """Replace the codebook of one class by ``codes`` (K, S)."""
        self.codes[label].copy_(codes)


def evidence_by_class(affinity: Tensor) -> list[Tensor]:
    """s^y = affinity of class y − the highest of another class, for each y ≥ 1: (N, C) → C − 1 tensors (N,)."""
    columns = affinity.unbind(1)
    if len(columns) == 2:
        return [columns[1] - columns[0]]
    highest = affinity.topk(2, dim=1)
    best, second = highest.values.unbind(1)
    winner = highest.indices[:, 0]
    return [columns[y] - torch.where(winner == y, second, best) for y in range(1, len(columns))]


def mean_of_known(values: Tensor, labels: Tensor) -> Tensor:
    """The mean of ``values`` (B,), 0 where unknown, over the bags of known class; 0 if there is none."""
    return values.sum() / (labels != UNKNOWN).sum().clamp(min=1)


def damp(values: Tensor, strength: float) -> Tensor:
    """The same values; their gradient is multiplied by 1 − ``strength``: none at 1, all of it at 0."""
    if strength == 0.0:
        return values
    if strength == 1.0:
        return values.detach()
    result: Tensor = _Damp.apply(values, 1.0 - strength)
    return result


class _Damp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def _of_known(values: Tensor, labels: Tensor) -> Tensor:
    return torch.where(labels != UNKNOWN, values, 0.0)
