"""From predictions to metrics.json."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pandas as pd
import pytest

from momkd.errors import RunError
from momkd.evaluation.metrics import METRICS, binary_metrics
from momkd.evaluation.statistics import delong_interval
from momkd.evaluation.verdict import verdict
from momkd.experiment import TaskSettings

CLASSES = ("negative", "positive")
TASK = TaskSettings(label="HER2", classes=CLASSES)
KEYS = {"mean", "sd", "values", "undefined", "pooled", "per_repeat", "ci_low", "ci_high", "ci_method"}


def run(
    n: int = 60, repeats: int = 2, folds: int = 3, seed: int = 0
) -> tuple[pd.DataFrame, dict[tuple[int, int], float]]:
    """Predictions as a cross-validation leaves them: every patient tested once a repeat, some validated."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3 == 0
    parts = []
    for repeat in range(repeats):
        fold = rng.permutation(n) % folds
        for role, numbers in (("test", fold), ("val", (fold + 1) % folds)):
            prob = 1 / (1 + np.exp(-(1.5 * y - 0.7 + rng.normal(size=n))))
            parts.append(
                pd.DataFrame(
                    {
                        "repeat": repeat,
                        "fold": numbers,
                        "role": role,
                        "patient_id": [f"P{i:03d}" for i in range(n)],
                        "label": np.where(y, "positive", "negative"),
                        "prob_negative": 1 - prob,
                        "prob_positive": prob,
                    }
                )
            )
    thresholds = {(r, f): 0.3 + 0.1 * f for r in range(repeats) for f in range(folds)}
    frame = pd.concat(parts, ignore_index=True)
    # Half of the validation patients only, as in a real run.
    keep = (frame["role"] == "test") | (frame["patient_id"].str[-1].astype(int) < 5)
    return frame[keep].reset_index(drop=True), thresholds


def judge(frame: pd.DataFrame, thresholds: dict[tuple[int, int], float], **options: Any) -> dict[str, Any]:
    return verdict(frame, thresholds, TASK, **{"resamples": 200, **options})


def part(frame: pd.DataFrame, **where: object) -> pd.DataFrame:
    for name, value in where.items():
        frame = frame[frame[name] == value]
    return frame


def metrics_of(frame: pd.DataFrame, thresholds: dict[tuple[int, int], float]) -> dict[str, float | None]:
    return binary_metrics(
        (frame["label"] == "positive").astype(int),
        frame["prob_positive"],
        [thresholds[r, f] for r, f in zip(frame["repeat"], frame["fold"], strict=True)],
    )


def test_the_shape_of_the_verdict() -> None:
    frame, thresholds = run()
    found = judge(frame, thresholds)
    assert list(found) == ["test", "val", "folds", "counts", "task", "primary"]
    for role in ("test", "val"):
        assert list(found[role]) == list(METRICS)
        assert all(set(metric) == KEYS for metric in found[role].values())
    assert (found["task"], found["primary"]) == ("classification", "auc")
    assert found["folds"][1] == {"repeat": 0, "fold": 1, "threshold": 0.4}
    assert found["counts"] == {
        "test": {"patients": 60, "positive": 20, "rows": 120},
        "val": {"patients": 30, "positive": 10, "rows": 60},
    }
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_values_by_fold_and_pooled_by_repeat() -> None:
    frame, thresholds = run()
    found = judge(frame, thresholds)
    for role in ("test", "val"):
        of_role = part(frame, role=role)
        for name in METRICS:
            metric = found[role][name]
            values = [metrics_of(part(of_role, repeat=r, fold=f), thresholds)[name] for r in (0, 1) for f in range(3)]
            pooled = [metrics_of(part(of_role, repeat=r), thresholds)[name] for r in (0, 1)]
            assert metric["values"] == pytest.approx(values)
            assert metric["mean"] == pytest.approx(np.mean(values))
            assert metric["sd"] == pytest.approx(np.std(values, ddof=1))
            assert metric["pooled"] == pytest.approx(np.mean(pooled))
            assert [entry["pooled"] for entry in metric["per_repeat"]] == pytest.approx(pooled)
            assert metric["per_repeat"][1]["mean"] == pytest.approx(np.mean(values[3:]))
            assert metric["ci_low"] <= metric["pooled"] <= metric["ci_high"]


def test_the_interval_of_the_auc_is_delongs() -> None:
    frame, thresholds = run(repeats=1)
    test = part(frame, role="test").sort_values("patient_id")
    exact = delong_interval((test["label"] == "positive").astype(int), test["prob_positive"])
    found = judge(frame, thresholds)
    auc = found["test"]["auc"]
    assert (auc["ci_low"], auc["ci_high"]) == (pytest.approx(exact.low), pytest.approx(exact.high))
    assert auc["pooled"] == pytest.approx(exact.value)
    assert auc["ci_method"] == "DeLong 95 % (logit scale)"
    assert found["test"]["f1"]["ci_method"].startswith("bootstrap 95 % (percentile, 200 resamples of patients, seed 0")
    several = judge(*run(repeats=2))
    assert several["test"]["auc"]["ci_method"] == "DeLong 95 % (logit scale); mean of 2 repeats, with their covariance"


def test_repeats_that_agree_entirely_add_no_certainty() -> None:
    frame, thresholds = run(repeats=1)
    copied = pd.concat([frame, frame.assign(repeat=1)])
    thresholds |= {(1, fold): value for (_, fold), value in thresholds.items()}
    one, two = judge(frame, thresholds), judge(copied, thresholds)
    for name in METRICS:
        assert two["test"][name]["ci_low"] == pytest.approx(one["test"][name]["ci_low"])
        assert two["test"][name]["ci_high"] == pytest.approx(one["test"][name]["ci_high"])


def test_the_bootstrap_serves_the_auc_where_patients_have_several_rows() -> None:
    frame, thresholds = run(repeats=1)
    extra = part(frame, role="val", fold=0).assign(fold=1)
    found = judge(pd.concat([frame, extra]), thresholds)
    assert found["val"]["auc"]["ci_method"].startswith("bootstrap")
    assert found["test"]["auc"]["ci_method"].startswith("DeLong")


def test_the_bootstrap_agrees_with_delong() -> None:
    frame, thresholds = run(n=300, repeats=2)
    without_one = frame[~((frame["repeat"] == 1) & (frame["patient_id"] == "P000") & (frame["role"] == "test"))]
    exact, resampled = (judge(f, thresholds, resamples=1000)["test"]["auc"] for f in (frame, without_one))
    assert resampled["ci_method"].startswith("bootstrap")
    assert resampled["ci_low"] == pytest.approx(exact["ci_low"], abs=0.012)
    assert resampled["ci_high"] == pytest.approx(exact["ci_high"], abs=0.012)


def test_row_order_changes_nothing_and_the_seed_does() -> None:
    frame, thresholds = run()
    shuffled = frame.sample(frac=1, random_state=1)[frame.columns[::-1]]
    first = judge(frame, thresholds)
    assert judge(shuffled, dict(reversed(thresholds.items()))) == first
    assert judge(frame, thresholds, seed=1) != first


def test_a_fold_of_one_class_is_counted_and_left_out_of_the_mean() -> None:
    frame, thresholds = run()
    gone = (frame["role"] == "test") & (frame["repeat"] == 0) & (frame["fold"] == 1) & (frame["label"] == "positive")
    auc = judge(frame[~gone], thresholds)["test"]["auc"]
    assert auc["values"][1] is None
    assert auc["undefined"] == 1
    assert auc["mean"] == pytest.approx(np.mean([value for value in auc["values"] if value is not None]))
    assert auc["pooled"] is not None


def test_an_external_cohort_of_one_class_still_has_a_verdict() -> None:
    frame, _ = run(repeats=1)
    ensemble = part(frame, role="test", label="negative").assign(fold=0)
    found = judge(ensemble, {(0, 0): 0.5})
    assert list(found) == ["test", "folds", "counts", "task", "primary"]
    assert found["test"]["auc"]["pooled"] is None
    assert found["test"]["auc"]["sd"] is None
    assert found["test"]["auc"]["ci_method"] == "none: the patients are of one class"
    assert found["test"]["specificity"]["pooled"] is not None
    json.dumps(found, allow_nan=False)


def test_classes_that_look_like_numbers() -> None:
    frame, thresholds = run(repeats=1)
    numbered = frame.rename(columns={"prob_negative": "prob_0", "prob_positive": "prob_1"})
    numbered["label"] = (numbered["label"] == "positive").astype(int)
    found = verdict(numbered, thresholds, TaskSettings(label="HER2", classes=("0", "1")), resamples=200)
    assert found == judge(frame, thresholds)


def test_unusable_predictions_are_refused_by_name() -> None:
    frame, thresholds = run()
    cases = [
        (frame.drop(columns="prob_positive"), r"columns \['prob_positive'\] are missing"),
        (frame.iloc[:0], "the table is empty"),
        (frame.assign(role="train"), r"found roles \['train'\]"),
        (frame.assign(label="HER2+"), r"found labels \['HER2\+'\]"),
        (pd.concat([frame, frame.iloc[:1]]), "patients twice in one fold and role: P000"),
        (frame.assign(prob_positive=np.nan), "NaN or outside"),
    ]
    for wrong, message in cases:
        with pytest.raises(RunError, match=message):
            judge(wrong, thresholds)
    flipped = frame.copy()
    flipped.loc[0, "label"] = "negative" if flipped.loc[0, "label"] == "positive" else "positive"
    with pytest.raises(RunError, match="patients with two labels: P000"):
        judge(flipped, thresholds)
    with pytest.raises(RunError, match=r"no threshold for \(repeat, fold\) \(1, 2\)"):
        judge(frame, {pair: value for pair, value in thresholds.items() if pair != (1, 2)})


def test_a_large_run_is_judged_quickly() -> None:
    frame, thresholds = run(n=700, repeats=5, folds=5)
    start = time.process_time()
    verdict(frame, thresholds, TASK)
    assert time.process_time() - start < 10
