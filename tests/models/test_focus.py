"""The focus of the attention: τ as it is in training, τ / f with f = max(1, g·ln P) in prediction."""

from __future__ import annotations

import math

import pytest
import torch

from momkd.experiment import ModelSettings, TaskSettings
from momkd.models.graph import Graph
from momkd.models.outcome import make_outcome
from momkd.models.packed import PackedBags
from momkd.models.student import Student

TWO, THREE = ("a", "b"), ("a", "b", "c")
SIZES = (1, 4, 60)


def _student(growth: float, classes: tuple[str, ...], sizes: tuple[int, ...] = SIZES) -> tuple[Student, PackedBags]:
    torch.manual_seed(0)
    settings = ModelSettings.model_validate(
        {
            "encoder": {"dim": 8, "dropout": 0.0, "attention_dropout": 0.0},
            "memory": {"codes": 3, "dim": 4, "focus_growth": growth, "temperature": 0.4},
            "classifier": {"hidden": 6, "dropout": 0.0},
        }
    )
    student = Student(5, make_outcome(TaskSettings(label="x", classes=classes)), settings)
    bags = [torch.randn(n, 5) for n in sizes]
    graphs = [Graph.from_edges(torch.zeros(2, 0, dtype=torch.long), len(bag)) for bag in bags]
    return student, PackedBags.pack(bags, graphs)


@pytest.mark.parametrize("growth", [0.0, 0.7, 2.0])
def test_attention_by_hand(growth: float) -> None:
    student, bags = _student(growth, TWO)
    for training in (True, False):
        student.train(training)
        found = student(bags)
        start = 0
        for size in SIZES:
            bag, start = slice(start, start + size), start + size
            focus = 1.0 if training else max(1.0, growth * math.log(size))
            expected = torch.softmax(found.evidence[bag] * focus / 0.4, 0)
            torch.testing.assert_close(found.attention[bag], expected)


@pytest.mark.parametrize("classes", [TWO, THREE])
def test_growth_changes_neither_training_nor_small_bags(classes: tuple[str, ...]) -> None:
    (soft, bags), (sharp, _) = _student(0.0, classes), _student(0.7, classes)
    assert torch.equal(soft.train()(bags).scores, sharp.train()(bags).scores)
    one, other = soft.eval()(bags), sharp.eval()(bags)
    assert torch.equal(one.scores[:2], other.scores[:2]), ".7·ln 4 is below 1"
    assert not torch.allclose(one.scores[2:], other.scores[2:])
    assert bool(other.attention[5:].max() > one.attention[5:].max())


def test_a_bag_is_read_alike_alone_and_among_others() -> None:
    student, bags = _student(0.7, TWO)
    together = student.eval()(bags)
    alone = student(PackedBags.pack([bags.features[5:]], [bags.graphs[2]]))
    torch.testing.assert_close(alone.attention, together.attention[5:])
    torch.testing.assert_close(alone.scores[0], together.scores[2])


def test_what_it_is_for() -> None:
    """The share of one patch with evidence .5 among P with none falls as 1 / P, unless logits grow with ln P."""
    shares = {}
    for growth in (0.0, 1.0):
        student, _ = _student(growth, TWO)
        for n in (100, 10_000):
            evidence = torch.zeros(n, dtype=torch.float64)
            evidence[0] = 0.5
            shares[growth, n] = float(torch.softmax(evidence * student.focus(torch.tensor(n)) / 0.4, 0)[0])
    e = math.exp(0.5 / 0.4)
    assert shares[0.0, 100] == pytest.approx(e / (e + 99), rel=1e-5)
    assert shares[0.0, 10_000] == pytest.approx(e / (e + 9_999), rel=1e-5)
    # P^(s/τ) / (P^(s/τ) + P − 1)
    assert shares[1.0, 100] == pytest.approx(100**1.25 / (100**1.25 + 99), rel=1e-5)
    assert shares[1.0, 10_000] == pytest.approx(10_000**1.25 / (10_000**1.25 + 9_999), rel=1e-5)
