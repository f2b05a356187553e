"""MoMKD: momentum memory for knowledge distillation (arXiv 2602.21395), read from top to bottom like the paper.

A slide is a bag of P patches with D features and a graph. In training an RNA profile of the same patient is at hand.
Knowledge passes from RNA to slide only through a class-conditional memory on a unit sphere (``memory.py``): both
branches are pulled towards the codes of their class, the classifier reads the codes but cannot move them. Afterwards
``Student`` alone predicts, from histology.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional

from momkd.experiment import ClassifierSettings, EncoderSettings, LossSettings, ModelSettings, RnaSettings
from momkd.models.gatv2 import GATv2
from momkd.models.memory import Memory
from momkd.models.packed import PackedBags, segment_softmax, weighted_sum
from momkd.models.products import full_precision


class SlideEncoder(nn.Module):
    """Two GATv2 layers with residuals; F = elementwise max(h1, h2): packed bags (N, D) → (N, W)."""

    def __init__(self, in_dim: int, settings: EncoderSettings) -> None:
        super().__init__()
        width, head_dim = settings.dim, settings.dim // settings.heads
        self.gat1 = GATv2(in_dim, head_dim, settings.heads, dropout=settings.attention_dropout)
        self.gat2 = GATv2(width, head_dim, settings.heads, dropout=settings.attention_dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.residual = nn.Identity() if in_dim == width else nn.Linear(in_dim, width)
        self.dropout = settings.dropout

    def forward(self, bags: PackedBags) -> Tensor:
        """Encode every patch in the light of its neighbours."""
        x, graph = bags.features, bags.graph
        # h1 = dropout(ELU(LN1(GAT1(x, E)))) + residual(x)
        h1 = self.gat1.block(x, graph, norm=self.norm1, activation="elu", dropout=self.dropout, residual=self.residual)
        # h2 = dropout(ELU(LN2(GAT2(h1, E)))) + h1, of which F = max(h1, h2) = h1 + max(0, dropout(ELU(·))) keeps
        # the positive part, and there ELU is ReLU: F = dropout(ReLU(LN2(GAT2(h1, E)))) + h1.
        return self.gat2.block(
            h1, graph, norm=self.norm2, activation="relu", dropout=self.dropout, residual=nn.Identity()
        )


class Classifier(nn.Sequential):
    """LayerNorm → Linear(W, C) → ReLU → Dropout → Linear(C, classes)."""

    def __init__(self, width: int, n_classes: int, settings: ClassifierSettings) -> None:
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, settings.hidden),
            nn.ReLU(),
            nn.Dropout(settings.dropout),
            nn.Linear(settings.hidden, n_classes),
        )


@dataclass(frozen=True, eq=False)
class StudentOutput:
    """What the student says of B bags with N patches in all.

    ``logits`` (B, classes); ``attention`` (N,), summing to 1 in each bag; ``evidence`` (N,), s_i: affinity to the
    positive minus the negative memory; ``patches`` (N, S) and ``slides`` (B, S), unit rows p and w on the shared
    sphere.
    """

    logits: Tensor
    attention: Tensor
    evidence: Tensor
    patches: Tensor
    slides: Tensor


class Student(nn.Module):
    """The histology-only path; it holds no RNA weight.

    Without gradients a slide of any size is read in parts: beyond its features, which may be float16 and mapped from
    a file, it takes memory for three tensors (N, W).
    """

    def __init__(self, in_dim: int, n_classes: int, settings: ModelSettings) -> None:
        super().__init__()
        if n_classes != 2:
            raise ValueError(f"the attention compares a positive with a negative memory: 2 classes, found {n_classes}")
        width = settings.encoder.dim
        self.encoder = SlideEncoder(in_dim, settings.encoder)
        self.patch_projector = nn.Linear(width, settings.memory.dim)
        self.slide_projector = nn.Linear(width, settings.memory.dim)
        self.memory = Memory(n_classes, settings.memory)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(settings.memory.temperature)))
        self.classifier = Classifier(width, n_classes, settings.classifier)

    def forward(self, bags: PackedBags) -> StudentOutput:
        """Memory-guided aggregation: a = softmax_i(s_i / τ), V = Σ a_i F_i, classified."""
        bag_of_patch, n_bags = bags.bag_of_patch, bags.n_bags
        encoded = self.encoder(bags)
        with full_precision(encoded):
            patches = functional.normalize(self.patch_projector(encoded), dim=-1)

            affinity = self.memory.affinity(patches)
            evidence = affinity[:, 1] - affinity[:, 0]
            temperature = self.log_temperature.exp().clamp(0.01, 2.0)
            attention = segment_softmax(evidence / (temperature + 1e-9), bag_of_patch, n_bags)

            pooled = weighted_sum(attention, encoded, bags.ptr)
            slides = functional.normalize(self.slide_projector(pooled), dim=-1)
            return StudentOutput(self.classifier(pooled), attention, evidence, patches, slides)

    def project_patches(self, bags: PackedBags) -> Tensor:
        """The unit patch projections p alone, (N, S): what the memory is initialised from."""
        encoded = self.encoder(bags)
        with full_precision(encoded):
            return functional.normalize(self.patch_projector(encoded), dim=-1)


class RnaBranch(nn.Module):
    """RNA encoder e (B, R), decoder, and projector r on the shared sphere. Training only."""

    def __init__(self, n_genes: int, sphere_dim: int, settings: RnaSettings) -> None:
        super().__init__()

        def mirror(first: int, last: int) -> nn.Sequential:
            hidden = settings.hidden
            return nn.Sequential(
                nn.Linear(first, hidden),
                nn.LayerNorm(hidden),
                nn.ReLU(),
                nn.Dropout(settings.dropout),
                nn.Linear(hidden, last),
            )

        self.encoder = mirror(n_genes, settings.dim)
        self.decoder = mirror(settings.dim, n_genes)
        self.projector = nn.Linear(settings.dim, sphere_dim)

    def forward(self, rna: Tensor) -> tuple[Tensor, Tensor]:
        """RNA (B, G) → unit projections r (B, S) and reconstructions (B, G)."""
        embedding = self.encoder(rna)
        return functional.normalize(self.projector(embedding), dim=-1), self.decoder(embedding)


@dataclass(eq=False)  # not frozen: Fabric rebuilds what a forward returns
class Losses:
    """The five losses, each a mean over the bags that have it, and their weighted sum."""

    task: Tensor
    memory: Tensor
    rna: Tensor
    slide: Tensor
    reconstruction: Tensor
    total: Tensor

    def values(self) -> dict[str, float]:
        """Plain numbers by name."""
        return {field.name: float(getattr(self, field.name).detach()) for field in fields(self)}


class MoMKD(nn.Module):
    """The student with its privileged teacher. ``n_genes`` None: the same student, trained with cross-entropy only."""

    def __init__(self, in_dim: int, n_genes: int | None, n_classes: int, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.student = Student(in_dim, n_classes, settings)
        self.rna = None if n_genes is None else RnaBranch(n_genes, settings.memory.dim, settings.rna)

    def forward(self, bags: PackedBags, labels: Tensor, rna: Tensor | None, paired: Tensor | None) -> Losses:
        """All losses of B labelled bags.

        ``labels`` (B,) int64; ``rna`` (B, G), rows of unpaired patients ignored; ``paired`` (B,) bool, True where the
        row is real. A patient without RNA takes part in everything but the RNA losses.
        """
        out = self.student(bags)
        with full_precision(out.logits):
            return self._losses(out, bags, labels, rna, paired)

    def _losses(
        self, out: StudentOutput, bags: PackedBags, labels: Tensor, rna: Tensor | None, paired: Tensor | None
    ) -> Losses:
        task = functional.cross_entropy(out.logits, labels)
        zero = task.new_zeros(())
        if self.rna is None or rna is None or paired is None:
            return Losses(task, zero, zero, zero, zero, self.settings.loss.task * task)

        weights, memory = self.settings.loss, self.student.memory
        commitment = memory.commitment_loss(out.patches, bags.bag_of_patch, labels)
        orthogonality = memory.orthogonality().index_select(0, labels)
        memory_loss = (commitment + weights.orthogonality * orthogonality).mean()
        slide = memory.alignment_loss(out.slides, labels).mean()

        rna_loss = reconstruction = zero
        if paired.any():
            profiles = rna[paired]
            projected, rebuilt = self.rna(profiles)
            rna_loss = memory.alignment_loss(projected, labels[paired]).mean()
            reconstruction = functional.mse_loss(rebuilt, profiles)
        total = _weighted(weights, task, memory_loss, rna_loss, slide, reconstruction)
        return Losses(task, memory_loss, rna_loss, slide, reconstruction, total)


def _weighted(
    weights: LossSettings, task: Tensor, memory: Tensor, rna: Tensor, slide: Tensor, reconstruction: Tensor
) -> Tensor:
    """L = .5·CE + .1·L_mem + .05·L_rna + .2·L_wsi + .05·L_rec with the published weights."""
    return (
        weights.task * task
        + weights.memory * memory
        + weights.rna * rna
        + weights.slide * slide
        + weights.reconstruction * reconstruction
    )
