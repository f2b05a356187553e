"""Soft labels of several tables: one scale for all patients, whichever tables they are in."""

from __future__ import annotations

import numpy as np
import pytest

from momkd.experiment import TaskSettings, TeacherSettings
from momkd.omics.teacher import joint_scores

TASK = TaskSettings(label="status", classes=("negative", "positive"))
SETTINGS = TeacherSettings(spread=1.5)
N = 4000


def three_tables(correlation: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores (3, N, 1) of equal spread and a common part, and targets; patients are in one, two or three tables."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=N)
    own = rng.normal(size=(3, N))
    scores = 1.5 * (np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own)[:, :, None] + 0.3
    scores[1, : N // 3] = np.nan
    scores[2, : 2 * N // 3] = np.nan
    targets = np.stack([(common > 0.5).astype(float), np.zeros(N)], axis=1)
    return scores, targets


@pytest.mark.parametrize("correlation", [0.0, 0.4, 0.9])
def test_patients_of_one_table_and_of_three_are_taught_on_one_scale(correlation: float) -> None:
    scores, targets = three_tables(correlation)
    joint = joint_scores(scores, targets, TASK, SETTINGS)
    for part in (slice(0, N // 3), slice(N // 3, 2 * N // 3), slice(2 * N // 3, N)):
        assert joint[part].std() == pytest.approx(1.5, rel=0.06)
    positive = targets[:, 0].mean()
    assert joint.mean() == pytest.approx(np.log(positive / (1 - positive)), abs=0.05)


def test_more_tables_know_more_of_what_is_common() -> None:
    scores, targets = three_tables(0.4)
    joint = joint_scores(scores, targets, TASK, SETTINGS)
    in_all = slice(2 * N // 3, N)
    known = [np.corrcoef(part[in_all, 0], targets[in_all, 0])[0, 1] for part in (*scores, joint)]
    assert known[-1] > max(known[:-1]) + 0.05


def test_a_table_does_not_weigh_more_by_its_spread() -> None:
    scores, targets = three_tables(0.4)
    first = joint_scores(scores, targets, TASK, SETTINGS)
    scores[1] = 100.0 * scores[1] - 7.0
    np.testing.assert_allclose(joint_scores(scores, targets, TASK, SETTINGS), first, atol=1e-9)


def test_opposed_and_constant_tables_are_survived() -> None:
    """Scores that contradict each other cancel out; a teacher without an opinion adds none."""
    rng = np.random.default_rng(1)
    one = rng.normal(size=(50, 1))
    targets = np.stack([np.arange(50) % 2, np.zeros(50)], axis=1).astype(float)
    assert np.abs(joint_scores(np.stack([one, -one]), targets, TASK, SETTINGS)).max() < 1e-9
    flat = joint_scores(np.stack([one, np.ones_like(one)]), targets, TASK, SETTINGS)
    assert np.isfinite(flat).all()
    assert np.corrcoef(flat[:, 0], one[:, 0])[0, 1] == pytest.approx(1.0)


def test_values_are_averaged_in_units_of_the_target() -> None:
    task = TaskSettings(type="continuous", label="score")
    scores = np.array([[[1.0], [2.0], [np.nan]], [[3.0], [np.nan], [5.0]]])
    np.testing.assert_array_equal(joint_scores(scores, np.zeros((3, 2)), task, SETTINGS), [[2.0], [2.0], [5.0]])
