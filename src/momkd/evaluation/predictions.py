"""The table of predictions, checked before anything is computed from it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from momkd.errors import RunError, summarise
from momkd.evaluation.columns import observed_columns, prediction_columns
from momkd.evaluation.multiclass import SUM_TOLERANCE
from momkd.experiment import TaskSettings

ROLES = ("test", "val")
_KEYS = ["repeat", "fold", "role", "patient_id"]


def checked_predictions(predictions: pd.DataFrame, task: TaskSettings) -> pd.DataFrame:
    """Return the predictions sorted by repeat, fold, role and patient, numbers as float64.

    Raises RunError, naming columns and patients, where they cannot be judged: missing columns, unknown roles or
    classes, a patient twice in a fold and role, a patient with two labels, values that are no probability, time or
    number.
    """
    observed, predicted = observed_columns(task), prediction_columns(task)
    expected = [*_KEYS, *observed, *predicted]
    if missing := [name for name in expected if name not in predictions.columns]:
        raise RunError(f"predictions: columns {missing} are missing; found {list(predictions.columns)}")
    if predictions.empty:
        raise RunError("predictions: the table is empty; expected one row a patient, fold and role")
    frame = predictions[expected].astype({"patient_id": str})
    if task.categorical:
        frame = frame.astype({"label": str})
    frame = frame.sort_values(_KEYS, kind="stable", ignore_index=True)
    if unknown := sorted(set(frame["role"]) - set(ROLES)):
        raise RunError(f"predictions: found roles {unknown}; expected {list(ROLES)}")
    if task.categorical and (unknown := sorted(set(frame["label"]) - set(task.classes))):
        raise RunError(f"predictions: found labels {unknown}; expected the classes {list(task.classes)}")
    if twice := sorted(set(frame.loc[frame.duplicated(_KEYS), "patient_id"])):
        raise RunError(f"predictions: patients twice in one fold and role: {summarise(twice)}; expected one row each")
    for name in [name for name in (*observed, *predicted) if not (task.categorical and name == "label")]:
        frame[name] = _numbers(frame, name)
    for name in observed:
        different = frame.groupby("patient_id")[name].nunique()
        if changing := sorted(different.index[different > 1]):
            raise RunError(f"predictions: patients with two {name}s: {summarise(changing)}")
    _check_values(frame, task, predicted)
    return frame


def _numbers(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return a column as float64; NaN, where a number was expected, is found by ``_check_values``."""
    try:
        return frame[name].astype(np.float64)
    except (TypeError, ValueError) as error:
        raise RunError(f"predictions: column {name} holds {error}; expected numbers") from error


def _check_values(frame: pd.DataFrame, task: TaskSettings, predicted: list[str]) -> None:
    if task.categorical:
        # Of two classes the first one's probability decides nothing.
        for name in predicted[-1:] if task.binary else predicted:
            _refuse(frame, ~frame[name].between(0, 1), f"{name} is NaN or outside [0, 1]")
        if not task.binary:
            off = (frame[predicted].sum(axis=1) - 1).abs() > SUM_TOLERANCE
            _refuse(frame, off, "the probabilities of the classes do not add up to 1")
        return
    if task.type == "survival":
        _refuse(frame, ~frame["event"].isin((0, 1)), "event is neither 0 nor 1")
        _refuse(frame, ~(frame["time"] > 0), "time is not positive")
    for name in ("label", "time", *predicted):
        if name in frame.columns:
            _refuse(frame, ~np.isfinite(frame[name]), f"{name} is not a finite number")


def _refuse(frame: pd.DataFrame, wrong: pd.Series, found: str) -> None:
    if wrong.any():
        names = sorted(set(frame.loc[wrong, "patient_id"]))
        raise RunError(f"predictions: {found} for patients {summarise(names)}")
