"""Soft labels: the loss by hand, its limit, every task, and slides without one."""

from __future__ import annotations

import math

import pytest
import torch

from momkd.models.baselines.soft_labels import soft_cost
from momkd.models.outcome import Continuous, Nominal, Ordinal, Survival


def test_kl_by_hand_for_three_classes() -> None:
    s, t, T = torch.tensor([[0.5, -1.0]]), torch.tensor([[2.0, 1.0]]), 2.0

    def softmax(scores: list[float]) -> list[float]:
        parts = [math.exp(x / T) for x in (0.0, *scores)]
        return [part / sum(parts) for part in parts]

    p, q = softmax(t[0].tolist()), softmax(s[0].tolist())
    expected = T**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert float(soft_cost(Nominal(3), s, t, T)) == pytest.approx(expected, rel=1e-5)


def test_large_temperature_is_the_quadratic_cost_of_the_other_outcomes() -> None:
    s, t = torch.tensor([[0.3]], dtype=torch.float64), torch.tensor([[1.7]], dtype=torch.float64)
    limit = Nominal(2).curvature * (0.3 - 1.7) ** 2
    assert float(soft_cost(Nominal(2), s, t, 1000.0)) == pytest.approx(limit, rel=1e-3)
    for outcome in (Ordinal(3), Continuous(4), Survival(4)):
        expected = outcome.curvature * (0.3 - 1.7) ** 2
        assert float(soft_cost(outcome, s, t, 1.0)) == pytest.approx(expected, rel=1e-6)


def test_least_and_flat_at_the_teacher() -> None:
    t = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    s = t.clone().requires_grad_()
    cost = soft_cost(Nominal(3), s, t, 2.0).sum()
    cost.backward()
    assert float(cost.detach()) == pytest.approx(0.0, abs=1e-6)
    assert s.grad is not None
    assert float(s.grad.abs().max()) < 1e-6
