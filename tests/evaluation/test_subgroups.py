"""The verdict by site: what the whole verdict would say of those patients alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from momkd.errors import RunError
from momkd.evaluation.subgroups import OTHERS, by_group
from momkd.evaluation.verdict import verdict
from momkd.experiment import TaskSettings

BINARY = TaskSettings(label="x", classes=("n", "p"))


def predictions(n: int = 80, repeats: int = 2) -> tuple[pd.DataFrame, dict[str, str]]:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, n)
    parts = []
    for repeat in range(repeats):
        prob = 1 / (1 + np.exp(-(label - 0.5 + rng.normal(size=n))))
        parts.append(
            pd.DataFrame(
                {
                    "repeat": repeat,
                    "fold": np.arange(n) % 4,
                    "role": "test",
                    "patient_id": [f"P{i}" for i in range(n)],
                    "label": np.array(["n", "p"])[label],
                    "prob_n": 1 - prob,
                    "prob_p": prob,
                }
            )
        )
    # 40 patients of a, 20 of b, 8 of c, 8 of d, 4 of nobody.
    site = np.repeat(["a", "b", "c", "d", ""], [40, 20, 8, 8, 4])
    return pd.concat(parts, ignore_index=True), {f"P{i}": name for i, name in enumerate(site) if name}


def test_each_site_alone_and_the_small_ones_together() -> None:
    frame, sites = predictions()
    found = by_group(frame, sites, BINARY, resamples=50).set_index("group")
    assert list(found.index) == ["a", "b", OTHERS]
    assert found["patients"].tolist() == [40, 20, 16]
    assert found["groups"].tolist() == [1, 1, 2]
    for name, own in (("a", ["a"]), (OTHERS, ["c", "d"])):
        rows = frame[frame["patient_id"].map(sites).isin(own)]
        aucs = [roc_auc_score(part["label"] == "p", part["prob_p"]) for _, part in rows.groupby("repeat")]
        assert found.loc[name, "value"] == pytest.approx(np.mean(aucs))
        whole = verdict(rows, {(r, f): 0.5 for r in range(2) for f in range(4)}, BINARY, resamples=50)["test"]["auc"]
        assert found.loc[name, ["ci_low", "ci_high"]].tolist() == [whole["ci_low"], whole["ci_high"]]


def test_a_site_of_one_class_is_not_judged_alone() -> None:
    frame, sites = predictions()
    of_b = frame["patient_id"].map(sites) == "b"
    frame.loc[of_b, "label"] = "p"
    found = by_group(frame, sites, BINARY, resamples=20)
    assert found["group"].tolist() == ["a", OTHERS]
    assert found["patients"].tolist() == [40, 36]


def test_validation_patients_take_no_part() -> None:
    frame, sites = predictions()
    val = frame.assign(role="val", prob_p=0.5, prob_n=0.5)
    both = by_group(pd.concat([frame, val]), sites, BINARY, resamples=20)
    pd.testing.assert_frame_equal(both, by_group(frame, sites, BINARY, resamples=20))


@pytest.mark.parametrize("kind", ["classification", "ordinal", "continuous", "survival"])
def test_every_task(kind: str, predicted: Callable[..., Any]) -> None:
    task, frame = predicted(kind)
    sites = {patient: "ab"[number % 2] for number, patient in enumerate(sorted(frame["patient_id"].unique()))}
    found = by_group(frame, sites, task, resamples=20)
    assert found["patients"].tolist() == [30, 30]
    assert found[["value", "ci_low", "ci_high"]].notna().all().all()


def test_unusable_predictions_are_refused() -> None:
    frame, sites = predictions()
    with pytest.raises(RunError, match="prob_p"):
        by_group(frame.drop(columns="prob_p"), sites, BINARY)
