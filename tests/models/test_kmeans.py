"""Spherical k-means: where codes start."""

from __future__ import annotations

import torch
from torch.nn import functional

from momkd.models.kmeans import spherical_kmeans


def test_finds_separated_clusters() -> None:
    torch.manual_seed(0)
    goals = functional.normalize(torch.randn(4, 8), dim=-1)
    points = functional.normalize(goals.repeat(50, 1) + 0.02 * torch.randn(200, 8), dim=-1)
    centres = spherical_kmeans(points, 4, torch.Generator().manual_seed(3))
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(4))
    similarity = points @ centres.T
    assert float(similarity.max(1).values.mean()) > 0.9


def test_is_deterministic_and_moves_empty_centres() -> None:
    points = torch.cat([torch.tensor([[1.0, 0.0]]).repeat(20, 1), torch.tensor([[0.0, 1.0]])])
    first = spherical_kmeans(points, 2, torch.Generator().manual_seed(0))
    second = spherical_kmeans(points, 2, torch.Generator().manual_seed(0))
    assert torch.equal(first, second)
    assert sorted(first.argmax(1).tolist()) == [0, 1]


def test_with_fewer_points_than_centres() -> None:
    points = torch.tensor([[0.0, 2.0, 0.0]])
    centres = spherical_kmeans(points, 5, torch.Generator().manual_seed(0))
    assert centres.shape == (5, 3)
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(centres[0], torch.tensor([0.0, 1.0, 0.0]))


def test_centres_are_unit_whatever_the_lengths_of_the_points() -> None:
    torch.manual_seed(1)
    directions = functional.normalize(torch.randn(40, 6), dim=-1)
    lengths = torch.rand(40, 1) * 10 + 0.1
    plain = spherical_kmeans(directions, 3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(spherical_kmeans(directions * lengths, 3, torch.Generator().manual_seed(0)), plain)
    torch.testing.assert_close(plain.norm(dim=1), torch.ones(3))


def test_more_iterations_serve_the_points_no_worse() -> None:
    torch.manual_seed(2)
    points = functional.normalize(torch.randn(300, 5), dim=-1)

    def served(iterations: int) -> float:
        centres = spherical_kmeans(points, 6, torch.Generator().manual_seed(4), iterations)
        return float((points @ centres.T).amax(1).mean())

    values = [served(n) for n in (0, 1, 2, 5, 20)]
    assert values == sorted(values)
    assert values[-1] > values[0]


def test_each_centre_is_the_direction_of_its_points() -> None:
    torch.manual_seed(3)
    points = functional.normalize(torch.randn(200, 4), dim=-1)
    centres = spherical_kmeans(points, 3, torch.Generator().manual_seed(0), iterations=200)
    owner = (points @ centres.T).argmax(1)
    means = torch.stack([functional.normalize(points[owner == k].sum(0), dim=0) for k in range(3)])
    torch.testing.assert_close(centres, means)


def test_points_that_cancel_out_leave_their_centre_where_it_was() -> None:
    points = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    centre = spherical_kmeans(points, 1, torch.Generator().manual_seed(0))
    assert centre.abs().tolist() == [[1.0, 0.0]]


def test_several_empty_centres_go_to_different_points() -> None:
    """One direction eighteen times and two others once each: three centres find all three from any start."""
    points = torch.cat([torch.tensor([[1.0, 0.0, 0.0]]).repeat(18, 1), torch.eye(3)[1:]])
    for seed in range(20):
        centres = spherical_kmeans(points, 3, torch.Generator().manual_seed(seed))
        assert sorted(centres.argmax(1).tolist()) == [0, 1, 2]
