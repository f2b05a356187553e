"""Soft labels: out of part, as a plain teacher gives them; one scale for all patients, whichever tables they are in."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from momkd.experiment import TaskSettings, TeacherSettings
from momkd.omics.scale import WinsorScaler
from momkd.omics.teacher import joint_scores, martingale_residuals, soft_scores

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


TASKS = {
    "binary": TASK,
    "classes": TaskSettings(label="type", classes=("a", "b", "c")),
    "ordinal": TaskSettings(type="ordinal", label="grade", classes=("a", "b", "c")),
    "continuous": TaskSettings(type="continuous", label="score"),
    "survival": TaskSettings(type="survival", label="days", event="died"),
}
PART = np.arange(60) % 3


def taught(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Genes (60, 90), more than patients, and targets (60, 2) that the first five genes know something of."""
    rng = np.random.default_rng(3)
    genes = rng.normal(size=(60, 90))
    hidden = genes[:, :5].sum(axis=1) + rng.normal(size=60)
    rank = np.argsort(np.argsort(hidden))
    if kind == "survival":
        return genes, np.column_stack([np.exp(-hidden), rng.random(60) < 0.7]).astype(float)
    if kind == "continuous":
        return genes, np.column_stack([50.0 + 9.0 * hidden, np.zeros(60)])
    return genes, np.column_stack([rank * len(TASKS[kind].classes) // 60, np.zeros(60)]).astype(float)


def standardised(scores: np.ndarray) -> np.ndarray:
    return np.asarray((scores - scores.mean(axis=0)) / scores.std(axis=0))


@pytest.mark.parametrize("kind", TASKS)
def test_nobody_s_own_outcome_is_in_its_score(kind: str) -> None:
    """Outcomes of a part become others: the scores of that part stay as they were, but for the unit of all scores."""
    genes, targets = taught(kind)
    before = soft_scores(genes, targets, PART, TASKS[kind], SETTINGS)
    inside = PART == 1
    poisoned = targets.copy()
    poisoned[inside] = targets[inside][::-1]
    assert not np.array_equal(poisoned, targets)
    after = soft_scores(genes, poisoned, PART, TASKS[kind], SETTINGS)
    np.testing.assert_allclose(standardised(after[inside]), standardised(before[inside]), atol=1e-9)
    assert np.abs(standardised(after[~inside]) - standardised(before[~inside])).max() > 0.1


@pytest.mark.parametrize("kind", TASKS)
def test_nobody_s_genes_are_in_the_scores_of_its_part(kind: str) -> None:
    """Nor is the scaler fitted on who is asked: a patient whose genes are absurd moves nobody beside it."""
    genes, targets = taught(kind)
    before = soft_scores(genes, targets, PART, TASKS[kind], SETTINGS)
    wild = genes.copy()
    wild[4] = 1e6 * genes[4]  # of part 1
    after = soft_scores(wild, targets, PART, TASKS[kind], SETTINGS)
    beside = (PART == 1) & (np.arange(60) != 4)
    np.testing.assert_allclose(standardised(after[beside]), standardised(before[beside]), atol=1e-9)


@pytest.mark.parametrize("kind", TASKS)
def test_soft_scores_are_those_of_a_plain_teacher(kind: str) -> None:
    """Logistic or ridge regression on all genes: the axes of the patients only make it faster."""
    genes, targets = taught(kind)
    task, raw = TASKS[kind], []
    for part in range(3):
        inside, outside = part == PART, part != PART
        scaler = WinsorScaler().fit(genes[outside])
        known, asked, own = scaler.transform(genes[outside]), scaler.transform(genes[inside]), targets[outside]
        if task.type == "classification":
            model = LogisticRegression(C=SETTINGS.c, max_iter=5000, tol=1e-8).fit(known, own[:, 0])
            log_prob = model.predict_log_proba(asked)
            found = log_prob[:, 1:] - log_prob[:, :1]
        else:
            goal = martingale_residuals(own[:, 0], own[:, 1]) if kind == "survival" else own[:, 0]
            found = Ridge(alpha=0.25 / SETTINGS.c).fit(known, goal).predict(asked)[:, None]
        raw.append(np.column_stack([np.flatnonzero(inside), found]))
    expected = np.concatenate(raw)
    expected = expected[np.argsort(expected[:, 0]), 1:]
    scores = soft_scores(genes, targets, PART, task, SETTINGS)
    np.testing.assert_allclose(standardised(scores), standardised(expected), atol=2e-3)
    if kind == "continuous":
        units = (expected - targets[:, :1].mean()) / targets[:, 0].std()
        np.testing.assert_allclose(scores, units, atol=1e-6)
    else:
        np.testing.assert_allclose(scores.std(axis=0), SETTINGS.spread)
        counts = np.bincount(targets[:, 0].astype(int)) if task.type == "classification" else np.ones(2)
        np.testing.assert_allclose(scores.mean(axis=0), np.log(counts[1:] / counts[0]), atol=1e-9)


def test_labels_that_omics_does_not_know_are_not_taught() -> None:
    """A teacher that had seen the label would know it perfectly: there are more genes than patients."""
    rng = np.random.default_rng(5)
    genes, targets = rng.normal(size=(120, 300)), np.column_stack([np.arange(120) % 2, np.zeros(120)]).astype(float)
    scores = soft_scores(genes, targets, rng.permutation(120) % 5, TASK, SETTINGS)[:, 0]
    assert abs(float(np.corrcoef(scores, targets[:, 0])[0, 1])) < 0.25
    seen = LogisticRegression(C=SETTINGS.c).fit(genes, targets[:, 0]).decision_function(genes)
    assert float(np.corrcoef(seen, targets[:, 0])[0, 1]) > 0.8


def test_martingale_residuals_by_hand() -> None:
    time, event = np.array([4.0, 2.0, 1.0, 3.0, 2.0]), np.array([0.0, 1.0, 1.0, 1.0, 0.0])
    # At risk 5, 4 and 2 at the events of times 1, 2 and 3: hazards 0.2, 0.25 and 0.5.
    np.testing.assert_allclose(martingale_residuals(time, event), [-0.95, 0.55, 0.8, 0.05, -0.45])
