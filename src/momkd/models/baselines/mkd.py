"""MKD: a slide student, an omics teacher and a multimodal teacher learn together and from one another.

Zhang et al. 2025, "Multi-modal knowledge decomposition based online distillation for biomarker prediction in breast
cancer histopathology" (MICCAI, arXiv 2508.17213). S is the slide student with pooled embedding z, G the omics encoder
with embedding e, M = gated Kronecker fusion of z and e (``fusion``). Each stream has a head on its embedding, and two
projections of it: a general part g, which the streams share, and a specific part p. Over the B paired bags that are
packed at once (32 in the paper; here those of a step):

    L = L_task(S) + weight · [ L_task(G) + L_task(M) + 32 · (SP(z, m) + SP(z, e)) + L_mutual + L_match + L_orth ]

    L_mutual  both ways between S and M and between S and G: T² · KL at T = 4, the one that is followed without gradient
    L_match   mean over (S, M), (S, G), (M, G) of ‖mean g_a − mean g_b‖² + ‖cov g_a − cov g_b‖² / (4 d²)
    L_orth    1/6 of the sum over six pairs (g_a, p_a for each stream; p_a, p_b for each pair of streams) of the mean
              squared cosine of the two parts of a bag

SP is that of ``relational``, KL that of ``soft_labels``. The paper leaves open which parts are matched and which are to
be orthogonal; the division above is our reading of its modality-general and modality-specific features.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional

from momkd.experiment import ModelSettings
from momkd.models.baselines.fusion import KroneckerFusion
from momkd.models.baselines.relational import sp_loss
from momkd.models.baselines.soft_labels import soft_cost
from momkd.models.baselines.taught import encoder, joined, pooled
from momkd.models.lesson import Lesson
from momkd.models.method import Method, MethodLosses, SlideModel, TrainingSet, counts_of
from momkd.models.outcome import Outcome
from momkd.models.packed import PackedBags
from momkd.models.products import full_precision

_TEMPERATURE = 4.0
_SIMILARITY = 32.0
# Width of the general and of the specific part.
_PART = 64
_STREAMS = ("slide", "omics", "both")


def matching_loss(first: Tensor, second: Tensor) -> Tensor:
    """Squared distance of the means, and of the covariances over 4d² (deep CORAL): (B, d) twice → scalar."""
    means = (first.mean(0) - second.mean(0)).square().sum()
    width = first.shape[1]
    return means + (_covariance(first) - _covariance(second)).square().sum() / (4.0 * width**2)


def orthogonality_loss(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared cosine of rows (B, d) and (B, d) → scalar."""
    return functional.cosine_similarity(first, second, dim=1).square().mean()


def mutual_loss(outcome: Outcome, first: Tensor, second: Tensor) -> Tensor:
    """Each of two scores (B, O) follows the other: (B,)."""
    return soft_cost(outcome, first, second.detach(), _TEMPERATURE) + soft_cost(
        outcome, second, first.detach(), _TEMPERATURE
    )


class MKD(Method):
    """The student and its two teachers; ``genes`` empty: the student, taught by labels."""

    student: SlideModel

    def __init__(self, student: SlideModel, settings: ModelSettings, genes: Mapping[str, int]) -> None:
        super().__init__()
        self.student, self.weight = student, settings.baseline.weight
        self.teachers = _Teachers(student.outcome, settings, sum(genes.values())) if genes else None

    def start(self, training: TrainingSet) -> None:
        """All three begin at the averages."""
        self.student.start(training.targets)
        if self.teachers is not None:
            for outcome in self.teachers.outcomes():
                outcome.start(training.targets)

    def forward(self, bags: PackedBags, lesson: Lesson) -> MethodLosses:
        """The losses above; those of groups within what is packed, weighted by its share of the step."""
        out = self.student(bags)
        with full_precision(out.scores):
            task = self.task_loss(out.scores, lesson)
            names = ("teachers", "similarity", "mutual", "matching", "orthogonality")
            parts = {name: torch.zeros_like(task) for name in names}
            if self.teachers is not None and lesson.tables:
                values, paired = joined(lesson)
                if paired.any():
                    own = (pooled(out)[paired], out.scores[paired])
                    found = self.teachers.losses(self.student.outcome, *own, values[paired], lesson.targets[paired])
                    share = int(paired.sum()) / counts_of(lesson).slides
                    parts = {name: share * found[name] for name in names}
            total = task + self.weight * torch.stack(list(parts.values())).sum()
            return MethodLosses(total, {"task": task, **parts})


class _Teachers(nn.Module):
    """G and M, and the two parts of every stream. Training only."""

    def __init__(self, outcome: Outcome, settings: ModelSettings, n_genes: int) -> None:
        super().__init__()
        slide, omics = settings.baseline.dim, settings.rna.dim
        self.omics_outcome, self.both_outcome = copy.deepcopy(outcome), copy.deepcopy(outcome)
        self.encoder = encoder(n_genes, settings.rna)
        self.fusion = KroneckerFusion(slide, omics, slide, settings.baseline.dropout)
        self.omics_head, self.both_head = nn.Linear(omics, outcome.n_outputs), nn.Linear(slide, outcome.n_outputs)
        widths = dict(zip(_STREAMS, (slide, omics, slide), strict=True))
        self.general = nn.ModuleDict({name: nn.Linear(width, _PART) for name, width in widths.items()})
        self.specific = nn.ModuleDict({name: nn.Linear(width, _PART) for name, width in widths.items()})

    def outcomes(self) -> tuple[Outcome, Outcome]:
        """Those of G and M."""
        return self.omics_outcome, self.both_outcome

    def losses(
        self, outcome: Outcome, slide: Tensor, scores: Tensor, values: Tensor, targets: Tensor
    ) -> dict[str, Tensor]:
        """Means over B paired bags: z (B, W), student scores (B, O), omics (B, G), targets (B, 2)."""
        omics = self.encoder(values)
        both = self.fusion(slide, omics)
        of_omics = self.omics_outcome.scores(self.omics_head(omics.relu()))
        of_both = self.both_outcome.scores(self.both_head(both))
        told = (self.omics_outcome.loss(of_omics, targets) + self.both_outcome.loss(of_both, targets)).mean()
        streams = dict(zip(_STREAMS, (slide, omics, both), strict=True))
        general = [self.general[name](stream) for name, stream in streams.items()]
        specific = [self.specific[name](stream) for name, stream in streams.items()]
        apart = [*zip(general, specific, strict=True), *combinations(specific, 2)]
        return {
            "teachers": told,
            "similarity": _SIMILARITY * (sp_loss(slide, both.detach()) + sp_loss(slide, omics.detach())),
            "mutual": (mutual_loss(outcome, scores, of_both) + mutual_loss(outcome, scores, of_omics)).mean(),
            "matching": torch.stack([matching_loss(a, b) for a, b in combinations(general, 2)]).mean(),
            "orthogonality": torch.stack([orthogonality_loss(a, b) for a, b in apart]).mean(),
        }


def _covariance(rows: Tensor) -> Tensor:
    centred = rows - rows.mean(0)
    return centred.T @ centred / max(1, len(rows) - 1)
