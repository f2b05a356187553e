"""The loop: it learns, chooses on validation, is reproducible, and resumes to the same bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from momkd.errors import RunError, TrainingError
from momkd.experiment import ModelSettings, TaskSettings, TrainSettings
from momkd.models.graph import Graph
from momkd.training.fit import FitResult, fit, patient_means, score
from momkd.training.sampler import balanced_epoch
from momkd.training.samples import BagCache, FitData, OmicsRows, PreparedBag, Rows, Sample
from momkd.training.seeds import derive_seed, generator

SETTINGS = ModelSettings.model_validate(
    {
        "encoder": {"dim": 16, "dropout": 0.2, "attention_dropout": 0.2},
        "rna": {"hidden": 16, "dim": 8},
        "memory": {"codes": 3, "dim": 8},
        "classifier": {"hidden": 8, "dropout": 0.2},
    }
)
TASK = TaskSettings(label="status", classes=("negative", "positive"))
VALUE = TaskSettings(type="continuous", label="score")
TRAIN = TrainSettings(epochs=6, patience=6, lr=5e-3, batch_size=4, seed=3, threads=1, accelerator="cpu")


def bag_of(slide_id: str, label: int) -> PreparedBag:
    """Three patches; one of them says what the label is."""
    rng = np.random.default_rng(derive_seed(0, slide_id) % 2**32)
    features = rng.normal(size=(3, 5)).astype(np.float32)
    features[1, 0] += 4.0 * label
    return PreparedBag(torch.from_numpy(features), Graph.from_edges(torch.tensor([[0, 1, 2], [1, 2, 0]]), 3))


@pytest.fixture
def data() -> FitData:
    def cohort(prefix: str, n: int) -> list[Sample]:
        return [
            Sample(f"{prefix}{i:02d}", f"{prefix}{i:02d}-{s}", i % 2) for i in range(n) for s in range(1 + i % 3 // 2)
        ]

    train, val = cohort("t", 24), cohort("v", 12)
    label = {sample.slide_id: sample.label for sample in train + val}
    rng = np.random.default_rng(0)
    rna = {s.patient_id: (rng.normal(size=6) + 2.0 * s.label).astype(np.float32) for s in train[3:]}
    cache = BagCache(lambda slide_id: bag_of(slide_id, label[slide_id]))
    return FitData(train, val, cache, TASK, 5, {"rna": OmicsRows(tuple("abcdef"), Rows.of(rna))})


def same_weights(a: FitResult, b: FitResult) -> bool:
    left, right = a.model.state_dict(), b.model.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_learns_and_keeps_the_best_epoch(data: FitData) -> None:
    result = fit(data, SETTINGS, TRAIN.model_copy(update={"epochs": 15, "patience": 15}))
    history = result.history
    assert history[-1]["loss_total"] < history[0]["loss_total"]
    best = max(history, key=lambda row: (row["val_auc"], -row["val_loss"]))
    assert result.best_epoch == best["epoch"]
    log_odds = score(result.model, data.val, data, torch.device("cpu"))[:, 0].astype(np.float64)
    loss = np.log1p(np.exp([-x if sample.label else x for x, sample in zip(log_odds, data.val, strict=True)]))
    assert patient_means(loss[:, None], data.val)[0].mean() == pytest.approx(best["val_loss"], rel=1e-5)


def test_same_seed_same_weights_and_other_seed_others(data: FitData) -> None:
    first, second = fit(data, SETTINGS, TRAIN), fit(data, SETTINGS, TRAIN)
    assert same_weights(first, second)
    assert first.history == second.history
    assert not same_weights(first, fit(data, SETTINGS, TRAIN.model_copy(update={"seed": 4})))


def test_global_random_state_is_left_alone(data: FitData) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    threads = torch.get_num_threads()
    fit(data, SETTINGS, TRAIN.model_copy(update={"epochs": 1}))
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


class _Killed(Exception):
    pass


def killer(after_epoch: int) -> Callable[[dict[str, float]], None]:
    def on_epoch(row: dict[str, float]) -> None:
        if row["epoch"] == after_epoch:
            raise _Killed

    return on_epoch


@pytest.mark.parametrize("after_epoch", [1, 2, 5])
def test_resumed_equals_uninterrupted(data: FitData, tmp_path: Path, after_epoch: int) -> None:
    point = tmp_path / "state.safetensors"
    with pytest.raises(_Killed):
        fit(data, SETTINGS, TRAIN, resume_file=point, save_every_seconds=0.0, on_epoch=killer(after_epoch))
    assert point.is_file() == (after_epoch > 1)  # the epoch that was cut off is not in the point
    resumed = fit(data, SETTINGS, TRAIN, resume_file=point)
    whole = fit(data, SETTINGS, TRAIN)
    assert same_weights(resumed, whole)
    assert resumed.history == whole.history


def test_damaged_resume_point(data: FitData, tmp_path: Path) -> None:
    point = tmp_path / "state.safetensors"
    point.write_bytes(b"\x00" * 40)
    with pytest.raises(RunError, match=r"not a resume point.*delete it"):
        fit(data, SETTINGS, TRAIN, resume_file=point)


def test_patience_stops_early(data: FitData) -> None:
    settings = TRAIN.model_copy(update={"epochs": 50, "patience": 2, "lr": 1e-12})
    result = fit(data, SETTINGS, settings)
    assert len(result.history) < 50
    assert len(result.history) == result.best_epoch + 2


def test_plateau_lowers_the_learning_rate(data: FitData) -> None:
    settings = TRAIN.model_copy(
        update={"epochs": 6, "patience": 20, "lr": 1e-9, "plateau_patience": 1, "plateau_factor": 0.5}
    )
    rates = [row["lr"] for row in fit(data, SETTINGS, settings).history]
    assert rates[0] == 1e-9
    assert rates[-1] < 1e-9


def test_loss_that_is_not_finite_names_the_slides(data: FitData) -> None:
    rows = data.tables["rna"].rows
    broken = OmicsRows(tuple("abcdef"), Rows(rows.values * torch.inf, rows.row))
    with pytest.raises(TrainingError, match=r"epoch 1: the loss became .* on slides t.*lower train.lr"):
        fit(FitData(data.train, data.val, data.bags, TASK, 5, {"rna": broken}), SETTINGS, TRAIN)


def test_validation_of_one_class_is_refused(data: FitData) -> None:
    only = [sample for sample in data.val if sample.label == 0]
    with pytest.raises(TrainingError, match=r"not of all classes.*cv.validation"):
        fit(FitData(data.train, only, data.bags, TASK, 5), SETTINGS, TRAIN)


@pytest.mark.parametrize("task", [TaskSettings(type="survival", label="t", event="e"), VALUE], ids=lambda t: t.type)
def test_validation_without_a_pair_chooses_no_epoch(data: FitData, task: TaskSettings) -> None:
    """Nobody outlives the only event; all have one value. A fixed number of epochs needs no choice."""
    train = [dataclasses.replace(sample, value=1.0 + number) for number, sample in enumerate(data.train)]
    val = [dataclasses.replace(sample, label=int(sample.patient_id == "v05"), value=5.0) for sample in data.val]
    lacking = FitData(train, val, data.bags, task, 5)
    with pytest.raises(TrainingError, match=r"no two validation patients.*compared.*train.schedule: cosine"):
        fit(lacking, SETTINGS, TRAIN)
    result = fit(lacking, SETTINGS, TRAIN.model_copy(update={"schedule": "cosine", "epochs": 2, "least_steps": 0}))
    assert [np.isnan(row["val_concordance"]) for row in result.history] == [True, True]


def test_without_rna_the_model_has_no_rna_branch(data: FitData) -> None:
    result = fit(FitData(data.train, data.val, data.bags, TASK, 5), SETTINGS, TRAIN)
    assert not result.model.branches
    assert all(row["loss_rna"] == 0.0 for row in result.history)


def test_balanced_epoch() -> None:
    """9 negative patients, one positive patient with 3 slides: each class about half, each slide of a patient alike."""
    samples = [Sample(f"n{i}", f"n{i}", 0) for i in range(9)] + [Sample("p", f"p{s}", 1) for s in range(3)]
    drawn = [sample for epoch in range(400) for sample in balanced_epoch(samples, generator(0, epoch))]
    assert len(drawn) == 400 * 12
    positive = [sample for sample in drawn if sample.label == 1]
    assert len(positive) / len(drawn) == pytest.approx(0.5, abs=0.03)
    counts = np.array([sum(s.slide_id == f"p{i}" for s in positive) for i in range(3)])
    assert counts / counts.sum() == pytest.approx(1 / 3, abs=0.03)


def test_bag_cache_respects_its_budget() -> None:
    made: list[str] = []

    def prepare(slide_id: str) -> PreparedBag:
        made.append(slide_id)
        return PreparedBag(torch.zeros(10, 4), Graph.from_edges(torch.empty(2, 0, dtype=torch.int64), 10))

    cache = BagCache(prepare, budget_bytes=800)
    for slide_id in ("a", "b", "a", "b"):
        assert cache[slide_id].features.shape == (10, 4)
    assert made == ["a", "b", "b"]


def test_patient_probability_is_the_mean_of_its_slides() -> None:
    samples = [Sample("b", "b1", 1), Sample("a", "a1", 0), Sample("b", "b2", 1)]
    prob, first = patient_means(np.array([[0.2, 0.8], [1.0, 0.0], [0.4, 0.6]]), samples)
    np.testing.assert_allclose(prob, [[1.0, 0.0], [0.3, 0.7]])
    assert [samples[i].label for i in first] == [0, 1]
