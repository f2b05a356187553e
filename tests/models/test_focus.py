"""The focus of the attention: τ as it is in training, τ / κ in prediction."""

from __future__ import annotations

import pytest
import torch

from momkd.experiment import ModelSettings, TaskSettings
from momkd.models.graph import Graph
from momkd.models.outcome import make_outcome
from momkd.models.packed import PackedBags
from momkd.models.student import Student


def _student(focus: float, classes: tuple[str, ...]) -> tuple[Student, PackedBags]:
    torch.manual_seed(0)
    settings = ModelSettings.model_validate(
        {
            "encoder": {"dim": 8, "dropout": 0.0, "attention_dropout": 0.0},
            "memory": {"codes": 3, "dim": 4, "focus": focus, "temperature": 0.4},
            "classifier": {"hidden": 6, "dropout": 0.0},
        }
    )
    student = Student(5, make_outcome(TaskSettings(label="x", classes=classes)), settings)
    bags = [torch.randn(n, 5) for n in (1, 4, 7)]
    graphs = [Graph.from_edges(torch.zeros(2, 0, dtype=torch.long), len(bag)) for bag in bags]
    return student, PackedBags.pack(bags, graphs)


@pytest.mark.parametrize("focus", [1.0, 4.0])
def test_attention_by_hand(focus: float) -> None:
    student, bags = _student(focus, ("a", "b"))
    for training, temperature in ((True, 0.4), (False, 0.4 / focus)):
        student.train(training)
        found = student(bags)
        for start, stop in ((0, 1), (1, 5), (5, 12)):
            expected = torch.softmax(found.evidence[start:stop] / temperature, 0)
            torch.testing.assert_close(found.attention[start:stop], expected)


@pytest.mark.parametrize("classes", [("a", "b"), ("a", "b", "c")])
def test_focus_changes_neither_training_nor_a_single_patch(classes: tuple[str, ...]) -> None:
    (soft, bags), (sharp, _) = _student(1.0, classes), _student(8.0, classes)
    assert torch.equal(soft.train()(bags).scores, sharp.train()(bags).scores)
    one, other = soft.eval()(bags), sharp.eval()(bags)
    assert torch.equal(one.scores[0], other.scores[0])
    assert not torch.allclose(one.scores[1:], other.scores[1:])
    assert bool(other.attention[5:].max() > one.attention[5:].max())
