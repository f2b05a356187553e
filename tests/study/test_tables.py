"""The tables of predictions, by task."""

from __future__ import annotations

import pandas as pd
import pytest

from momkd.experiment import TaskSettings
from momkd.study.tables import observed_columns, observed_table, patient_table, predicted_class, prediction_columns

THREE = TaskSettings(type="ordinal", label="grade", classes=("1", "2", "3"))
VALUE = TaskSettings(type="continuous", label="score")
RISK = TaskSettings(type="survival", label="days", event="died")


def test_columns_by_task() -> None:
    assert (observed_columns(THREE), prediction_columns(THREE)) == (["label"], ["prob_1", "prob_2", "prob_3"])
    assert (observed_columns(VALUE), prediction_columns(VALUE)) == (["label"], ["predicted"])
    assert (observed_columns(RISK), prediction_columns(RISK)) == (["time", "event"], ["risk"])


def test_what_was_observed() -> None:
    labels, values = {"A": 1, "B": 0}, {"A": 2.5, "B": 7.0}
    assert observed_table(THREE, ["B", "A", "A"], labels, values)["label"].tolist() == ["1", "2", "2"]
    assert observed_table(VALUE, ["B", "A"], labels, values)["label"].tolist() == [7.0, 2.5]
    found = observed_table(RISK, ["B", "A"], labels, values)
    assert found.to_dict("list") == {"time": [7.0, 2.5], "event": [0, 1]}
    for task in (THREE, VALUE, RISK):
        assert list(observed_table(task, [], labels, values).columns) == observed_columns(task)


@pytest.mark.parametrize("task", [VALUE, RISK])
def test_a_patient_is_the_mean_of_its_slides(task: TaskSettings) -> None:
    observed = {name: [2.0, 2.0, 5.0] for name in observed_columns(task)}
    (column,) = prediction_columns(task)
    known = {"role": "test", "patient_id": ["A", "A", "B"], "slide_id": ["x", "y", "z"]}
    slides = pd.DataFrame({**known, **observed, column: [1.0, 2.0, 9.0]})
    found = patient_table(slides, task.classes)
    assert list(found.columns) == ["role", "patient_id", *observed, column]
    assert found[column].tolist() == [1.5, 9.0]


def test_the_predicted_class() -> None:
    two = pd.DataFrame({"prob_a": [0.6, 0.8], "prob_b": [0.4, 0.2]})
    assert predicted_class(two, 0.3, ["a", "b"]) == ["b", "a"]
    three = pd.DataFrame({"prob_1": [0.4, 0.2], "prob_2": [0.4, 0.3], "prob_3": [0.2, 0.5]})
    assert predicted_class(three, 0.1, ["1", "2", "3"]) == ["1", "3"]
