"""What a fit trains: the contract between a method and everything that methods share.

A method is one file. Its ``SlideModel`` is what remains after training and predicts from slides alone; its ``Method``
holds that model, whatever teaches it, and the losses. Folds, features, sampling, optimiser, schedule, stopping,
cross-fitted members and evaluation belong to the harness and are the same for all. ``Supervised`` is the method of a
model that is taught by labels only, so that a slide-only baseline is a ``SlideModel`` and no more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from momkd.models.lesson import Counts, Lesson
from momkd.models.outcome import Outcome
from momkd.models.packed import PackedBags


@dataclass(eq=False)  # not frozen: Fabric rebuilds what a forward returns
class SlideOutput:
    """What a model says of B bags with N patches in all.

    ``scores`` (B, O), as ``models.outcome`` defines them. Where the model has them: ``attention`` (N,), summing to 1 in
    each bag; ``evidence`` (N,), how much a patch speaks for the positive class; ``embedding`` (B, W), the pooled slide.
    """

    scores: Tensor
    attention: Tensor | None = None
    evidence: Tensor | None = None
    embedding: Tensor | None = None


class SlideModel(nn.Module, ABC):
    """Predicts from packed bags alone; what a student folder holds."""

    outcome: Outcome

    @abstractmethod
    def forward(self, bags: PackedBags) -> SlideOutput:
        """Score B bags."""

    def start(self, targets: Tensor) -> None:
        """Begin at what the training targets (N, 2) alone say."""
        self.outcome.start(targets)


class PairedModel(nn.Module, ABC):
    """An upper bound, which is given omics at test too: never a student, reported apart."""

    outcome: Outcome

    @abstractmethod
    def forward(self, bags: PackedBags, omics: Tensor) -> SlideOutput:
        """Score B bags with the rows (B, G) of their patients, zero for a patient without omics."""

    def start(self, targets: Tensor) -> None:
        """Begin at what the training targets (N, 2) alone say."""
        self.outcome.start(targets)


class StepLosses(Protocol):
    """The loss of a step and what it is made of. An implementation is a dataclass: Fabric looks into it."""

    total: Tensor

    def named(self) -> dict[str, Tensor]:
        """Every number that the history keeps, the same names in every step, the total last."""


@dataclass(eq=False)
class MethodLosses:
    """The loss of a step, and its parts by name."""

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)

    def named(self) -> dict[str, Tensor]:
        """The parts, and the total."""
        return {**self.parts, "total": self.total}


@dataclass(frozen=True, eq=False)
class PatientRows:
    """One omics table of the M training patients that are in it.

    ``values`` (M, G), selected and scaled; ``profiles`` (M, n), unit profiles, where they were made; ``memory_class``
    (M,) int64, −1 where it is unknown.
    """

    values: Tensor
    profiles: Tensor | None
    memory_class: Tensor


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """What is known before the first step of the N training slides, in the order of ``Lesson.index``.

    ``targets`` (N, 2); ``memory_class`` (N,) int64; ``tables`` by name; ``stream`` gives a random stream for a name,
    the same for one seed and name.
    """

    targets: Tensor
    memory_class: Tensor
    tables: Mapping[str, PatientRows]
    stream: Callable[..., torch.Generator]


@dataclass(frozen=True, eq=False)
class ParameterGroup:
    """Parameters with a learning rate of ``lr_mult`` times train.lr and, unless None, a weight decay of their own."""

    parameters: list[nn.Parameter]
    lr_mult: float = 1.0
    weight_decay: float | None = None


class Method(nn.Module, ABC):
    """A student and what teaches it. The loop calls the hooks below in the order in which they stand."""

    student: SlideModel | PairedModel

    def start(self, training: TrainingSet) -> None:
        """Before the first step."""
        self.student.start(training.targets)

    def parameter_groups(self) -> Iterator[ParameterGroup]:
        """Parameters that are not to be treated like the others."""
        return iter(())

    def preparation(self, epochs: int) -> int:  # noqa: ARG002
        """How many of the epochs, the first ones, prepare the student, which is neither judged nor kept in them."""
        return 0

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Before epoch ``epoch`` of ``epochs``, counted from 1."""

    @abstractmethod
    def forward(self, bags: PackedBags, lesson: Lesson) -> StepLosses:
        """The losses of B bags, normalised by ``counts_of(lesson)``, so that the parts of a step add up to it."""

    def after_step(self) -> None:
        """After every optimiser step."""

    def end_epoch(self) -> None:
        """After an epoch and its validation."""

    def history(self) -> dict[str, float]:
        """Columns of the history that are the method's own, after an epoch."""
        return {}

    def task_loss(self, scores: Tensor, lesson: Lesson) -> Tensor:
        """Mean task loss of scores (B, O) over the slides of the step."""
        return self.student.outcome.loss(scores, lesson.targets).sum() / counts_of(lesson).slides


class Supervised(Method):
    """Labels alone teach the model."""

    def __init__(self, student: SlideModel) -> None:
        super().__init__()
        self.student = student

    def forward(self, bags: PackedBags, lesson: Lesson) -> MethodLosses:
        """The task loss."""
        task = self.task_loss(self.student(bags).scores, lesson)
        return MethodLosses(task, {"task": task})


def counts_of(lesson: Lesson) -> Counts:
    """The counts of the whole step that a lesson is a part of."""
    return lesson.counts or Counts.of([lesson])
