"""Methods against the first: by hand where it can be done by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from momkd.errors import RunError
from momkd.evaluation.comparison import compare_values
from momkd.evaluation.statistics import corrected_resampled_t, holm, paired_delong
from momkd.experiment import TaskSettings

TASK = TaskSettings(label="HER2", classes=("neg", "pos"))


def predictions(seed: int, n: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    prob = 1 / (1 + np.exp(-rng.normal(size=n) - labels))
    frame = pd.DataFrame({"repeat": 0, "fold": np.arange(n) % 4, "role": "test"})
    frame["patient_id"] = [f"P{i}" for i in range(n)]
    frame["label"], frame["prob_neg"], frame["prob_pos"] = np.where(labels, "pos", "neg"), 1 - prob, prob
    return frame.sample(frac=1.0, random_state=seed)


def test_by_hand() -> None:
    values = {"a": [0.7, 0.8, 0.6, 0.9], "b": [0.6, 0.7, 0.6, 0.7], "c": [0.7, 0.9, 0.6, 0.9]}
    frames = {name: predictions(seed) for seed, name in enumerate(values)}
    table = compare_values(values, frames, TASK, folds=4).set_index("method")
    assert table["auc_mean"].tolist() == pytest.approx([0.75, 0.65, 0.775])
    assert table["difference"].tolist()[1:] == pytest.approx([-0.1, 0.025])
    # s = .0816…, its mean's standard error by Nadeau and Bengio: s · √(1/4 + 1/3)
    found = corrected_resampled_t([-0.1, -0.1, 0.0, -0.2], 1 / 3)
    assert table.loc["b", "p_value"] == pytest.approx(found.p_value)
    assert found.t == pytest.approx(-0.1 / (np.std([-0.1, -0.1, 0.0, -0.2], ddof=1) * np.sqrt(1 / 4 + 1 / 3)))
    assert table["p_holm"].tolist()[1:] == pytest.approx(holm(table["p_value"].tolist()[1:]))
    own, first = (frames[name].set_index("patient_id").sort_index() for name in ("b", "a"))
    labels = (first["label"] == "pos").to_numpy(np.int64)
    assert table.loc["b", "p_delong"] == pytest.approx(
        paired_delong(labels, own["prob_pos"], first["prob_pos"]).p_value
    )
    assert table.loc["a", ["difference", "p_value", "p_holm", "p_delong"]].isna().all()


def test_an_undefined_fold_is_left_out_and_counted() -> None:
    values = {"a": [0.7, None, 0.6], "b": [0.8, 0.9, 0.9]}
    table = compare_values(values, {name: predictions(0) for name in values}, TASK, folds=3)
    assert table["folds_used"].tolist() == [2, 3]
    assert table["difference"][1] == pytest.approx(0.2)


@pytest.mark.parametrize("values", [{"a": [0.5, 0.5], "b": [0.5, 0.5]}, {"a": [0.7], "b": [0.6]}])
def test_ties_and_a_single_fold_are_defined(values: dict[str, list[float]]) -> None:
    table = compare_values(values, {name: predictions(0) for name in values}, TASK, folds=2)
    assert table["difference"][1] == pytest.approx(values["b"][0] - values["a"][0])


def test_other_folds_or_patients_are_refused() -> None:
    with pytest.raises(RunError, match="different numbers of folds"):
        compare_values({"a": [0.5], "b": [0.5, 0.6]}, {}, TASK, folds=2)
    with pytest.raises(RunError, match="other test patients"):
        compare_values(
            {"a": [0.5, 0.6], "b": [0.5, 0.7]}, {"a": predictions(0), "b": predictions(0, 38)}, TASK, folds=2
        )
