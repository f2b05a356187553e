"""Soft labels for a linear model: ridge regression of what an omics teacher thought of a patient on mean features.

Lopez-Paz et al. 2015 (``soft_labels``) in closed form. x̄ (D) are the mean patch features of a slide, standardised over
the training slides; t (O) the scores of the omics teacher, out of part; y' (O) the label on the scale of the scores:

    W, b = argmin Σ ‖W x̄ + b − (λ t + (1 − λ) y')‖² + α ‖W‖²

λ is model.teacher.weight, or ½ where that is 0: half soft label, half label; 1 takes soft labels alone. A slide without
a soft label has y'. y' is the indicator of a class less that of the first class, the number of an ordered class, the
standardised value, or the martingale residual of a time; scaled like t (all but values) to the standard deviation
model.teacher.spread and to the score of an average patient. α has the least squared error on inner parts of whole
groups, of 13 values from 10⁻³ to 10³ times the mean squared length of x̄.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from momkd.experiment import ModelSettings
from momkd.models.baselines.linear import Linear
from momkd.models.baselines.soft_labels import share_of
from momkd.models.closed_form import ClosedForm, Known
from momkd.models.lesson import Lesson
from momkd.models.method import MethodLosses
from momkd.models.outcome import Continuous, Nominal, Outcome, Survival
from momkd.models.packed import PackedBags

_PENALTIES = 10.0 ** torch.linspace(-3.0, 3.0, 13, dtype=torch.float64)


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
        weight, bias = ridge(known.features, goal, best_penalty(known.features, goal, known.part))
        layer = self.student.linear
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)


def label_scores(outcome: Outcome, targets: Tensor, spread: float) -> Tensor:
    """y' of training targets (N, 2): (N, O) float64."""
    # What is solved lies in the main memory, in float64, wherever the student is.
    outcome = copy.deepcopy(outcome).to(targets.device)
    average, labels = outcome.start(targets.float()).to(targets.dtype), targets[:, 0]
    if isinstance(outcome, Continuous):
        return ((labels - outcome.mean) / outcome.scale).unsqueeze(1)
    if isinstance(outcome, Survival):
        raw = _martingale_residuals(labels, targets[:, 1]).unsqueeze(1)
    elif isinstance(outcome, Nominal):
        is_class = functional.one_hot(labels.long(), outcome.n_memories).to(targets.dtype)
        raw = is_class[:, 1:] - is_class[:, :1]
    else:
        raw = labels.unsqueeze(1)
    return spread * (raw - raw.mean(0)) / raw.std(0, unbiased=False).clamp(min=1e-12) + average


def best_penalty(features: Tensor, goal: Tensor, part: Tensor) -> float:
    """The factor of the penalty with the least squared error on parts that were left out: (N, D), (N, O), (N,)."""
    errors = torch.zeros_like(_PENALTIES)
    for number in torch.unique(part).tolist():
        inside = part == number
        if inside.all():
            continue
        fits = _ridges(features[~inside], goal[~inside], _PENALTIES)
        told = [features[inside] @ weight.T + bias for weight, bias in fits]
        errors += torch.stack([(scores - goal[inside]).square().sum() for scores in told])
    return float(_PENALTIES[errors.argmin()])


def ridge(features: Tensor, goal: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """W (O, D) and b (O,) for raw features (N, D), α = penalty · mean squared length of the standardised ones."""
    return _ridges(features, goal, torch.tensor([penalty], dtype=features.dtype))[0]


def _ridges(features: Tensor, goal: Tensor, penalties: Tensor) -> list[tuple[Tensor, Tensor]]:
    mean, scale = features.mean(0), features.std(0, unbiased=False)
    # A column that does not vary says nothing, and is not to be divided by its rounding error.
    scale = torch.where(scale > 1e-9 * mean.abs().clamp(min=1e-3), scale, torch.inf)
    left, singular, axes = torch.linalg.svd((features - mean) / scale, full_matrices=False)
    average = goal.mean(0)
    seen = left.T @ (goal - average)
    fits = []
    for alpha in penalties * singular.square().sum() / len(features):
        shrunk = (singular / (singular.square() + alpha.clamp(min=1e-12))).unsqueeze(1) * seen
        weight = (axes.T @ shrunk).T / scale
        fits.append((weight, average - weight @ mean))
    return fits


def _martingale_residuals(time: Tensor, event: Tensor) -> Tensor:
    """event − Ĥ(time), Ĥ the Nelson–Aalen cumulative hazard of all: (N,), (N,) → (N,)."""
    times, place = torch.unique(time, return_inverse=True)
    events = torch.zeros_like(times).index_add(0, place, event)
    at_risk = torch.bincount(place, minlength=len(times)).flip(0).cumsum(0).flip(0)
    return event - (events / at_risk).cumsum(0)[place]
