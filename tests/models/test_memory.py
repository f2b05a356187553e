"""The memory: hand-computed cases of its equations, for two classes and for more."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from momkd.experiment import MemorySettings
from momkd.models.memory import UNKNOWN, Memory, damp, evidence_by_class


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


@pytest.fixture
def three() -> Memory:
    """One code a class in space: the axes."""
    memory = Memory(3, MemorySettings(codes=1, dim=3, sharpness=5.0))
    for label in range(3):
        memory.set_codes(label, torch.eye(3)[label : label + 1])
    return memory


def test_margin_of_three_classes_is_against_the_best_other(three: Memory) -> None:
    # With one code, φ(q, c) = q·c: here .8, .6 and 0.
    query = torch.tensor([[0.8, 0.6, 0.0]]).repeat(3, 1)
    torch.testing.assert_close(three.margin(query, torch.arange(3)), torch.tensor([0.2, -0.2, -0.8]))


def test_margin_of_two_classes_is_that_of_the_paper(memory: Memory) -> None:
    queries = functional.normalize(torch.randn(50, 2, generator=torch.Generator().manual_seed(0)), dim=-1)
    negative, positive = memory.class_score(queries).unbind(1)
    assert torch.equal(memory.margin(queries, torch.ones(50, dtype=torch.int64)), positive - negative)
    assert torch.equal(memory.margin(queries, torch.zeros(50, dtype=torch.int64)), negative - positive)


def test_evidence_of_two_and_of_three_classes() -> None:
    two = torch.tensor([[0.3, 0.9], [0.8, -0.1]])
    (only,) = evidence_by_class(two)
    assert torch.equal(only, two[:, 1] - two[:, 0])
    first, second = evidence_by_class(torch.tensor([[0.1, 0.7, 0.5], [0.9, 0.2, 0.4]]))
    torch.testing.assert_close(first, torch.tensor([0.2, -0.7]))
    torch.testing.assert_close(second, torch.tensor([-0.2, -0.5]))


def test_a_bag_of_unknown_class_takes_no_part(memory: Memory) -> None:
    labels, bag = torch.tensor([1, UNKNOWN]), torch.tensor([0, 1, 1])
    queries, patches = torch.eye(2).requires_grad_(), torch.randn(3, 2).requires_grad_()
    losses = (
        memory.alignment_loss(queries, labels),
        memory.commitment_loss(patches, bag, labels),
        memory.orthogonality_loss(labels),
    )
    assert all(loss[1].tolist() == 0.0 for loss in losses)
    sum(loss.sum() for loss in losses[:2]).backward()
    assert torch.equal(queries.grad[1], torch.zeros(2))
    assert torch.equal(patches.grad[1:], torch.zeros(2, 2))
    assert float(queries.grad[0].abs().sum()) > 0.0


def test_without_the_offset_the_score_lies_between_mean_and_largest_and_no_margin_changes() -> None:
    torch.manual_seed(0)
    plain, less = (Memory(3, MemorySettings(codes=4, dim=5, offset=offset)) for offset in (True, False))
    less.load_state_dict(plain.state_dict())
    queries, labels = functional.normalize(torch.randn(20, 5), dim=-1), torch.arange(20) % 3
    torch.testing.assert_close(plain.class_score(queries) - math.log(4.0) / 5.0, less.class_score(queries))
    similarity = torch.einsum("ns,cks->nck", queries, less.sphere())
    assert bool((less.class_score(queries) >= similarity.mean(-1) - 1e-6).all())
    assert bool((less.class_score(queries) <= similarity.amax(-1) + 1e-6).all())
    assert bool((plain.class_score(queries) > similarity.amax(-1)).all())
    torch.testing.assert_close(plain.margin(queries, labels), less.margin(queries, labels))
    torch.testing.assert_close(plain.alignment_loss(queries, labels), less.alignment_loss(queries, labels))


def with_codes(orthogonality: str) -> Memory:
    """Class 0 on x and y; class 1 on x twice, once backwards."""
    memory = Memory(2, MemorySettings(codes=2, dim=2, orthogonality=orthogonality))
    memory.set_codes(0, torch.eye(2) * 4.0)
    memory.set_codes(1, torch.tensor([[1.0, 0.0], [-2.0, 0.0]]))
    return memory


@pytest.mark.parametrize(
    ("orthogonality", "expected"),
    [("within", [0.0, 0.5]), ("across", [0.5, 0.5]), ("both", [0.5, 1.0]), ("none", [0.0, 0.0])],
)
def test_orthogonality_within_and_across_classes(orthogonality: str, expected: list[float]) -> None:
    torch.testing.assert_close(with_codes(orthogonality).orthogonality(), torch.tensor(expected))


def test_orthogonality_across_three_classes_is_a_mean_over_the_others() -> None:
    memory = Memory(3, MemorySettings(codes=1, dim=2, orthogonality="across"))
    for label, code in enumerate([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]]):
        memory.set_codes(label, torch.tensor([code]))
    torch.testing.assert_close(memory.orthogonality(), torch.tensor([(1 + 0.36) / 2, (1 + 0.36) / 2, 0.36]))


def test_who_is_moved_by_orthogonality() -> None:
    """Within: the class alone, as published; across: both classes."""
    for orthogonality, moved in (("within", [False, True]), ("across", [True, True])):
        torch.manual_seed(0)
        memory = Memory(2, MemorySettings(codes=3, dim=4, orthogonality=orthogonality))
        memory.orthogonality()[1].backward()
        assert [bool((memory.codes.grad[label].abs() > 1e-6).any()) for label in range(2)] == moved


def test_the_floor_of_orthogonality_with_more_codes_than_dimensions() -> None:
    """Never below 1/S − 1/K; three directions 120° apart in the plane are at it."""
    floor = 1.0 / 2 - 1.0 / 3
    for seed in range(50):
        torch.manual_seed(seed)
        assert float(Memory(2, MemorySettings(codes=3, dim=2)).orthogonality().detach().min()) >= floor - 1e-6
    best = Memory(2, MemorySettings(codes=3, dim=2))
    angles = torch.arange(3) * 2 * math.pi / 3
    best.set_codes(0, torch.stack([angles.cos(), angles.sin()], dim=1))
    assert float(best.orthogonality()[0].detach()) == pytest.approx(floor, abs=1e-6)


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_damp_keeps_values_and_scales_gradients(strength: float) -> None:
    values = torch.tensor([1.0, -2.0], requires_grad=True)
    damped = damp(values, strength)
    assert torch.equal(damped, values)
    (values.sum() + (damped * torch.tensor([4.0, 8.0])).sum()).backward()
    torch.testing.assert_close(values.grad, 1.0 + (1.0 - strength) * torch.tensor([4.0, 8.0]))


@pytest.mark.parametrize("update", ["gradient", "ema", "hybrid", "fixed", "queue"])
def test_a_gradient_reaches_the_codes_under_two_rules_only(update: str) -> None:
    memory = Memory(2, MemorySettings(codes=2, dim=3, update=update))
    assert memory.codes.requires_grad == (update in ("gradient", "hybrid"))
