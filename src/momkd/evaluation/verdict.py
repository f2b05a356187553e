"""The verdict on a run: from predictions to the content of metrics.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from momkd.errors import RunError, summarise
from momkd.evaluation.metrics import METRICS, binary_metrics, weighted_metrics
from momkd.evaluation.statistics import (
    Floats,
    Interval,
    blocks,
    delong_interval,
    draw_patients,
    percentile_interval,
)

ROLES = ("test", "val")
_KEYS = ("repeat", "fold", "role", "patient_id")


@dataclass(frozen=True, eq=False)
class _Rows:
    """Predictions of one role in canonical order: one entry a row, patients numbered in the order of their ids."""

    repeat: NDArray[np.int64]
    fold: NDArray[np.int64]
    patient: NDArray[np.int64]
    y: NDArray[np.int64]
    prob: Floats
    threshold: Floats

    @property
    def repeats(self) -> list[int]:
        return [int(repeat) for repeat in np.unique(self.repeat)]


def verdict(
    predictions: pd.DataFrame,
    thresholds: Mapping[tuple[int, int], float],
    classes: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> dict[str, Any]:
    """Return the content of metrics.json: for the roles test and val, each metric with its spread and its interval.

    ``predictions``: repeat, fold, role, patient_id, label (class name), prob_<class> …, one row a patient, fold and
    role; ``thresholds``: by (repeat, fold), chosen on validation; ``classes``: the last of two is the positive one.

    A metric is {"mean", "sd", "values", "undefined", "pooled", "per_repeat", "ci_low", "ci_high", "ci_method"}:
    ``values`` one a (repeat, fold), in the order of "folds", None where undefined, ``undefined`` counting those;
    ``mean`` and ``sd`` (n − 1) over the defined ones; ``pooled`` over all patients of a repeat together, each called by
    the threshold of its own fold, averaged over repeats (None when undefined in one); ``per_repeat`` the same for each.

    The interval belongs to ``pooled``. AUC: DeLong on the logit scale for the mean of the repeats' pooled AUCs, keeping
    the covariance between repeats, which share their patients; averaging a patient's probabilities over repeats instead
    would give the interval of an ensemble that no run has. Where a patient is absent from a repeat or has several rows
    in one (validation), and for all other metrics: percentile bootstrap over patients, with all their rows. Both speak
    of other patients, given the trained models. Metrics of ``val`` that use a threshold, or early stopping, are
    optimistic: the same patients chose it.

    Further keys: "folds" (repeat, fold, threshold) and "counts" (patients, positive, rows) by role.
    Raises RunError naming what is wrong with the predictions or thresholds.
    """
    if len(classes) != 2:
        raise RunError(f"found {len(classes)} classes {list(classes)}; this version evaluates exactly 2")
    frame = _checked(predictions, thresholds, classes)
    pairs = sorted({(int(r), int(f)) for r, f in zip(frame["repeat"], frame["fold"], strict=True)})
    result: dict[str, Any] = {}
    counts: dict[str, Any] = {}
    for number, role in enumerate(ROLES):
        part = frame[frame["role"] == role]
        if part.empty:
            continue
        rows = _rows(part, thresholds, classes)
        result[role] = _judge(rows, pairs, seed=(seed, number), resamples=resamples, level=level)
        of_patient = np.unique(rows.patient[rows.y == 1])
        counts[role] = {"patients": int(rows.patient.max()) + 1, "positive": len(of_patient), "rows": len(rows.y)}
    result["folds"] = [{"repeat": r, "fold": f, "threshold": float(thresholds[r, f])} for r, f in pairs]
    result["counts"] = counts
    return result


def _checked(
    predictions: pd.DataFrame, thresholds: Mapping[tuple[int, int], float], classes: Sequence[str]
) -> pd.DataFrame:
    """Return the predictions sorted by repeat, fold, role and patient; RunError when they cannot be judged."""
    expected = [*_KEYS, "label", *(f"prob_{name}" for name in classes)]
    if missing := [name for name in expected if name not in predictions.columns]:
        raise RunError(f"predictions: columns {missing} are missing; found {list(predictions.columns)}")
    if predictions.empty:
        raise RunError("predictions: the table is empty; expected one row a patient, fold and role")
    frame = predictions[expected].copy()
    frame = frame.astype({"patient_id": str, "label": str})
    frame = frame.sort_values(list(_KEYS), kind="stable", ignore_index=True)
    if unknown := sorted(set(frame["role"]) - set(ROLES)):
        raise RunError(f"predictions: found roles {unknown}; expected {list(ROLES)}")
    if unknown := sorted(set(frame["label"]) - set(classes)):
        raise RunError(f"predictions: found labels {unknown}; expected the classes {list(classes)}")
    if twice := sorted(set(frame.loc[frame.duplicated(list(_KEYS)), "patient_id"])):
        raise RunError(f"predictions: patients twice in one fold and role: {summarise(twice)}; expected one row each")
    labels = frame.groupby("patient_id")["label"].nunique()
    if changing := sorted(labels.index[labels > 1]):
        raise RunError(f"predictions: patients with two labels: {summarise(changing)}")
    prob = frame[f"prob_{classes[-1]}"].to_numpy(dtype=np.float64)
    wrong = ~((prob >= 0) & (prob <= 1))
    if wrong.any():
        names = sorted(set(frame.loc[wrong, "patient_id"]))
        raise RunError(f"predictions: prob_{classes[-1]} is NaN or outside [0, 1] for patients {summarise(names)}")
    pairs = {(int(r), int(f)) for r, f in zip(frame["repeat"], frame["fold"], strict=True)}
    if without := sorted(pair for pair in pairs if not np.isfinite(thresholds.get(pair, np.nan))):
        raise RunError(f"no threshold for (repeat, fold) {summarise([str(pair) for pair in without])}")
    return frame


def _rows(part: pd.DataFrame, thresholds: Mapping[tuple[int, int], float], classes: Sequence[str]) -> _Rows:
    repeat, fold = (part[name].to_numpy(dtype=np.int64) for name in ("repeat", "fold"))
    _, patient = np.unique(part["patient_id"].to_numpy(dtype=str), return_inverse=True)
    return _Rows(
        repeat=repeat,
        fold=fold,
        patient=patient.astype(np.int64),
        y=np.asarray(part["label"] == classes[-1], dtype=np.int64),
        prob=part[f"prob_{classes[-1]}"].to_numpy(dtype=np.float64),
        threshold=np.array([float(thresholds[int(r), int(f)]) for r, f in zip(repeat, fold, strict=True)]),
    )


def _judge(
    rows: _Rows, pairs: Sequence[tuple[int, int]], *, seed: tuple[int, int], resamples: int, level: float
) -> dict[str, Any]:
    nothing: dict[str, float | None] = dict.fromkeys(METRICS)
    by_fold = []
    for repeat, fold in pairs:
        inside = (rows.repeat == repeat) & (rows.fold == fold)
        by_fold.append(_metrics(rows, inside) if inside.any() else nothing)
    by_repeat = [_metrics(rows, rows.repeat == repeat) for repeat in rows.repeats]
    pooled = {name: _mean_of_all([found[name] for found in by_repeat]) for name in METRICS}
    intervals = _intervals(rows, pooled, seed=seed, resamples=resamples, level=level)
    result: dict[str, Any] = {}
    for name in METRICS:
        values = [found[name] for found in by_fold]
        mean, sd = _mean_sd(values)
        per_repeat = []
        for repeat, found in zip(rows.repeats, by_repeat, strict=True):
            inside_mean, inside_sd = _mean_sd([v for v, (r, _) in zip(values, pairs, strict=True) if r == repeat])
            per_repeat.append({"repeat": repeat, "mean": inside_mean, "sd": inside_sd, "pooled": found[name]})
        result[name] = {
            "mean": mean,
            "sd": sd,
            "values": values,
            "undefined": sum(value is None for value in values),
            "pooled": pooled[name],
            "per_repeat": per_repeat,
            "ci_low": intervals[name].low,
            "ci_high": intervals[name].high,
            "ci_method": intervals[name].method,
        }
    return result


def _metrics(rows: _Rows, inside: NDArray[np.bool_]) -> dict[str, float | None]:
    return binary_metrics(rows.y[inside], rows.prob[inside], rows.threshold[inside])


def _intervals(
    rows: _Rows, pooled: Mapping[str, float | None], *, seed: tuple[int, int], resamples: int, level: float
) -> dict[str, Interval]:
    """Return the interval of each pooled metric."""
    positive = np.zeros(int(rows.patient.max()) + 1, dtype=bool)
    positive[rows.patient[rows.y == 1]] = True
    if positive.all() or not positive.any():
        return {name: Interval(pooled[name], None, None, "none: the patients are of one class") for name in METRICS}
    drawn = draw_patients(positive, resamples=resamples, seed=seed)
    draws = _bootstrap(rows, drawn.counts)
    found = {
        name: percentile_interval(pooled[name], draws[name], redrawn=drawn.redrawn, seed=seed[0], level=level)
        for name in METRICS
    }
    scores = _by_patient(rows, len(positive))
    if scores is not None:
        interval = delong_interval(positive.astype(np.int64), scores, level)
        several = f"; mean of {len(scores)} repeats, with their covariance" if len(scores) > 1 else ""
        found["auc"] = Interval(pooled["auc"], interval.low, interval.high, interval.method + several)
    return found


def _bootstrap(rows: _Rows, counts: NDArray[np.int64]) -> dict[str, Floats]:
    """Return each pooled metric of each resample (resamples,), averaged over repeats; NaN when undefined in one."""
    predicted = rows.prob >= rows.threshold
    sums = {name: np.zeros(len(counts)) for name in METRICS}
    for repeat in rows.repeats:
        inside = rows.repeat == repeat
        for block in blocks(len(counts), int(inside.sum())):
            weights = counts[block][:, rows.patient[inside]]
            part = weighted_metrics(rows.y[inside], rows.prob[inside], predicted[inside], weights)
            for name in METRICS:
                sums[name][block] += part[name]
    return {name: total / len(rows.repeats) for name, total in sums.items()}


def _by_patient(rows: _Rows, n_patients: int) -> Floats | None:
    """Return probabilities (repeats, patients), or None unless every patient has exactly one row in every repeat."""
    scores = np.empty((len(rows.repeats), n_patients))
    for number, repeat in enumerate(rows.repeats):
        inside = rows.repeat == repeat
        if not np.array_equal(np.sort(rows.patient[inside]), np.arange(n_patients)):
            return None
        scores[number, rows.patient[inside]] = rows.prob[inside]
    return scores


def _mean_sd(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    defined = [value for value in values if value is not None]
    mean = float(np.mean(defined)) if defined else None
    return mean, float(np.std(defined, ddof=1)) if len(defined) > 1 else None


def _mean_of_all(values: Sequence[float | None]) -> float | None:
    mean, _ = _mean_sd(values)
    return None if any(value is None for value in values) else mean
