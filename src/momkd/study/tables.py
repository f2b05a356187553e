"""The two tables that predictions come in: one row a slide, and one row a patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from momkd.evaluation.columns import observed_columns, prediction_columns
from momkd.experiment import TaskSettings
from momkd.student.predictor import SlidePrediction

__all__ = [
    "observed_columns",
    "observed_table",
    "patient_table",
    "predicted_class",
    "prediction_columns",
    "probability_columns",
    "slide_table",
]


def probability_columns(classes: Sequence[str]) -> list[str]:
    """prob_<class> for each class."""
    return [f"prob_{name}" for name in classes]


def slide_table(patients: Sequence[str], predictions: Sequence[SlidePrediction], task: TaskSettings) -> pd.DataFrame:
    """patient_id, slide_id and the ``prediction_columns`` of the task; one row a slide, in the order given."""
    columns = prediction_columns(task)
    values = np.array([prediction.values for prediction in predictions], dtype=np.float64).reshape(-1, len(columns))
    frame = pd.DataFrame(values, columns=columns)
    frame.insert(0, "patient_id", list(patients))
    frame.insert(1, "slide_id", [prediction.slide_id for prediction in predictions])
    return frame


def observed_table(
    task: TaskSettings, patients: Sequence[str], labels: Mapping[str, int], values: Mapping[str, float]
) -> pd.DataFrame:
    """The ``observed_columns`` of patients, in the order given, from the ``labels`` and ``values`` of CohortData."""
    if task.type == "survival":
        return pd.DataFrame({"time": [values[p] for p in patients], "event": [labels[p] for p in patients]})
    if task.type == "continuous":
        return pd.DataFrame({"label": [values[p] for p in patients]}, dtype=np.float64)
    return pd.DataFrame({"label": [task.classes[labels[p]] for p in patients]}, dtype=object)


def patient_table(slides: pd.DataFrame, classes: Sequence[str] = ()) -> pd.DataFrame:
    """One row a patient (and role): the mean prediction of its slides, in order of first appearance.

    Averaged are the probabilities of ``classes``; without classes, ``predicted`` or ``risk``. Columns of what was
    observed, role and patient_id are constant within a patient and are kept.
    """
    columns = probability_columns(classes) or [name for name in ("predicted", "risk") if name in slides.columns]
    keys = [name for name in ("role", "patient_id", "label", "time", "event") if name in slides.columns]
    return slides.groupby(keys, sort=False, dropna=False)[columns].mean().reset_index()


def predicted_class(table: pd.DataFrame, threshold: float, classes: Sequence[str]) -> list[str]:
    """The most probable class; of two, the last one where its probability reaches the threshold, else the first."""
    prob = table[probability_columns(classes)].to_numpy(dtype=np.float64)
    return [class_of(row, threshold, classes) for row in prob]


def class_of(prob: npt.NDArray[np.floating], threshold: float, classes: Sequence[str]) -> str:
    """The class that probabilities (classes,) speak for, as ``predicted_class`` chooses it."""
    if len(classes) == 2:
        return classes[-1] if prob[-1] >= threshold else classes[0]
    return classes[int(prob.argmax())]
