"""Relational distillation: similarities among the slides of a mini-batch follow those among their omics.

Z (B, W) pooled slides, E (B, R) omics features of the same bags, without gradient. Nothing maps one space onto the
other: only relations are compared, and only those within what is packed at once (Z and E of the B paired bags).

    SP   ‖rownorm(Z Zᵀ) − rownorm(E Eᵀ)‖² / B²            Tung & Mori 2019, arXiv 1907.09682, eq. 2–4
    RKD  25 · L_distance + 50 · L_angle                    Park et al. 2019, arXiv 1904.05068, eq. 5–9
    CC   ‖K(Z) − K(E)‖² / B²                               Peng et al. 2019, arXiv 1904.01802, eq. 5–9

K is the Gaussian kernel exp(−γ‖u − v‖²) of unit rows, expanded to second order around u·v = 0, γ = 0.4. As a loss,
SP and CC count B times, which is the squared distance of a bag's relations, averaged over bags: their papers' factors
belong to other batch sizes, and a mean over B² entries, most of them alike, would not be felt beside a task loss.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from momkd.models.baselines.taught import Pairs, Taught

_DISTANCE, _ANGLE = 25.0, 50.0
_GAMMA, _ORDER = 0.4, 2


def sp_loss(slides: Tensor, omics: Tensor) -> Tensor:
    """Similarity preservation: (B, W), (B, R) → scalar."""
    ours, theirs = (functional.normalize(rows @ rows.T, dim=1) for rows in (slides, omics))
    return (ours - theirs).square().mean()


def rkd_distance_loss(slides: Tensor, omics: Tensor) -> Tensor:
    """Huber loss of distances, each set divided by its mean over pairs of different rows: scalar, 0 for one bag."""
    ours, theirs = (_relative_distances(rows) for rows in (slides, omics))
    return functional.smooth_l1_loss(ours, theirs)


def rkd_angle_loss(slides: Tensor, omics: Tensor) -> Tensor:
    """Huber loss of the cosines of the angle at j in each triplet (i, j, k): scalar, 0 for one bag."""
    ours, theirs = (_angles(rows) for rows in (slides, omics))
    return functional.smooth_l1_loss(ours, theirs)


def cc_loss(slides: Tensor, omics: Tensor) -> Tensor:
    """Correlation congruence: (B, W), (B, R) → scalar."""
    return (_kernel(slides) - _kernel(omics)).square().mean()


class SP(Taught):
    """Similarity-preserving distillation."""

    def distil(self, pairs: Pairs, task: Tensor, embedding: Tensor) -> Tensor:  # noqa: ARG002
        """B · SP."""
        return len(pairs.embedding) * sp_loss(pairs.embedding, pairs.features)


class RKD(Taught):
    """Relational knowledge distillation, distances and angles."""

    def distil(self, pairs: Pairs, task: Tensor, embedding: Tensor) -> Tensor:  # noqa: ARG002
        """25 · L_distance + 50 · L_angle."""
        slides, omics = pairs.embedding, pairs.features
        return _DISTANCE * rkd_distance_loss(slides, omics) + _ANGLE * rkd_angle_loss(slides, omics)


class CC(Taught):
    """Correlation congruence."""

    def distil(self, pairs: Pairs, task: Tensor, embedding: Tensor) -> Tensor:  # noqa: ARG002
        """B · CC."""
        return len(pairs.embedding) * cc_loss(pairs.embedding, pairs.features)


def _relative_distances(rows: Tensor) -> Tensor:
    _, square, apart = _geometry(rows)
    distance = torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0)
    return distance / torch.where(apart.any(), distance.sum() / apart.sum().clamp(min=1), 1.0)


def _angles(rows: Tensor) -> Tensor:
    """The cosine between u_i − u_j and u_k − u_j at place (j, i, k); 0 where one of them is zero."""
    # From products of rows: the differences themselves would be B² vectors.
    gram, square, apart = _geometry(rows)
    product = gram.unsqueeze(0) - gram.unsqueeze(2) - gram.unsqueeze(1) + gram.diagonal()[:, None, None]
    scale = torch.where(apart, torch.where(apart, square, 1.0).rsqrt(), 0.0)
    return product * scale.unsqueeze(2) * scale.unsqueeze(1)


def _geometry(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Products and squared distances of centred rows, (B, B) each, and which pairs lie apart."""
    centred = rows - rows.mean(0)
    gram = centred @ centred.T
    lengths = gram.diagonal().unsqueeze(0) + gram.diagonal().unsqueeze(1)
    square = lengths - 2.0 * gram
    # Of equal rows a rounding error remains, and has no direction.
    return gram, square, square > 16.0 * torch.finfo(rows.dtype).eps * lengths


def _kernel(rows: Tensor) -> Tensor:
    # exp(−γ‖u − v‖²) = exp(−2γ) · exp(2γ u·v) for unit rows, the second factor as its Taylor series.
    unit = functional.normalize(rows, dim=1)
    cosine = unit @ unit.T
    terms = [(2.0 * _GAMMA) ** p / math.factorial(p) * cosine**p for p in range(_ORDER + 1)]
    return math.exp(-2.0 * _GAMMA) * torch.stack(terms).sum(0)
