"""What methods with omics during training share: the rows of a step, an omics teacher, and when it teaches.

In the first fifth of the epochs (``Method.preparation``) student and teacher learn from labels alone, each for itself.
Then the teacher stands still and the loss of the method is added to the student's. In no epoch does the student see
more slides or steps than a student without a teacher.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from momkd.experiment import ModelSettings, RnaSettings
from momkd.models.lesson import Lesson
from momkd.models.method import Method, MethodLosses, SlideModel, SlideOutput, TrainingSet, counts_of
from momkd.models.outcome import Outcome
from momkd.models.packed import PackedBags
from momkd.models.products import full_precision


def joined(lesson: Lesson) -> tuple[Tensor, Tensor]:
    """All omics tables side by side (B, G), zero where a patient is not in one, and who is in any (B,) bool."""
    tables = list(lesson.tables.values())
    values = torch.cat([torch.where(t.paired.unsqueeze(1), t.values, 0.0) for t in tables], dim=1)
    return values, torch.stack([table.paired for table in tables]).any(0)


def embedded(out: SlideOutput) -> Tensor:
    """The embedding (B, W) of bags."""
    if out.embedding is None:
        raise ValueError("this method needs a student that pools its patches into an embedding")
    return out.embedding


def pooled(out: SlideOutput) -> Tensor:
    """The embedding (B, W) of bags, in float32."""
    return embedded(out).float()


def encoder(n_genes: int, settings: RnaSettings) -> nn.Sequential:
    """G genes → R: Linear, LayerNorm, ReLU, dropout, Linear; the omics encoder of MoMKD."""
    return nn.Sequential(
        nn.Linear(n_genes, settings.hidden),
        nn.LayerNorm(settings.hidden),
        nn.ReLU(),
        nn.Dropout(settings.dropout),
        nn.Linear(settings.hidden, settings.dim),
    )


class Teacher(nn.Module):
    """Base of the networks that see omics in training: ``outcome`` of their own, ``width`` R of their features."""

    outcome: Outcome
    width: int

    @abstractmethod
    def forward(self, bags: PackedBags, values: Tensor, paired: Tensor) -> tuple[Tensor, Tensor]:
        """Bags and omics rows (B, G), M of them paired (B,) → features (M, R) and scores (M, O) of these."""


class OmicsTeacher(Teacher):
    """Omics alone: e = encoder(x), scores = head(ReLU(e))."""

    def __init__(self, n_genes: int, outcome: Outcome, settings: RnaSettings) -> None:
        super().__init__()
        # An outcome may hold weights (cut points, hazards), which belong to whose scores they are made for.
        self.outcome = copy.deepcopy(outcome)
        self.width = settings.dim
        self.encoder = encoder(n_genes, settings)
        self.head = nn.Linear(settings.dim, outcome.n_outputs)

    def forward(self, bags: PackedBags, values: Tensor, paired: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Rows (B, G) → e (M, R), scores (M, O)."""
        features = self.encoder(values[paired])
        return features, self.outcome.scores(self.head(features.relu()))


@dataclass(frozen=True, eq=False)
class Pairs:
    """The M ≥ 1 paired bags of what is packed.

    ``embedding`` (M, W) and ``scores`` (M, O) of the student; ``features`` (M, R) and ``told`` (M, O), scores of the
    teacher, without gradient; ``targets`` (M, 2); ``memory_class`` (M,); ``index`` (M,), numbers among the fit's
    slides.
    """

    embedding: Tensor
    scores: Tensor
    features: Tensor
    told: Tensor
    targets: Tensor
    memory_class: Tensor
    index: Tensor | None

    @classmethod
    def of(cls, out: SlideOutput, told: tuple[Tensor, Tensor], lesson: Lesson, paired: Tensor) -> Self:
        """What student and teacher say of the paired bags (B,) bool."""
        return cls(
            embedding=pooled(out)[paired],
            scores=out.scores[paired],
            features=told[0],
            told=told[1],
            targets=lesson.targets[paired],
            memory_class=lesson.memory_class[paired],
            index=None if lesson.index is None else lesson.index[paired],
        )

    @property
    def numbers(self) -> Tensor:
        """``index``, which methods with a memory of instances cannot do without."""
        if self.index is None:
            raise ValueError("a memory of instances needs lesson.index, the numbers of the slides")
        return self.index


class Taught(Method):
    """A student, and a teacher that learns first, then stands still and teaches.

    L = L_task + weight · L_distillation (+ L_teacher, the task loss of the teacher, while it learns). ``genes`` empty:
    there is no teacher, and the student learns from labels. L_distillation acts within what is packed, weighted by
    the share that its paired bags have of the step.
    """

    student: SlideModel

    def __init__(self, student: SlideModel, settings: ModelSettings, genes: Mapping[str, int]) -> None:
        super().__init__()
        self.student, self.settings = student, settings
        self.teacher = self.make_teacher(sum(genes.values())) if genes else None
        self.learning = False

    def make_teacher(self, n_genes: int) -> Teacher:
        """The teacher over G genes."""
        return OmicsTeacher(n_genes, self.student.outcome, self.settings.rna)

    @property
    def taught_width(self) -> int:
        """R, the width of the teacher's features; 1 where there is none."""
        return 1 if self.teacher is None else self.teacher.width

    def start(self, training: TrainingSet) -> None:
        """Student and teacher begin at the averages."""
        self.student.start(training.targets)
        if self.teacher is not None:
            self.teacher.outcome.start(training.targets)

    def preparation(self, epochs: int) -> int:
        """A fifth of the epochs, one at least; of a single epoch none, and then nobody has taught the teacher."""
        return 0 if self.teacher is None or epochs < 2 else max(1, epochs // 5)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """The teacher learns or teaches."""
        self.learning = epoch <= self.preparation(epochs)

    def train(self, mode: bool = True) -> Self:
        """Dropout of the teacher is for its own learning only."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.train(mode and self.learning)
        return self

    def forward(self, bags: PackedBags, lesson: Lesson) -> MethodLosses:
        """The task loss, and what the teacher adds."""
        out, slides = self.student(bags), counts_of(lesson).slides
        with full_precision(out.scores):
            task = self.task_loss(out.scores, lesson)
            teacher, distilled = task.new_zeros(()), task.new_zeros(())
            if self.teacher is not None and lesson.tables:
                values, paired = joined(lesson)
                if paired.any() and self.learning:
                    scores = self.teacher(bags, values, paired)[1]
                    teacher = self.teacher.outcome.loss(scores, lesson.targets[paired]).sum() / slides
                elif paired.any():
                    with torch.no_grad():
                        told = self.teacher(bags, values, paired)
                    pairs = Pairs.of(out, told, lesson, paired)
                    distilled = self.distil(pairs, task, embedded(out)) * (len(pairs.targets) / slides)
            total = task + self.settings.baseline.weight * distilled + teacher
            return MethodLosses(total, {"task": task, "distillation": distilled, "teacher": teacher})

    @abstractmethod
    def distil(self, pairs: Pairs, task: Tensor, embedding: Tensor) -> Tensor:
        """L_distillation: the mean over the paired bags. ``task``: the task loss of the ``embedding`` (B, W)."""
