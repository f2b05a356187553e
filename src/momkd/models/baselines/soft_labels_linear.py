"""Soft labels for a linear model: ridge regression of what an omics teacher thought of a patient on mean features.

Lopez-Paz et al. 2015 (``soft_labels``) in closed form. x̄ (D) are the mean patch features of a slide, standardised over
the training slides; t (O) the scores of the omics teacher, out of part; y' (O) the label on the scale of the scores:

    W, b = argmin Σ ‖W x̄ + b − (λ t + (1 − λ) y')‖² + α ‖W‖²

λ is model.teacher.weight, or ½ where that is 0: half soft label, half label; 1 takes soft labels alone. A slide without
a soft label has y'. y' is the indicator of a class less that of the first class, the number of an ordered class, the
standardised value, or the martingale residual of a time; scaled like t (all but values) to the standard deviation
model.teacher.spread and to the score of an average patient. α has the least squared error on inner parts of whole
groups.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from momkd.experiment import ModelSettings
from momkd.models.baselines.linear import Linear, best_ridge, label_scores, write
from momkd.models.baselines.soft_labels import share_of
from momkd.models.closed_form import ClosedForm, Known
from momkd.models.lesson import Lesson
from momkd.models.method import MethodLosses
from momkd.models.packed import PackedBags


class SoftLabelsLinear(ClosedForm):
    """Ridge on soft labels."""

    student: Linear

    def __init__(self, student: Linear, settings: ModelSettings, genes: Mapping[str, int]) -> None:  # noqa: ARG002
        super().__init__()
        self.student, self.share, self.spread = student, share_of(settings), settings.teacher.spread

    def forward(self, bags: PackedBags, lesson: Lesson) -> MethodLosses:
        """The task loss, which nothing here makes smaller."""
        task = self.task_loss(self.student(bags).scores, lesson)
        return MethodLosses(task, {"task": task})

    def solve(self, known: Known) -> None:
        """Write W and b into the student."""
        goal = label_scores(self.student.outcome, known.targets, self.spread)
        if known.soft is not None and known.has_soft is not None:
            mixed = self.share * known.soft + (1.0 - self.share) * goal
            goal = torch.where(known.has_soft.unsqueeze(1), mixed, goal)
        write(best_ridge(known.features, goal, known.part), self.student.linear)
