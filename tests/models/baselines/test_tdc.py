"""TDC: margins, the gate against gradients taken by hand, its positives."""

from __future__ import annotations

import pytest
import torch

from momkd.models.baselines.tdc import gate, margin, neighbours
from momkd.models.outcome import Continuous, Nominal, Ordinal


def test_margin_of_classes() -> None:
    outcome, scores = Nominal(3), torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    p = outcome.predict(scores)
    found = margin(outcome, scores, torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    assert found[0].item() == pytest.approx(float(p[0, 1] - p[0, 0]))
    assert found[1].item() == pytest.approx(0.0, abs=1e-6)
    two = margin(Nominal(2), torch.tensor([[2.0]]), torch.tensor([[0.0, 0.0]]))
    assert two.item() == pytest.approx(1.0 - 2.0 * torch.sigmoid(torch.tensor(2.0)).item())


def test_margin_without_classes_is_the_likelihood() -> None:
    near = margin(Continuous(4), torch.tensor([[0.5], [3.0]]), torch.tensor([[0.5, 0.0], [0.5, 0.0]]))
    assert near[0].item() == 1.0
    assert near[1] < near[0]
    assert margin(Ordinal(3), torch.zeros(1, 1), torch.tensor([[1.0, 0.0]])).shape == (1,)


@pytest.mark.parametrize(("direction", "expected"), [([1.0, 0.0], 1.0), ([0.3, 1.0], 1.0), ([0.2, 1.0], 0.0)])
def test_gate_compares_gradients_with_a_quarter(direction: list[float], expected: float) -> None:
    """The task's gradient is (1, 0); cosines 1, .287 and .196."""
    z = torch.tensor([[0.4, -0.2]], requires_grad=True)
    task, loss = z[0, 0], (z * torch.tensor([direction])).sum()
    assert gate(loss, task, z).item() == expected


def test_gate_takes_all_bags_together() -> None:
    """Two bags agree fully, one disagrees as much: cosine (1 + 1 − 1) / 3 = 1/3."""
    z = torch.zeros(3, 1, requires_grad=True)
    loss = (z * torch.tensor([[1.0], [1.0], [-1.0]])).sum()
    assert gate(loss, z.sum(), z).item() == 1.0
    assert gate(-loss, z.sum(), z).item() == 0.0


def test_gate_shuts_where_the_embedding_is_not_touched_and_leaves_the_graph() -> None:
    z, other = torch.ones(2, 2, requires_grad=True), torch.ones(1, requires_grad=True)
    assert gate(other.sum(), z.sum(), z).item() == 0.0
    loss, task = z.square().sum(), z.sum()
    (gate(loss, task, z) * loss + task).backward()
    assert z.grad is not None
    assert z.grad.tolist() == [[3.0, 3.0], [3.0, 3.0]]


def test_six_positives_itself_first() -> None:
    similarity = torch.linspace(0.9, 0.0, 10).repeat(2, 1)
    own = torch.zeros(2, 10, dtype=torch.bool)
    own[0, 9] = True
    same = torch.ones(10, dtype=torch.bool)
    same[1] = False
    chosen = neighbours(similarity, own, same.repeat(2, 1))
    assert chosen[0].nonzero().flatten().tolist() == [0, 2, 3, 4, 5, 9]
    assert not chosen[1].any()  # not in the memory yet


def test_fewer_slides_of_the_class_than_six() -> None:
    own = torch.tensor([[True, False, False]])
    assert neighbours(torch.zeros(1, 3), own, torch.tensor([[True, True, False]])).tolist() == [[True, True, False]]
