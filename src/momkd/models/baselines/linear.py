"""The floor that a deep model must beat: a linear model on the mean patch features of a slide.

Classes: the better of ridge regression (on class indicators) and logistic regression, family and penalty chosen by the
AUC of inner parts of whole groups that were left out, then calibrated on these. Ordered classes, values, and survival
(martingale residuals of the null model, one step of Cox regression): ridge regression, penalty by the squared error.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from momkd.experiment import ModelSettings
from momkd.models.baselines.solvers import (
    PENALTIES,
    Axes,
    LeftOut,
    Map,
    Path,
    calibrated,
    logistic_path,
    macro_auc,
    ridge_path,
)
from momkd.models.closed_form import ClosedForm, Known
from momkd.models.lesson import Lesson
from momkd.models.method import MethodLosses, SlideModel, SlideOutput
from momkd.models.outcome import Continuous, Nominal, Outcome, Survival
from momkd.models.packed import PackedBags, bag_means
from momkd.models.products import full_precision
from momkd.models.programmes import zero_linear


class Linear(SlideModel):
    """scores = W x̄ + b."""

    def __init__(self, in_dim: int, outcome: Outcome, settings: ModelSettings) -> None:  # noqa: ARG002
        super().__init__()
        self.outcome = outcome
        self.linear = zero_linear(in_dim, outcome.n_scores)

    def forward(self, bags: PackedBags) -> SlideOutput:
        """Score B bags."""
        mean = bag_means(bags.features, bags.ptr, self.linear.weight.dtype)
        with full_precision(mean):
            return SlideOutput(self.linear(mean), embedding=mean)


class LinearFit(ClosedForm):
    """Labels alone teach it."""

    student: Linear

    def __init__(self, student: Linear, settings: ModelSettings, genes: Mapping[str, int]) -> None:  # noqa: ARG002
        super().__init__()
        self.student = student

    def forward(self, bags: PackedBags, lesson: Lesson) -> MethodLosses:
        """The task loss, which nothing here makes smaller."""
        task = self.task_loss(self.student(bags).scores, lesson)
        return MethodLosses(task, {"task": task})

    def solve(self, known: Known) -> None:
        """Write the solution into the student."""
        write(solution(known.features, known.targets, known.part, self.student.outcome), self.student.linear)


def write(one: Map, layer: nn.Linear) -> None:
    """Give a linear layer the weights of a map."""
    with torch.no_grad():
        layer.weight.copy_(one.weight)
        layer.bias.copy_(one.bias)


def solution(features: Tensor, targets: Tensor, part: Tensor, outcome: Outcome) -> Map:
    """The linear model of rows (N, D), targets (N, 2) and inner parts (N,), float64."""
    if not isinstance(outcome, Nominal):
        return best_ridge(features, label_scores(outcome, targets, 1.0), part)
    labels = targets[:, 0].long()
    goals = (functional.one_hot(labels, outcome.n_memories).to(features.dtype)[:, 1:], labels)
    best, others = None, LeftOut(features, part)
    # Of patients who have omics, a part may lack a class.
    families: tuple[Path, ...] = (ridge_path, partial(logistic_path, n_classes=outcome.n_memories))
    for family, goal in zip(families, goals, strict=True):
        for penalty, scores in zip(PENALTIES, others.scores(family, goal, PENALTIES), strict=True):
            area = macro_auc(scores, labels)
            if best is None or area > best[0]:
                best = (area, family, goal, penalty, scores)
    if best is None:
        raise ValueError("no penalties")
    _, family, goal, penalty, scores = best
    return calibrated(family(Axes(features), goal, [penalty])[0], scores, labels)


def best_ridge(features: Tensor, goal: Tensor, part: Tensor) -> Map:
    """Ridge regression of goals (N, O), the penalty with the least squared error on parts that were left out."""
    return ridge_path(Axes(features), goal, [best_penalty(features, goal, part)])[0]


def best_penalty(features: Tensor, goal: Tensor, part: Tensor) -> float:
    """Of ``PENALTIES`` that with the least squared error of ridge regression on parts that were left out."""
    errors = (LeftOut(features, part).scores(ridge_path, goal, PENALTIES) - goal).square().sum((1, 2))
    return float(PENALTIES[int(errors.argmin())])


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


def _martingale_residuals(time: Tensor, event: Tensor) -> Tensor:
    """event − Ĥ(time), Ĥ the Nelson–Aalen cumulative hazard of all: (N,), (N,) → (N,)."""
    times, place = torch.unique(time, return_inverse=True)
    events = torch.zeros_like(times).index_add(0, place, event)
    at_risk = torch.bincount(place, minlength=len(times)).flip(0).cumsum(0).flip(0)
    return event - (events / at_risk).cumsum(0)[place]
