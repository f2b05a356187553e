"""Methods against the first of them, on the same folds: means, intervals, differences, p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from momkd.errors import RunError
from momkd.evaluation.scorers import primary_metric
from momkd.evaluation.statistics import corrected_resampled_t, holm, paired_delong
from momkd.experiment import TaskSettings

Floats = NDArray[np.float64]


def compare_values(
    values: Mapping[str, Sequence[float | None]],
    predictions: Mapping[str, pd.DataFrame],
    task: TaskSettings,
    *,
    folds: int,
    level: float = 0.95,
) -> pd.DataFrame:
    """One row a method, in the order given; the first is the one that the others are compared with.

    ``values``: the main metric of each (repeat, fold), the same ones for every method, None where undefined;
    ``predictions``: the runs' predictions.csv; ``folds`` of one repeat. With m the name of ``primary_metric``, columns:

    - m_mean, m_sd (n − 1) over the folds, m_ci_low, m_ci_high: interval of the mean by the corrected resampled t;
    - difference (method − first), difference_ci_low, difference_ci_high, p_value: corrected resampled t-test of the
      paired folds (Nadeau and Bengio), n_test/n_train = 1/(folds − 1);
    - p_holm: p_value adjusted over the methods (Holm);
    - p_delong: paired DeLong test of the first repeat's pooled predictions, two classes only.

    A fold in which a metric is undefined for one method is left out of its differences; folds_used counts the others.
    Raises RunError where methods have different folds or patients.
    """
    names, main, ratio = list(values), primary_metric(task), 1.0 / (folds - 1)
    if len({len(found) for found in values.values()}) > 1:
        raise RunError("methods have different numbers of folds and cannot be compared: " + ", ".join(names))
    first = _numbers(values[names[0]])
    rows: list[dict[str, Any]] = []
    for name in names:
        own = _numbers(values[name])
        row: dict[str, Any] = {"method": name, **_mean(own, main, ratio, level), **_nothing()}
        if name != names[0]:
            row |= _difference(own, first, ratio, level)
            if task.binary:
                row["p_delong"] = _delong(predictions[names[0]], predictions[name], task.classes[-1], names[0], name)
        rows.append(row)
    tested = [row for row in rows if row["p_value"] is not None]
    for row, adjusted in zip(tested, holm([row["p_value"] for row in tested]), strict=True):
        row["p_holm"] = adjusted
    return pd.DataFrame(rows).astype({name: np.float64 for name in rows[0] if name not in ("method", "folds_used")})


def _nothing() -> dict[str, Any]:
    names = ("difference", "difference_ci_low", "difference_ci_high", "p_value", "p_holm", "p_delong")
    return dict.fromkeys(names)


def _numbers(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _mean(values: Floats, main: str, ratio: float, level: float) -> dict[str, Any]:
    known = values[np.isfinite(values)]
    row: dict[str, Any] = {f"{main}_{part}": None for part in ("mean", "sd", "ci_low", "ci_high")}
    row["folds_used"] = len(known)
    if len(known):
        row[f"{main}_mean"] = float(known.mean())
    if len(known) > 1:
        found = corrected_resampled_t(known, ratio, level)
        row |= {f"{main}_sd": found.sd, f"{main}_ci_low": found.low, f"{main}_ci_high": found.high}
    return row


def _difference(own: Floats, first: Floats, ratio: float, level: float) -> dict[str, Any]:
    both = own - first
    both = both[np.isfinite(both)]
    if len(both) == 0:
        return {}
    if len(both) == 1:
        return {"difference": float(both[0])}
    found = corrected_resampled_t(both, ratio, level)
    return {
        "difference": found.mean,
        "difference_ci_low": found.low,
        "difference_ci_high": found.high,
        "p_value": found.p_value,
    }


def _delong(first: pd.DataFrame, other: pd.DataFrame, positive: str, first_name: str, name: str) -> float | None:
    """Paired DeLong on the pooled test predictions of the first repeat; None with patients of one class only."""
    a, b = (_pooled(frame) for frame in (first, other))
    if not a.index.equals(b.index):
        raise RunError(f"{first_name} and {name} have other test patients and cannot be compared")
    labels = (a["label"] == positive).to_numpy(dtype=np.int64)
    if labels.min() == labels.max():
        return None
    column = f"prob_{positive}"
    return paired_delong(labels, b[column].to_numpy(), a[column].to_numpy()).p_value


def _pooled(frame: pd.DataFrame) -> pd.DataFrame:
    own = frame[(frame["role"] == "test") & (frame["repeat"] == frame["repeat"].min())]
    pooled: pd.DataFrame = own.set_index("patient_id").sort_index()
    return pooled
