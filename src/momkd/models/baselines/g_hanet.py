"""G-HANet: tokens read a slide, and each is to tell the expression of a group of genes.

Wang et al. 2025, "Histo-genomic knowledge association for cancer prognosis from histopathology whole slide images"
(IEEE TMI, arXiv 2403.10040). With h_i = ReLU(W x_i) the patches of a bag and t_g learnable tokens, g = 1 … 6:

    z_g = Σ_i softmax_i(Q t_g · K h_i / √d) V h_i               a token's cross-attention over the patches
    s_i = (t_1 · h_i / √d, …, t_6 · h_i / √d)                   how each token likes a patch
    a_i = softmax_i(wᵀ(tanh(A s_i) ⊙ σ(B s_i)))                 hyper-attention, made from these likings
    scores = head [Σ_i a_i h_i, mean_g z_g]

    L = L_task + weight · 0.3 · Σ_g [ (1 − cos(x̂_g, x_g))³ + MSE(x̂_g, x_g) ],    x̂_g = R_g z_g

x_g are the genes of group g, R_g belongs to training only. The groups: the training patients' genes are clustered by
correlation (spherical k-means of the centred columns), put in the order of cluster and of correlation with its centre,
and the row is cut into six groups of equal size, so that no token has few genes. Several omics tables stand one after
another in that row. The published groups are gene families, which a table of other genes would not have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from momkd.experiment import ModelSettings
from momkd.models.baselines.taught import joined
from momkd.models.kmeans import spherical_kmeans
from momkd.models.lesson import Lesson
from momkd.models.method import Method, MethodLosses, SlideModel, SlideOutput, TrainingSet, counts_of
from momkd.models.outcome import Outcome
from momkd.models.packed import PackedBags, segment_softmax, weighted_sum
from momkd.models.products import full_precision

_TOKENS = 6
_FACTOR = 0.3


@dataclass(kw_only=True, eq=False)
class TokenOutput(SlideOutput):
    """Also ``tokens`` (B, 6, d), z."""

    tokens: Tensor


class GHANet(SlideModel):
    """Tokens, their cross-attention, and the hyper-attention; it has no omics weight."""

    def __init__(self, in_dim: int, outcome: Outcome, settings: ModelSettings) -> None:
        super().__init__()
        sizes, self.outcome = settings.baseline, outcome
        width = sizes.dim
        self.embed = nn.Linear(in_dim, width)
        self.dropout = sizes.dropout
        self.tokens = nn.Parameter(torch.randn(_TOKENS, width) / math.sqrt(width))
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.tanh, self.gate = nn.Linear(_TOKENS, sizes.attention), nn.Linear(_TOKENS, sizes.attention)
        self.attend = nn.Linear(sizes.attention, 1)
        self.head = nn.Linear(2 * width, outcome.n_outputs)

    def forward(self, bags: PackedBags) -> TokenOutput:
        """Score B bags."""
        patches = functional.dropout(
            self.embed(bags.features.to(self.embed.weight.dtype)).relu(), self.dropout, self.training
        )
        with full_precision(patches):
            patches = patches.float()
            scale, segments = 1.0 / math.sqrt(patches.shape[1]), (bags.bag_of_patch, bags.n_bags)
            # Q t · K h = (Kᵀ Q t) · h: six rows are mapped, not every patch. V is mapped after its weighted sum.
            asked = self.query(self.tokens) @ self.key.weight
            cross = segment_softmax(scale * patches @ asked.T, *segments)
            read = torch.stack([weighted_sum(column, patches, bags.ptr) for column in cross.unbind(1)], dim=1)
            tokens = self.value(read)
            likings = scale * patches @ self.tokens.T
            hidden = torch.tanh(self.tanh(likings)) * torch.sigmoid(self.gate(likings))
            attention = segment_softmax(self.attend(hidden).squeeze(1), *segments)
            embedding = torch.cat([weighted_sum(attention, patches, bags.ptr), tokens.mean(1)], dim=1)
            scores = self.outcome.scores(self.head(embedding))
        return TokenOutput(scores=scores, attention=attention, embedding=embedding, tokens=tokens)


class GHANetMethod(Method):
    """The reconstruction of gene groups; ``genes`` empty: labels alone."""

    student: GHANet
    group: Tensor
    real: Tensor

    def __init__(self, student: GHANet, settings: ModelSettings, genes: Mapping[str, int]) -> None:
        super().__init__()
        self.student, self.weight, self.genes = student, settings.baseline.weight, dict(genes)
        self.rebuild = None
        if genes:
            group, real = equal_groups(torch.arange(sum(genes.values())))
            self.register_buffer("group", group)
            self.register_buffer("real", real)
            self.rebuild = nn.ModuleList(nn.Linear(settings.baseline.dim, group.shape[1]) for _ in range(_TOKENS))

    def start(self, training: TrainingSet) -> None:
        """Begin at the averages; group the genes."""
        super().start(training)
        orders, done = [], 0
        for name, n_genes in self.genes.items():
            order = correlation_order(training.tables[name].values, training.stream("gene groups", name))
            orders.append(order + done)
            done += n_genes
        if orders:
            self.group.copy_(equal_groups(torch.cat(orders))[0])

    def forward(self, bags: PackedBags, lesson: Lesson) -> MethodLosses:
        """The task loss, and what the tokens do not tell of the genes."""
        out: TokenOutput = self.student(bags)
        with full_precision(out.scores):
            task = self.task_loss(out.scores, lesson)
            rebuilt = torch.zeros_like(task)
            if self.rebuild is not None and lesson.tables:
                values, paired = joined(lesson)
                told = torch.stack(
                    [layer(token) for layer, token in zip(self.rebuild, out.tokens.unbind(1), strict=True)], dim=1
                )
                true = values[:, self.group] * self.real
                error = reconstruction_loss(told * self.real, true, self.real)
                rebuilt = _FACTOR * torch.where(paired, error, 0.0).sum() / counts_of(lesson).slides
            return MethodLosses(task + self.weight * rebuilt, {"task": task, "reconstruction": rebuilt})


def reconstruction_loss(told: Tensor, true: Tensor, real: Tensor) -> Tensor:
    """Σ_g [(1 − cos)³ + MSE] of each bag: (B, g, n) twice, zero where ``real`` (g, n) is False → (B,)."""
    cosine = functional.cosine_similarity(told, true, dim=2)
    error = (told - true).square().sum(2) / real.sum(1).clamp(min=1)
    return torch.where(real.any(1), (1.0 - cosine) ** 3 + error, 0.0).sum(1)


def equal_groups(order: Tensor) -> tuple[Tensor, Tensor]:
    """Cut a row of gene numbers (G,) into six runs, sizes differing by one at most: (6, n) int64, and which are real.

    Places beyond a group's size hold gene 0 and are not real.
    """
    runs = torch.tensor_split(order, _TOKENS)
    longest = max(1, *(len(run) for run in runs))
    group = torch.stack([functional.pad(run, (0, longest - len(run))) for run in runs])
    real = torch.stack([torch.arange(longest, device=order.device) < len(run) for run in runs])
    return group, real


def correlation_order(values: Tensor, generator: torch.Generator) -> Tensor:
    """Gene numbers (G,) int64, correlated genes beside one another; ``values`` (M, G) of training patients."""
    columns = functional.normalize((values - values.mean(0)).T, dim=1)
    centres = spherical_kmeans(columns, _TOKENS, generator)
    similarity, owner = (columns @ centres.T).max(1)
    by_similarity = similarity.argsort(descending=True, stable=True)
    return by_similarity[owner[by_similarity].argsort(stable=True)]
