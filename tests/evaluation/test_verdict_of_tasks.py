"""The verdict on more than two classes, an order, a value and a risk."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from momkd.errors import RunError
from momkd.evaluation.continuous import CONTINUOUS, continuous_metrics
from momkd.evaluation.multiclass import multiclass_metrics, multiclass_names
from momkd.evaluation.ordinal import ORDINAL, ordinal_metrics
from momkd.evaluation.survival import SURVIVAL, survival_metrics
from momkd.evaluation.verdict import verdict
from momkd.experiment import TaskSettings

Maker = Callable[..., tuple[TaskSettings, pd.DataFrame]]
KINDS = {
    "classification": (multiclass_names(("low", "medium", "high")), "macro_auc"),
    "ordinal": (ORDINAL, "kappa"),
    "continuous": (CONTINUOUS, "spearman"),
    "survival": (SURVIVAL, "c_index"),
}


def direct(task: TaskSettings, frame: pd.DataFrame) -> Mapping[str, float | None]:
    if task.type == "continuous":
        return continuous_metrics(frame["label"], frame["predicted"])
    if task.type == "survival":
        return survival_metrics(frame["time"], frame["event"], frame["risk"])
    y = [task.classes.index(name) for name in frame["label"]]
    prob = frame[[f"prob_{name}" for name in task.classes]]
    return ordinal_metrics(y, prob) if task.type == "ordinal" else multiclass_metrics(y, prob, task.classes)


def judge(frame: pd.DataFrame, task: TaskSettings, **options: Any) -> dict[str, Any]:
    return verdict(frame, {}, task, **{"resamples": 200, **options})


@pytest.mark.parametrize("kind", KINDS)
def test_each_task_is_judged_fold_by_fold_and_pooled(predicted: Maker, kind: str) -> None:
    task, frame = predicted(kind)
    found = judge(frame, task)
    names, primary = KINDS[kind]
    assert (found["task"], found["primary"]) == (kind, primary)
    assert found["folds"][4] == {"repeat": 1, "fold": 1}
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for role in ("test", "val"):
        assert tuple(found[role]) == names
        of_role = frame[frame["role"] == role]
        folds = [direct(task, fold) for _, fold in of_role.groupby(["repeat", "fold"])]
        repeats = [direct(task, fold) for _, fold in of_role.groupby("repeat")]
        for name, metric in found[role].items():
            values = [fold[name] for fold in folds]
            assert metric["values"] == pytest.approx(values)
            assert metric["mean"] == pytest.approx(np.mean(values))
            assert metric["sd"] == pytest.approx(np.std(values, ddof=1))
            if kind != "survival":
                assert metric["pooled"] == pytest.approx(np.mean([repeat[name] for repeat in repeats]))
            assert metric["ci_low"] < metric["pooled"] < metric["ci_high"]
            assert metric["ci_method"].startswith("bootstrap 95 % (percentile, 200 resamples of patients, seed 0")


def test_patients_are_counted_by_kind(predicted: Maker) -> None:
    counts = {kind: judge(predicted(kind)[1], predicted(kind)[0], resamples=2)["counts"]["test"] for kind in KINDS}
    assert counts["ordinal"] == {"patients": 60, "low": 20, "medium": 20, "high": 20, "rows": 120}
    assert counts["continuous"] == {"patients": 60, "rows": 120}
    died = predicted("survival")[1].drop_duplicates("patient_id")["event"].sum()
    assert counts["survival"] == {"patients": 60, "events": died, "rows": 120}


def test_risks_of_two_models_are_not_compared(predicted: Maker) -> None:
    task, frame = predicted("survival", repeats=1)
    shifted = frame.assign(risk=frame["risk"] * (1 + frame["fold"]) + 100 * frame["fold"])
    first, second = judge(frame, task)["test"], judge(shifted, task)["test"]
    assert second["c_index"] == first["c_index"]
    test = frame[frame["role"] == "test"]
    pairs = {fold: comparable(part) for fold, part in test.groupby("fold")}
    mean = np.average(first["c_index"]["values"], weights=[pairs[fold] for fold in range(3)])
    assert first["c_index"]["pooled"] == pytest.approx(mean)


def comparable(part: pd.DataFrame) -> int:
    time, event = part["time"].to_numpy(), part["event"].to_numpy()
    return int(((time[:, None] < time) & (event[:, None] == 1)).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_row_order_changes_nothing_and_the_seed_does(predicted: Maker, kind: str) -> None:
    task, frame = predicted(kind)
    first = judge(frame, task)
    assert judge(frame.sample(frac=1, random_state=1)[frame.columns[::-1]], task) == first
    assert judge(frame, task, seed=1) != first


def test_repeats_that_agree_entirely_add_no_certainty(predicted: Maker) -> None:
    task, frame = predicted("continuous", repeats=1)
    one, two = judge(frame, task), judge(pd.concat([frame, frame.assign(repeat=1)]), task)
    assert two["test"]["spearman"]["ci_low"] == pytest.approx(one["test"]["spearman"]["ci_low"])


def test_a_class_or_an_event_that_is_absent_leaves_a_fold_undefined(predicted: Maker) -> None:
    task, frame = predicted("classification")
    gone = (frame["role"] == "test") & (frame["repeat"] == 0) & (frame["fold"] == 1) & (frame["label"] == "low")
    found = judge(frame[~gone], task)["test"]
    assert (found["macro_auc"]["values"][1], found["macro_auc"]["undefined"]) == (None, 1)
    assert found["auc_low"]["values"][1] is None
    assert found["auc_high"]["values"][1] is not None
    task, frame = predicted("survival")
    nobody = judge(frame.assign(event=0), task)["test"]["c_index"]
    assert nobody["pooled"] is None
    assert nobody["ci_method"] == "none: no patient has the event"


def test_values_read_as_text_are_the_same_values(predicted: Maker) -> None:
    for kind in ("continuous", "survival"):
        task, frame = predicted(kind)
        text = {name: str for name in ("label", "time", "event") if name in frame.columns}
        assert judge(frame.astype(text), task) == judge(frame, task)


def test_unusable_predictions_are_refused_by_name(predicted: Maker) -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("classification", {"prob_low": 0.9}, "do not add up to 1 for patients P0"),
        ("classification", {"prob_low": np.nan}, "prob_low is NaN or outside"),
        ("ordinal", {"label": "grade 4"}, "found labels"),
        ("continuous", {"predicted": np.inf}, "predicted is not a finite number for patients P000"),
        ("continuous", {"label": "high"}, "column label holds .*'high'; expected numbers"),
        ("survival", {"time": 0.0}, "time is not positive"),
        ("survival", {"event": 2}, "event is neither 0 nor 1"),
        ("survival", {"risk": None}, "risk is not a finite number"),
    ]
    for kind, change, message in cases:
        task, frame = predicted(kind)
        with pytest.raises(RunError, match=message):
            judge(frame.assign(**change), task)
    task, frame = predicted("survival")
    with pytest.raises(RunError, match=r"columns \['risk'\] are missing"):
        judge(frame.drop(columns="risk"), task)
    with pytest.raises(RunError, match="patients with two times: P000"):
        judge(frame.assign(time=frame["time"].where(frame.index > 0, 9.0)), task)


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_run_is_judged_quickly(predicted: Maker, kind: str) -> None:
    task, frame = predicted(kind, n=600, repeats=3, folds=5)
    start = time.process_time()
    verdict(frame, {}, task)
    assert time.process_time() - start < 10
