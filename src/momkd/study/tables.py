"""The two tables that predictions come in: one row a slide, and one row a patient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from momkd.student.predictor import SlidePrediction


def probability_columns(classes: Sequence[str]) -> list[str]:
    """prob_<class> for each class."""
    return [f"prob_{name}" for name in classes]


def slide_table(
    patients: Sequence[str], predictions: Sequence[SlidePrediction], classes: Sequence[str]
) -> pd.DataFrame:
    """patient_id, slide_id, prob_<class> …; one row a slide, in the order given."""
    columns = probability_columns(classes)
    prob = np.array([prediction.prob for prediction in predictions], dtype=np.float64).reshape(-1, len(columns))
    frame = pd.DataFrame(prob, columns=columns)
    frame.insert(0, "patient_id", list(patients))
    frame.insert(1, "slide_id", [prediction.slide_id for prediction in predictions])
    return frame


def patient_table(slides: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """One row a patient (and role): the mean probability of its slides, in order of first appearance.

    Other columns of ``slides`` (role, patient_id, label) are constant within a patient and are kept.
    """
    columns = probability_columns(classes)
    keys = [name for name in ("role", "patient_id", "label") if name in slides.columns]
    return slides.groupby(keys, sort=False, dropna=False)[columns].mean().reset_index()


def predicted_class(prob_positive: pd.Series, threshold: float, classes: Sequence[str]) -> list[str]:
    """The last class where its probability reaches the threshold, else the first (two classes)."""
    return [classes[-1] if value >= threshold else classes[0] for value in prob_positive]
