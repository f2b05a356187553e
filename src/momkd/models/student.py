"""The student: the half of MoMKD that remains after training and predicts from histology alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from momkd.experiment import ClassifierSettings, EncoderSettings, ModelSettings
from momkd.models.gatv2 import GATv2
from momkd.models.memory import Memory, evidence_by_class
from momkd.models.method import SlideModel, SlideOutput
from momkd.models.outcome import Outcome
from momkd.models.packed import PackedBags, bag_means, segment_softmax, weighted_sum
from momkd.models.products import full_precision
from momkd.models.programmes import Programmes, zero_linear


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


@dataclass(kw_only=True, eq=False)
class StudentOutput(SlideOutput):
    """What the student says of B bags with N patches in all.

    ``logits`` (B, outputs), of the head alone; ``attention`` (N,), summing to 1 in each bag; ``evidence`` (N,), s_i:
    affinity to the positive minus the negative memory (of more than two classes, the largest s^y_i of a class y ≥ 1);
    ``patches`` (N, S) and ``slides`` (B, S), unit rows p and w on the shared sphere. ``histology`` (B, O): scores of
    head and wide path; ``votes`` (B, O) and ``programmes`` (B, n) of each programme memory; ``scores`` (B, O): what all
    of them say together.
    """

    attention: Tensor
    evidence: Tensor
    embedding: Tensor
    logits: Tensor
    patches: Tensor
    slides: Tensor
    histology: Tensor
    votes: dict[str, Tensor]
    programmes: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class SlideScore:
    """What is said of B pooled bags; the fields as in ``StudentOutput``."""

    scores: Tensor
    logits: Tensor
    histology: Tensor
    votes: dict[str, Tensor]
    programmes: dict[str, Tensor]


class Student(SlideModel):
    """The histology-only path; it holds no RNA weight.

    ``programmes`` names the omics tables that taught programme memories; their votes and the histology score are
    averaged, s = (1 − ν)·s_hist + ν·mean of votes.

    Without gradients a slide of any size is read in parts: beyond its features, which may be float16 and mapped from
    a file, it takes memory for three tensors (N, W).
    """

    def __init__(self, in_dim: int, outcome: Outcome, settings: ModelSettings, programmes: Sequence[str] = ()) -> None:
        super().__init__()
        width, self.outcome, self.vote_share = settings.encoder.dim, outcome, settings.programmes.vote
        n_classes, n_scores = outcome.n_memories, outcome.n_scores
        self.encoder = SlideEncoder(in_dim, settings.encoder)
        self.patch_projector = nn.Linear(width, settings.memory.dim)
        self.slide_projector = nn.Linear(width, settings.memory.dim)
        self.memory = Memory(n_classes, settings.memory)
        self.log_temperature = nn.Parameter(
            torch.tensor(math.log(settings.memory.temperature)), requires_grad=settings.memory.learn_temperature
        )
        self.focus_growth = settings.memory.focus_growth
        self.classifier = Classifier(width, outcome.n_outputs, settings.classifier)
        self.wide = zero_linear(in_dim, n_scores) if settings.wide.enabled else None
        self.programmes = nn.ModuleDict(
            {name: Programmes(in_dim, width, n_classes, n_scores, settings.programmes) for name in programmes}
        )

    def forward(self, bags: PackedBags) -> StudentOutput:
        """Memory-guided aggregation: a = mean over classes y ≥ 1 of softmax_i(s^y_i / τ), V = Σ a_i F_i, scored.

        In prediction τ is divided by the ``focus`` of a bag of that size.
        """
        return self.read(bags, self.encoder(bags))

    def read(self, bags: PackedBags, encoded: Tensor) -> StudentOutput:
        """What the encoded patches F (N, W) of bags say."""
        bag_of_patch, n_bags = bags.bag_of_patch, bags.n_bags
        with full_precision(encoded):
            patches = functional.normalize(self.patch_projector(encoded), dim=-1)

            by_class = evidence_by_class(self.memory.affinity(patches))
            temperature = self.learnt_temperature + 1e-9
            if self.focus_growth and not self.training:
                temperature = (temperature / self.focus(bags.ptr.diff())).index_select(0, bag_of_patch)
            parts = [segment_softmax(evidence / temperature, bag_of_patch, n_bags) for evidence in by_class]
            # Two classes: one evidence and its softmax, as published.
            attention = parts[0] if len(parts) == 1 else torch.stack(parts).mean(0)
            evidence = by_class[0] if len(by_class) == 1 else torch.stack(by_class).amax(0)

            pooled = weighted_sum(attention, encoded, bags.ptr)
            slides = functional.normalize(self.slide_projector(pooled), dim=-1)
            mean = bag_means(bags.features, bags.ptr, pooled.dtype) if self.reads_means else None
            score = self.score(mean, pooled)
        return StudentOutput(
            scores=score.scores,
            attention=attention,
            evidence=evidence,
            embedding=pooled,
            logits=score.logits,
            patches=patches,
            slides=slides,
            histology=score.histology,
            votes=score.votes,
            programmes=score.programmes,
        )

    @property
    def learnt_temperature(self) -> Tensor:
        """τ, within its bounds."""
        return self.log_temperature.exp().clamp(0.01, 2.0)

    def focus(self, sizes: Tensor) -> Tensor:
        """f = max(1, g·ln P), which divides τ in prediction: sizes P of bags, any shape → the same shape, float32.

        Evidence is bounded, so that the share of one patch among P falls as 1 / P; logits that grow with ln P keep it
        from that (Nakanishi 2025, arXiv 2501.19399).
        """
        return (self.focus_growth * sizes.to(torch.float32).log()).clamp(min=1.0)

    @property
    def reads_means(self) -> bool:
        """Whether the mean features of a bag say something beside its pooled patches."""
        return self.wide is not None or len(self.programmes) > 0

    def score(self, mean: Tensor | None, pooled: Tensor, *, through_votes: bool = False) -> SlideScore:
        """Score mean features (B, D) and pooled bags (B, W).

        No gradient passes the votes into the programmes, as the method has it, unless ``through_votes`` asks what the
        score depends on.
        """
        logits = self.classifier(pooled)
        histology = self.outcome.scores(logits)
        votes: dict[str, Tensor] = {}
        programmes: dict[str, Tensor] = {}
        if mean is not None:
            if self.wide is not None:
                histology = histology + self.wide(mean)
            for name, memory in self.programme_memories().items():
                programmes[name] = memory.predict(mean, pooled)
                votes[name] = memory.vote(programmes[name] if through_votes else programmes[name].detach())
        scores = histology
        if votes:
            scores = torch.lerp(histology, torch.stack(list(votes.values())).mean(0), self.vote_share)
        return SlideScore(scores, logits, histology, votes, programmes)

    def programme_memories(self) -> dict[str, Programmes]:
        """The programme memories by omics table."""
        return {name: module for name, module in self.programmes.items() if isinstance(module, Programmes)}

    @torch.no_grad()
    def start(self, targets: Tensor) -> None:
        """Begin at what the training targets (N, 2) alone say, so that no step is spent on learning it."""
        average = self.outcome.start(targets)
        if self.wide is not None:
            self.wide.bias.copy_(average)

    def project_patches(self, bags: PackedBags) -> Tensor:
        """The unit patch projections p alone, (N, S): what the memory is initialised from."""
        encoded = self.encoder(bags)
        with full_precision(encoded):
            return functional.normalize(self.patch_projector(encoded), dim=-1)
