"""Soft labels: a slide model is taught the label and what an omics teacher thought of the patient.

Lopez-Paz et al. 2015, "Unifying distillation and privileged information" (arXiv 1511.03643), eq. 5; Hinton et al. 2015
(arXiv 1503.02531) for T². With s the scores of the student and t those of the teacher:

    L = (1 − λ) · loss(y, s) + weight · λ · T² · KL(softmax(t / T) ‖ softmax(s / T))

The teacher is linear and was fitted inside the training patients; each t is of a patient that it had not seen
(``omics.teacher``). λ is model.teacher.weight, or ½ where that is 0; T = 2. A slide without a soft label costs
loss(y, s). Scores that are no log-odds of classes (ordinal, continuous, survival) have no softmax: there the second
term is λ · curvature · (s − t)², which for two classes is the limit of T² · KL for large T.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from momkd.experiment import ModelSettings
from momkd.models.lesson import Lesson
from momkd.models.method import Method, MethodLosses, SlideModel, counts_of
from momkd.models.outcome import Nominal, Outcome
from momkd.models.packed import PackedBags
from momkd.models.products import full_precision

_TEMPERATURE = 2.0
_SHARE = 0.5


def share_of(settings: ModelSettings) -> float:
    """λ."""
    return settings.teacher.weight or _SHARE


def soft_cost(outcome: Outcome, scores: Tensor, told: Tensor, temperature: float) -> Tensor:
    """T² · KL(told ‖ scores) of each slide, or curvature · (scores − told)²: (B, O), (B, O) → (B,)."""
    if not isinstance(outcome, Nominal):
        return outcome.curvature * (scores - told).square().sum(1)
    ours, theirs = (torch.log_softmax(functional.pad(values, (1, 0)) / temperature, dim=1) for values in (scores, told))
    return temperature**2 * (theirs.exp() * (theirs - ours)).sum(1)


class SoftLabels(Method):
    """Labels and soft labels teach the model; without soft labels, labels alone."""

    student: SlideModel

    def __init__(self, student: SlideModel, settings: ModelSettings, genes: Mapping[str, int]) -> None:  # noqa: ARG002
        super().__init__()
        self.student, self.share, self.weight = student, share_of(settings), settings.baseline.weight

    def forward(self, bags: PackedBags, lesson: Lesson) -> MethodLosses:
        """``task``: (1 − λ) · loss of slides with a soft label, the whole loss of the others; ``soft``: the rest."""
        scores, outcome = self.student(bags).scores, self.student.outcome
        with full_precision(scores):
            hard = outcome.loss(scores, lesson.targets)
            soft = torch.zeros_like(hard)
            if lesson.soft is not None and lesson.has_soft is not None:
                cost = soft_cost(outcome, scores, lesson.soft, _TEMPERATURE)
                soft = torch.where(lesson.has_soft, self.share * cost, 0.0)
                hard = torch.where(lesson.has_soft, (1.0 - self.share) * hard, hard)
            slides = counts_of(lesson).slides
            parts = {"task": hard.sum() / slides, "soft": soft.sum() / slides}
        return MethodLosses(parts["task"] + self.weight * parts["soft"], parts)
