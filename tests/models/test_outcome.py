"""Losses and predictions of every task against numbers made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from momkd.experiment import TaskSettings
from momkd.models.outcome import Continuous, Nominal, Ordinal, Survival, make_outcome, quantiles


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def targets(*values: float, event: tuple[float, ...] | None = None) -> torch.Tensor:
    return torch.tensor([values, event or (0.0,) * len(values)]).T.contiguous()


def test_two_classes_are_logistic_regression() -> None:
    outcome = Nominal(2)
    scores = torch.tensor([[0.3], [-1.2]])
    expected = [-math.log(1 - sigmoid(0.3)), -math.log(sigmoid(-1.2))]
    torch.testing.assert_close(outcome.loss(scores, targets(0, 1)), torch.tensor(expected))
    torch.testing.assert_close(outcome.predict(scores)[:, 1], torch.tensor([sigmoid(0.3), sigmoid(-1.2)]))
    assert outcome.scores(torch.tensor([[1.0, 3.5]])).tolist() == [[2.5]]


def test_three_classes() -> None:
    outcome = Nominal(3)
    logits = torch.tensor([[0.5, 1.5, -1.0]])
    total = math.exp(0.5) + math.exp(1.5) + math.exp(-1.0)
    scores = outcome.scores(logits)
    assert scores.tolist() == [[1.0, -1.5]]
    torch.testing.assert_close(outcome.predict(scores)[0], torch.tensor([0.5, 1.5, -1.0]).exp() / total)
    torch.testing.assert_close(outcome.loss(scores, targets(2)), torch.tensor([math.log(total) + 1.0]))
    # 1, 2 and 3 of six patients: the log-odds against the first class.
    start = outcome.start(targets(0, 1, 1, 2, 2, 2))
    torch.testing.assert_close(start, torch.tensor([math.log(2), math.log(3)]))


def test_ordered_classes_by_hand() -> None:
    outcome = Ordinal(3)
    with torch.no_grad():
        outcome.cuts.copy_(torch.tensor([-1.0, math.log(2.0)]))
    torch.testing.assert_close(outcome.cut_points(), torch.tensor([-1.0, 1.0]))
    above_first, above_second = sigmoid(0.4 + 1.0), sigmoid(0.4 - 1.0)
    expected = torch.tensor([[1 - above_first, above_first - above_second, above_second]])
    score = torch.tensor([[0.4]])
    torch.testing.assert_close(outcome.predict(score), expected)
    torch.testing.assert_close(outcome.loss(score, targets(1)), -expected[0, 1:2].log())


def test_an_average_patient_has_the_frequencies_of_ordered_classes() -> None:
    outcome = Ordinal(4)
    labels = [0] * 4 + [1] * 3 + [2] * 2 + [3]
    score = outcome.start(targets(*labels))
    torch.testing.assert_close(outcome.predict(score[None]), torch.tensor([[0.4, 0.3, 0.2, 0.1]]), atol=1e-6, rtol=0)


@given(st.floats(-60, 60), st.floats(-60, 60))
def test_ordered_classes_stay_finite_far_away(score: float, first: float) -> None:
    outcome = Ordinal(3).double()
    with torch.no_grad():
        outcome.cuts.copy_(torch.tensor([first, 0.0]))
    scores = torch.full((3, 1), score, dtype=torch.float64, requires_grad=True)
    loss = outcome.loss(scores, targets(0, 1, 2).double())
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    torch.testing.assert_close(outcome.predict(scores.detach()).sum(1), torch.ones(3, dtype=torch.float64))


def test_values_are_judged_in_standard_units_and_told_in_their_own() -> None:
    outcome = Continuous(2)
    outcome.start(targets(10.0, 20.0, 30.0, 40.0))
    scale = math.sqrt(125.0)
    torch.testing.assert_close(outcome.predict(torch.tensor([[0.0], [1.0]])), torch.tensor([[25.0], [25.0 + scale]]))
    expected = 0.5 * (0.2 - 15.0 / scale) ** 2
    torch.testing.assert_close(outcome.loss(torch.tensor([[0.2]]), targets(40.0)), torch.tensor([expected]))
    assert outcome.memory_class(targets(10.0, 24.9, 25.1, 40.0)).tolist() == [0, 0, 1, 1]


def test_survival_by_hand() -> None:
    outcome = Survival(3)
    outcome.times.copy_(torch.tensor([2.0, 5.0]))
    with torch.no_grad():
        outcome.baseline.copy_(torch.tensor([-1.0, 0.0, 0.5]))
    score = torch.tensor([[0.3]])
    hazard = [sigmoid(0.3 + a) for a in (-1.0, 0.0, 0.5)]
    # An event in the second interval, a patient censored there, and events at the ends of intervals.
    died = -math.log(1 - hazard[0]) - math.log(hazard[1])
    for time, event, expected in (
        (4.0, 1.0, died),
        (4.0, 0.0, -math.log(1 - hazard[0])),
        (2.0, 1.0, -math.log(hazard[0])),
        (5.0, 1.0, died),
        (1.0, 0.0, 0.0),
        (9.0, 1.0, -math.log(1 - hazard[0]) - math.log(1 - hazard[1]) - math.log(hazard[2])),
    ):
        torch.testing.assert_close(outcome.loss(score, targets(time, event=(event,))), torch.tensor([expected]))
    times = targets(1.0, 4.0, 1.0, 9.0, event=(1.0, 1.0, 0.0, 0.0))
    assert outcome.memory_class(times).tolist() == [0, 1, -1, 2]


def test_a_higher_risk_is_an_earlier_event() -> None:
    outcome = Survival(4)
    early, late = targets(0.5, event=(1.0,)), targets(9.0, event=(0.0,))
    slope = []
    for target in (early, late):
        score = torch.zeros(1, 1, requires_grad=True)
        outcome.loss(score, target).sum().backward()
        assert score.grad is not None
        slope.append(float(score.grad))
    assert slope[0] < 0 < slope[1]


def test_baseline_hazards_are_those_of_the_life_table() -> None:
    outcome = Survival(2)
    time, event = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), (1.0, 0.0, 1.0, 1.0, 0.0, 1.0)
    outcome.start(targets(*time, event=event))
    assert outcome.times.tolist() == [3.5]
    # First interval: 2 events among 6; second: 2 among the 3 who reached it (with half an event, one patient added).
    expected = torch.logit(torch.tensor([2.5 / 7.0, 2.5 / 4.0]))
    torch.testing.assert_close(outcome.baseline.detach(), expected)


@pytest.mark.parametrize(
    ("task", "memories"),
    [
        (TaskSettings(label="x", classes=("a", "b", "c")), 3),
        (TaskSettings(type="ordinal", label="x", classes=("a", "b", "c")), 3),
        (TaskSettings(type="continuous", label="x", bins=5), 5),
        (TaskSettings(type="survival", label="x", event="e", bins=2), 2),
    ],
)
def test_one_outcome_a_task(task: TaskSettings, memories: int) -> None:
    outcome = make_outcome(task)
    assert outcome.n_memories == memories
    assert outcome.n_scores == (2 if task.type == "classification" else 1)


@pytest.mark.parametrize("kind", ["nominal", "ordinal", "continuous", "survival"])
def test_curvature_bounds_the_loss(kind: str) -> None:
    """A soft label t costs curvature · (s − t)², never less than what the loss itself bends."""
    made = {"nominal": Nominal(2), "ordinal": Ordinal(3), "continuous": Continuous(3), "survival": Survival(2)}
    outcome = made[kind].double()
    target = targets(1.0, event=(1.0,)).double()
    for start in np.linspace(-4, 4, 17):
        score = torch.tensor([[start]], dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(outcome.loss(score, target).sum(), score, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), score)
        several = 2 if kind in ("survival", "ordinal") else 1  # a sum of so many logistic terms
        assert 0.5 * float(bend) <= several * outcome.curvature + 1e-12


def test_quantiles_divide_equally() -> None:
    assert quantiles(torch.arange(9.0), 4).tolist() == [2.0, 4.0, 6.0]
    part = torch.bucketize(torch.arange(8.0), quantiles(torch.arange(8.0), 4))
    assert torch.bincount(part).tolist() == [2] * 4
