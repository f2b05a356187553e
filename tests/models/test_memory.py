"""The memory: hand-computed cases of its equations, and its initialisation."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from momkd.experiment import MemorySettings
from momkd.models.kmeans import spherical_kmeans
from momkd.models.memory import Memory


@pytest.fixture
def memory() -> Memory:
    """Two codes a class in the plane: class 0 on ±x, class 1 on ±y; lengths differ to show the normalisation."""
    memory = Memory(2, MemorySettings(codes=2, dim=2))
    memory.set_codes(0, torch.tensor([[2.0, 0.0], [-1.0, 0.0]]))
    memory.set_codes(1, torch.tensor([[0.0, 3.0], [0.0, -1.0]]))
    return memory


def test_affinity_is_the_best_code_of_each_class(memory: Memory) -> None:
    queries = torch.tensor([[1.0, 0.0], [0.6, -0.8]])
    torch.testing.assert_close(memory.affinity(queries), torch.tensor([[1.0, 0.0], [0.6, 0.8]]))


def test_class_score_by_hand(memory: Memory) -> None:
    score = memory.class_score(torch.tensor([[1.0, 0.0]]))
    own = math.log(math.exp(5.0) + math.exp(-5.0)) / 5.0
    other = math.log(2.0) / 5.0
    torch.testing.assert_close(score, torch.tensor([[own, other]]))


def test_alignment_loss_by_hand_and_its_sign(memory: Memory) -> None:
    query = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    delta = math.log(math.exp(5.0) + math.exp(-5.0)) / 5.0 - math.log(2.0) / 5.0
    loss = memory.alignment_loss(query, torch.tensor([0, 1]))
    expected = [math.log1p(math.exp(20.0 * (0.3 - delta))), 20.0 * (0.3 + delta)]
    torch.testing.assert_close(loss, torch.tensor(expected), rtol=1e-5, atol=1e-7)


def test_commitment_uses_the_nearest_unnormalised_code_of_the_own_class(memory: Memory) -> None:
    # For class 0 the patch (1, 0) is 1 from (2, 0) and 2 from (−1, 0): the mean over two coordinates of (1², 0²).
    patches = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    bag = torch.tensor([0, 1, 1])
    loss = memory.commitment_loss(patches, bag, torch.tensor([0, 1]))
    torch.testing.assert_close(loss, torch.tensor([0.5, (2.0 + 0.0) / 2]))


def test_orthogonality_by_hand() -> None:
    memory = Memory(2, MemorySettings(codes=2, dim=2))
    memory.set_codes(0, torch.eye(2) * 4.0)
    memory.set_codes(1, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    torch.testing.assert_close(memory.orthogonality(), torch.tensor([0.0, 0.5]))


def test_kmeans_finds_separated_clusters() -> None:
    torch.manual_seed(0)
    goals = functional.normalize(torch.randn(4, 8), dim=-1)
    points = functional.normalize(goals.repeat(50, 1) + 0.02 * torch.randn(200, 8), dim=-1)
    centres = spherical_kmeans(points, 4, torch.Generator().manual_seed(3))
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(4))
    similarity = points @ centres.T
    assert float(similarity.max(1).values.mean()) > 0.9


def test_kmeans_is_deterministic_and_moves_empty_centres() -> None:
    points = torch.cat([torch.tensor([[1.0, 0.0]]).repeat(20, 1), torch.tensor([[0.0, 1.0]])])
    first = spherical_kmeans(points, 2, torch.Generator().manual_seed(0))
    second = spherical_kmeans(points, 2, torch.Generator().manual_seed(0))
    assert torch.equal(first, second)
    assert sorted(first.argmax(1).tolist()) == [0, 1]


def test_kmeans_with_fewer_points_than_centres() -> None:
    points = torch.tensor([[0.0, 2.0, 0.0]])
    centres = spherical_kmeans(points, 5, torch.Generator().manual_seed(0))
    assert centres.shape == (5, 3)
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(centres[0], torch.tensor([0.0, 1.0, 0.0]))
