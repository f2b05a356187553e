"""Instance memories: NCE by hand on three slides, momentum, who is seen, and state that survives."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from momkd.models.baselines.banks import Banks, nce_loss


def unit(*rows: list[float]) -> torch.Tensor:
    return functional.normalize(torch.tensor(rows), dim=1)


STUDENT = unit([1.0, 0.0], [0.0, 1.0], [1.0, 1.0])
TEACHER = unit([1.0, 0.2], [0.1, 1.0], [-1.0, 1.0])


@pytest.fixture
def banks() -> Banks:
    made = Banks(2)
    made.start(torch.tensor([0, 1, 1]))
    made.observe(torch.arange(3), STUDENT, TEACHER)
    made.after_step()
    return made


def test_nce_by_hand_on_three_slides(banks: Banks) -> None:
    own = torch.eye(3, dtype=torch.bool)
    found = banks.losses(STUDENT, TEACHER, own, ~own)

    def side(rows: torch.Tensor, bank: torch.Tensor) -> list[float]:
        affinity = [[math.exp(float(r @ b) / 0.07) for b in bank] for r in rows]
        z = 3 * sum(sum(row) for row in affinity) / 9
        noise, losses = 2 / 3, []
        for i, row in enumerate(affinity):
            loss = -math.log(row[i] / z / (row[i] / z + noise))
            loss -= sum(math.log(noise / (a / z + noise)) for j, a in enumerate(row) if j != i)
            losses.append(loss)
        return losses

    expected = [a + b for a, b in zip(side(STUDENT, TEACHER), side(TEACHER, STUDENT), strict=True)]
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


def test_several_positives_are_averaged_and_others_do_not_count() -> None:
    p = torch.tensor([[0.5, 0.25, 0.125, 0.8]])
    positive, negative = torch.tensor([[True, True, False, False]]), torch.tensor([[False, False, True, False]])
    noise = 1 / 4
    expected = 0.5 * sum(-math.log(x / (x + noise)) for x in (0.5, 0.25)) - math.log(noise / (0.125 + noise))
    assert float(nce_loss(p, positive, negative, torch.tensor(4))) == pytest.approx(expected, rel=1e-6)


def test_without_a_positive_or_a_negative_nothing_is_lost_and_gradients_are_finite() -> None:
    p = torch.full((2, 3), 0.3, requires_grad=True)
    positive = torch.tensor([[False, False, False], [True, True, True]])
    loss = nce_loss(p, positive, ~positive, torch.tensor(3))
    loss.sum().backward()
    assert loss.tolist() == [0.0, 0.0]
    assert p.grad is not None
    assert p.grad.abs().max() == 0.0


def test_momentum_and_the_mean_of_a_slide_that_was_drawn_twice(banks: Banks) -> None:
    a, b = unit([0.0, 1.0]), unit([-1.0, 0.0])
    banks.observe(torch.tensor([0, 0]), torch.cat([a, b]), torch.cat([a, a]))
    banks.after_step()
    mean = (a + b) / 2
    torch.testing.assert_close(banks.student[:1], functional.normalize(0.5 * STUDENT[:1] + 0.5 * mean))
    torch.testing.assert_close(banks.teacher[:1], functional.normalize(0.5 * TEACHER[:1] + 0.5 * a))
    torch.testing.assert_close(banks.student[1:], STUDENT[1:])


def test_rows_stand_still_until_the_step_is_over_and_a_first_row_is_written_as_it_is() -> None:
    banks = Banks(2)
    banks.start(torch.tensor([0, 1]))
    banks.observe(torch.tensor([1]), STUDENT[:1], TEACHER[:1])
    assert not banks.seen.any()
    banks.after_step()
    assert banks.seen.tolist() == [False, True]
    torch.testing.assert_close(banks.student[1:], STUDENT[:1])
    assert banks.student[0].tolist() == [0.0, 0.0]


def test_the_normaliser_is_estimated_once_and_is_state(banks: Banks) -> None:
    own = torch.eye(3, dtype=torch.bool)
    banks.losses(STUDENT, TEACHER, own, ~own)
    first = banks.normaliser.clone()
    assert (first > 0).all()
    banks.losses(TEACHER, STUDENT, own, ~own)
    assert torch.equal(banks.normaliser, first)
    other = Banks(2)
    other.start(torch.tensor([0, 1, 1]))
    other.load_state_dict(banks.state_dict())
    assert torch.equal(other.losses(STUDENT, TEACHER, own, ~own), banks.losses(STUDENT, TEACHER, own, ~own))


def test_gradients_reach_the_rows_and_not_the_banks(banks: Banks) -> None:
    own = torch.eye(3, dtype=torch.bool)
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    banks.losses(student, teacher, own, ~own).sum().backward()
    assert student.grad is not None
    assert teacher.grad is not None
    assert (student.grad.norm() > 0) & (teacher.grad.norm() > 0)
    assert not banks.student.requires_grad
