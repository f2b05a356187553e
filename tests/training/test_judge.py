"""The score of validation patients, task by task."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from momkd.experiment import TaskSettings
from momkd.training.judge import judge, score_name, score_words, what_lacks

CLASSES = ("a", "b", "c")


def column(values: list[float], events: list[float] | None = None) -> np.ndarray:
    return np.column_stack([values, events or [0.0] * len(values)]).astype(np.float64)


def test_classes() -> None:
    binary = TaskSettings(label="x", classes=("n", "p"))
    prob = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]])
    assert judge(prob, column([0, 1, 1, 1]), binary) == 1.0
    assert judge(prob, column([0, 1, 0, 0]), binary) == pytest.approx(2 / 3)
    rng = np.random.default_rng(0)
    three = rng.dirichlet(np.ones(3), 30)
    label = np.arange(30) % 3
    expected = np.mean([roc_auc_score(label == c, three[:, c]) for c in range(3)])
    assert judge(three, column(label.tolist()), TaskSettings(label="x", classes=CLASSES)) == pytest.approx(expected)


def test_order_and_values_by_pairs() -> None:
    value = TaskSettings(type="continuous", label="x")
    # Of the pairs (1,2) (1,3) (2,3) the second is tied.
    assert judge(np.array([[1.0], [0.0], [1.0]]), column([1.0, 2.0, 3.0]), value) == (0 + 0.5 + 1) / 3
    ordinal = TaskSettings(type="ordinal", label="x", classes=CLASSES)
    prob = np.array([[1.0, 0, 0], [0, 1.0, 0], [0.5, 0, 0.5]])
    # Expected classes 0, 1, 1 of patients of class 0, 1, 2.
    assert judge(prob, column([0, 1, 2]), ordinal) == (1 + 1 + 0.5) / 3


def test_survival_pairs_are_those_that_are_known() -> None:
    task = TaskSettings(type="survival", label="x", event="e")
    risk = np.array([[3.0], [1.0], [2.0]])
    # Censored at 1: says nothing of the others; the event at 2 came before 3.
    assert judge(risk, column([1.0, 2.0, 3.0], [0, 1, 0]), task) == 0.0
    assert judge(risk, column([1.0, 2.0, 3.0], [1, 1, 0]), task) == 2 / 3
    assert np.isnan(judge(risk, column([1.0, 2.0, 3.0], [0, 0, 1]), task))


@pytest.mark.parametrize(
    ("task", "mute", "telling"),
    [
        (TaskSettings(label="x", classes=("n", "p")), column([1, 1, 1]), column([1, 0, 1])),
        (TaskSettings(label="x", classes=CLASSES), column([0, 2, 2]), column([0, 2, 1])),
        (TaskSettings(type="ordinal", label="x", classes=CLASSES), column([1, 1, 1]), column([0, 2, 2])),
        (TaskSettings(type="continuous", label="x"), column([4.0, 4.0]), column([4.0, 4.5])),
        # The only event is the last thing that happened; two events at one time.
        (TaskSettings(type="survival", label="x", event="e"), column([1.0, 2.0], [0, 1]), column([1.0, 2.0], [1, 0])),
        (TaskSettings(type="survival", label="x", event="e"), column([2.0, 2.0], [1, 1]), column([2.0, 3.0], [1, 1])),
    ],
)
def test_patients_who_cannot_be_compared_are_known_beforehand(
    task: TaskSettings, mute: np.ndarray, telling: np.ndarray
) -> None:
    for targets in (mute, telling):
        predicted = np.random.default_rng(0).dirichlet(np.ones(max(1, len(task.classes))), len(targets))
        assert np.isnan(judge(predicted, targets, task)) == (what_lacks(targets, task) != "")
    assert what_lacks(mute, task)
    assert not what_lacks(telling, task)


def test_names() -> None:
    assert score_name(TaskSettings(label="x", classes=CLASSES)) == "val_auc"
    assert score_words(TaskSettings(label="x", classes=CLASSES)) == "validation macro AUC"
    assert score_words(TaskSettings(label="x", classes=("n", "p"))) == "validation AUC"
    assert score_words(TaskSettings(type="continuous", label="x")) == "validation concordance"
