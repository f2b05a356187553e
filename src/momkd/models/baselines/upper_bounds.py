"""Upper bounds: models that are given omics at test too. What they know is what a student could know at most.

rna-linear: the linear model of ``linear.py`` on the selected, scaled omics columns. rna-mlp: the omics encoder of
MoMKD and a head. slide+rna: ABMIL's pooled bag beside the encoded omics, one head over both. A patient without omics
has a row of zeros, the average profile.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from momkd.errors import TrainingError
from momkd.experiment import ModelSettings, RnaSettings
from momkd.models.baselines.attention import Embedding, GatedAttention
from momkd.models.baselines.linear import solution, write
from momkd.models.closed_form import ClosedForm, Known
from momkd.models.lesson import Lesson
from momkd.models.method import Method, MethodLosses, PairedModel, SlideOutput
from momkd.models.outcome import Outcome
from momkd.models.packed import PackedBags
from momkd.models.products import full_precision
from momkd.models.programmes import zero_linear


class OmicsLinear(PairedModel):
    """scores = W r + b."""

    def __init__(self, in_dim: int, outcome: Outcome, settings: ModelSettings, columns: int) -> None:  # noqa: ARG002
        super().__init__()
        self.outcome = outcome
        self.linear = zero_linear(columns, outcome.n_scores)

    def forward(self, bags: PackedBags, omics: Tensor) -> SlideOutput:  # noqa: ARG002
        """Score the rows (B, G); the bags are not looked at."""
        with full_precision(omics):
            return SlideOutput(self.linear(omics))


class OmicsMLP(PairedModel):
    """scores = head(encoder(r))."""

    def __init__(self, in_dim: int, outcome: Outcome, settings: ModelSettings, columns: int) -> None:  # noqa: ARG002
        super().__init__()
        self.outcome = outcome
        self.encoder = omics_encoder(columns, settings.rna)
        self.head = nn.Linear(settings.rna.dim, outcome.n_outputs)

    def forward(self, bags: PackedBags, omics: Tensor) -> SlideOutput:  # noqa: ARG002
        """Score the rows (B, G); the bags are not looked at."""
        with full_precision(omics):
            encoded = self.encoder(omics)
            return SlideOutput(self.outcome.scores(self.head(encoded)), embedding=encoded)


class SlideAndOmics(PairedModel):
    """scores = head([ABMIL's z, encoder(r)])."""

    def __init__(self, in_dim: int, outcome: Outcome, settings: ModelSettings, columns: int) -> None:
        super().__init__()
        own = settings.baseline
        self.outcome = outcome
        self.embedding = Embedding(in_dim, own.dim, own.dropout)
        self.attention = GatedAttention(own.dim, own)
        self.encoder = omics_encoder(columns, settings.rna)
        self.head = nn.Linear(own.dim + settings.rna.dim, outcome.n_outputs)

    def forward(self, bags: PackedBags, omics: Tensor) -> SlideOutput:
        """Score B bags with their rows (B, G)."""
        h = self.embedding(bags.features)
        with full_precision(h):
            attention, pooled = self.attention.pool(h, bags)
            both = torch.cat([pooled, self.encoder(omics)], dim=1)
            return SlideOutput(self.outcome.scores(self.head(both)), attention=attention, embedding=both)


class Paired(Method):
    """Labels teach a model that is given omics."""

    student: PairedModel

    def __init__(self, student: PairedModel, settings: ModelSettings, genes: Mapping[str, int]) -> None:  # noqa: ARG002
        super().__init__()
        self.student = student

    def forward(self, bags: PackedBags, lesson: Lesson) -> MethodLosses:
        """The task loss."""
        task = self.task_loss(self.student(bags, omics_rows(lesson)).scores, lesson)
        return MethodLosses(task, {"task": task})


class OmicsLinearFit(Paired, ClosedForm):
    """The linear model of omics, solved. Only patients that have omics teach it."""

    student: OmicsLinear

    def solve(self, known: Known) -> None:
        """Write the solution into the student."""
        if known.omics is None:
            raise ValueError("rna-linear needs omics")
        paired = known.omics.abs().sum(1) > 0
        if len(torch.unique(known.part[paired])) < 2:
            raise TrainingError(
                f"rna-linear: the {int(paired.sum())} training patients with omics are all in one inner part, so no "
                "penalty can be chosen; give omics of more patients"
            )
        found = solution(known.omics[paired], known.targets[paired], known.part[paired], self.student.outcome)
        write(found, self.student.linear)


def omics_encoder(columns: int, settings: RnaSettings) -> nn.Sequential:
    """G columns → R."""
    return nn.Sequential(
        nn.Linear(columns, settings.hidden),
        nn.LayerNorm(settings.hidden),
        nn.ReLU(),
        nn.Dropout(settings.dropout),
        nn.Linear(settings.hidden, settings.dim),
        nn.ReLU(),
    )


def omics_rows(lesson: Lesson) -> Tensor:
    """All tables side by side (B, G), zero where a patient is not in one."""
    return torch.cat([table.values * table.paired.unsqueeze(1) for table in lesson.tables.values()], dim=1)
