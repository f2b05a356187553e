"""SP, RKD and CC against their definitions, entry by entry; tiny groups."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from momkd.models.baselines.relational import cc_loss, rkd_angle_loss, rkd_distance_loss, sp_loss

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: list[Loss] = [sp_loss, rkd_distance_loss, rkd_angle_loss, cc_loss]


def rows(n: int = 5, width: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def sp_by_loops(z: np.ndarray, e: np.ndarray) -> float:
    def relations(u: np.ndarray) -> list[list[float]]:
        gram = [[float(a @ b) for b in u] for a in u]
        return [[g / math.sqrt(sum(x * x for x in row)) for g in row] for row in gram]

    ours, theirs, n = relations(z), relations(e), len(z)
    return sum((ours[i][j] - theirs[i][j]) ** 2 for i in range(n) for j in range(n)) / n**2


def distance_by_loops(z: np.ndarray, e: np.ndarray) -> float:
    def relations(u: np.ndarray) -> dict[tuple[int, int], float]:
        d = {(i, j): math.dist(u[i], u[j]) for i, j in itertools.product(range(len(u)), repeat=2)}
        apart = [value for (i, j), value in d.items() if i != j]
        return {pair: value * len(apart) / sum(apart) for pair, value in d.items()}

    ours, theirs = relations(z), relations(e)
    return sum(huber(ours[pair] - theirs[pair]) for pair in ours) / len(ours)


def angle_by_loops(z: np.ndarray, e: np.ndarray) -> float:
    def cosine(u: np.ndarray, i: int, j: int, k: int) -> float:
        a, b = u[i] - u[j], u[k] - u[j]
        length = math.sqrt(a @ a) * math.sqrt(b @ b)
        return float(a @ b) / length if length else 0.0

    triplets = list(itertools.product(range(len(z)), repeat=3))
    return sum(huber(cosine(z, *t) - cosine(e, *t)) for t in triplets) / len(triplets)


def cc_by_loops(z: np.ndarray, e: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        c = 0.8 * float(a @ b) / math.sqrt(a @ a) / math.sqrt(b @ b)
        return math.exp(-0.8) * (1.0 + c + c * c / 2.0)

    n = len(z)
    return sum((kernel(z[i], z[j]) - kernel(e[i], e[j])) ** 2 for i in range(n) for j in range(n)) / n**2


@pytest.mark.parametrize(
    ("loss", "by_loops"),
    [
        (sp_loss, sp_by_loops),
        (rkd_distance_loss, distance_by_loops),
        (rkd_angle_loss, angle_by_loops),
        (cc_loss, cc_by_loops),
    ],
)
def test_equals_its_definition(loss: Loss, by_loops: Callable[[np.ndarray, np.ndarray], float]) -> None:
    z, e = rows(5, 4, 0), rows(5, 7, 1)
    expected = by_loops(z.numpy(), e.numpy())
    assert expected > 1e-3
    assert float(loss(z, e)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_same_relations_cost_nothing(loss: Loss) -> None:
    """A rotated and scaled copy has the same relations."""
    z = rows(6, 4)
    turned = 3.0 * z @ torch.linalg.qr(rows(4, 4, 3)).Q
    assert float(loss(z, turned)) == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_for_tiny_groups_and_equal_rows(loss: Loss, n: int, dtype: torch.dtype) -> None:
    z, e = (10.0 + rows(n)).to(dtype), rows(n, 3, 1).to(dtype)
    z[-1], e[-1] = z[0], e[0]
    z.requires_grad_()
    loss(z, e).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert z.grad.abs().max() < 10.0
    if n == 1:
        assert float(loss(z, e).detach()) == pytest.approx(0.0, abs=1e-12)


def test_second_order_kernel_is_near_the_gaussian() -> None:
    """For rows that are nearly orthogonal the expansion is exp(−0.4‖u − v‖²)."""
    u = torch.tensor([[1.0, 0.0], [0.05, 1.0]], dtype=torch.float64)
    unit = u / u.norm(dim=1, keepdim=True)
    gauss = float((-0.4 * (unit[0] - unit[1]).square().sum()).exp())
    same, across = math.exp(-0.8) * (1 + 0.8 + 0.32), gauss
    # Against two equal rows, whose kernel is `same` everywhere, only the two off-diagonal entries differ.
    expected = 2 * (same - across) ** 2 / 4
    assert float(cc_loss(u, torch.ones(2, 3, dtype=torch.float64))) == pytest.approx(expected, rel=1e-4)
