"""MKD: fusion by hand, matching and orthogonality by numpy, who follows whom."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from momkd.models.baselines.fusion import KroneckerFusion
from momkd.models.baselines.mkd import matching_loss, mutual_loss, orthogonality_loss
from momkd.models.baselines.soft_labels import soft_cost
from momkd.models.outcome import Nominal


def rows(n: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def test_fusion_is_the_gated_kronecker_product() -> None:
    torch.manual_seed(0)
    fusion = KroneckerFusion(3, 5, 4, 0.25).eval()
    a, b = rows(2, 3, 0), rows(2, 5, 1)
    both = torch.cat([a, b], 1)
    expected = []
    for i in range(2):
        gated_a = torch.sigmoid(fusion.gate_first(both[i])) * fusion.first(a[i]).clamp(min=0)
        gated_b = torch.sigmoid(fusion.gate_second(both[i])) * fusion.second(b[i]).clamp(min=0)
        product = torch.kron(torch.cat([gated_a, torch.ones(1)]), torch.cat([gated_b, torch.ones(1)]))
        expected.append(fusion.mix(product).clamp(min=0))
    torch.testing.assert_close(fusion(a, b), torch.stack(expected))


def test_matching_by_numpy() -> None:
    a, b = rows(6, 3, 0), rows(6, 3, 1)
    x, y = a.numpy().astype(float), b.numpy().astype(float)
    means = ((x.mean(0) - y.mean(0)) ** 2).sum()
    covariances = ((np.cov(x.T) - np.cov(y.T)) ** 2).sum() / (4 * 9)
    assert float(matching_loss(a, b)) == pytest.approx(means + covariances, rel=1e-5)
    assert float(matching_loss(a, a)) == 0.0
    assert float(matching_loss(a[:1], b[:1])) == pytest.approx(float((a[0] - b[0]).square().sum()), rel=1e-5)


def test_orthogonality_is_the_mean_squared_cosine() -> None:
    a, b = torch.tensor([[1.0, 0.0], [2.0, 2.0]]), torch.tensor([[0.0, 3.0], [1.0, 0.0]])
    assert float(orthogonality_loss(a, b)) == pytest.approx((0.0 + 0.5) / 2)


def test_each_follows_the_other_which_stands_still() -> None:
    outcome = Nominal(2)
    s, t = torch.tensor([[0.5]], requires_grad=True), torch.tensor([[2.0]], requires_grad=True)
    loss = mutual_loss(outcome, s, t).sum()
    loss.backward()
    alone = s.detach().clone().requires_grad_()
    soft_cost(outcome, alone, t.detach(), 4.0).sum().backward()
    assert s.grad is not None
    assert t.grad is not None
    torch.testing.assert_close(s.grad, alone.grad)
    assert float(s.grad) < 0.0 < float(t.grad)
