"""The verdict on a run: from predictions to the content of metrics.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from momkd.errors import RunError, summarise
from momkd.evaluation.metrics import first_of
from momkd.evaluation.predictions import ROLES, checked_predictions
from momkd.evaluation.scorers import Scorer, count_patients, make_scorer, primary_metric
from momkd.evaluation.statistics import Floats, Interval, blocks, delong_interval, draw, percentile_interval
from momkd.experiment import TaskSettings


@dataclass(frozen=True, eq=False)
class _Rows:
    """Predictions of one role in canonical order: one entry a row, patients numbered in the order of their ids."""

    repeat: NDArray[np.int64]
    fold: NDArray[np.int64]
    patient: NDArray[np.int64]
    scorer: Scorer

    @property
    def repeats(self) -> list[int]:
        return [int(repeat) for repeat in np.unique(self.repeat)]


def verdict(
    predictions: pd.DataFrame,
    thresholds: Mapping[tuple[int, int], float],
    task: TaskSettings,
    *,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> dict[str, Any]:
    """Return the content of metrics.json: for the roles test and val, each metric with its spread and its interval.

    ``predictions``: repeat, fold, role, patient_id, then the ``observed_columns`` and ``prediction_columns`` of the
    task, one row a patient, fold and role; ``thresholds``: by (repeat, fold), chosen on validation, for a binary task
    (others have none). The metrics are those of ``METRICS`` (binary), ``multiclass_names``, ``ORDINAL``,
    ``CONTINUOUS`` or ``SURVIVAL``.

    A metric is {"mean", "sd", "values", "undefined", "pooled", "per_repeat", "ci_low", "ci_high", "ci_method"}:
    ``values`` one a (repeat, fold), in the order of "folds", None where undefined, ``undefined`` counting those;
    ``mean`` and ``sd`` (n − 1) over the defined ones; ``pooled`` over all patients of a repeat together, each called by
    the threshold of its own fold (survival: paired with patients of its own fold only, since the risks of two models
    have no common unit), averaged over repeats (None when undefined in one); ``per_repeat`` the same for each.

    The interval belongs to ``pooled``. Binary AUC: DeLong on the logit scale for the mean of the repeats' pooled AUCs,
    keeping the covariance between repeats, which share their patients; averaging a patient's probabilities over repeats
    instead would give the interval of an ensemble that no run has. Where a patient is absent from a repeat or has
    several rows in one (validation), and for all other metrics: percentile bootstrap over patients, with all their
    rows. Both speak of other patients, given the trained models. Metrics of ``val`` that use a threshold, or early
    stopping, are optimistic: the same patients chose it.

    Further keys: "folds" (repeat, fold, and threshold if binary), "counts" (patients, rows, and positive, events or
    each class) by role, "task" (its type) and "primary" (the name of the metric that stands for it).
    Raises RunError naming what is wrong with the predictions or thresholds.
    """
    frame = checked_predictions(predictions, task)
    limits = _thresholds(frame, thresholds) if task.binary else {}
    pairs = sorted({(int(r), int(f)) for r, f in zip(frame["repeat"], frame["fold"], strict=True)})
    result: dict[str, Any] = {}
    counts: dict[str, Any] = {}
    for number, role in enumerate(ROLES):
        part = frame[frame["role"] == role]
        if part.empty:
            continue
        rows = _rows(part, limits, task)
        result[role] = _judge(rows, pairs, seed=(seed, number), resamples=resamples, level=level)
        counts[role] = count_patients(rows.scorer, rows.patient)
    result["folds"] = [
        {"repeat": r, "fold": f, **({"threshold": limits[r, f]} if task.binary else {})} for r, f in pairs
    ]
    result["counts"] = counts
    result["task"] = task.type
    result["primary"] = primary_metric(task)
    return result


def _thresholds(frame: pd.DataFrame, thresholds: Mapping[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    """Return the threshold of every fold; RunError where one is missing."""
    pairs = sorted({(int(r), int(f)) for r, f in zip(frame["repeat"], frame["fold"], strict=True)})
    if without := [pair for pair in pairs if not np.isfinite(thresholds.get(pair, np.nan))]:
        raise RunError(f"no threshold for (repeat, fold) {summarise([str(pair) for pair in without])}")
    return {pair: float(thresholds[pair]) for pair in pairs}


def _rows(part: pd.DataFrame, thresholds: Mapping[tuple[int, int], float], task: TaskSettings) -> _Rows:
    repeat, fold = (part[name].to_numpy(dtype=np.int64) for name in ("repeat", "fold"))
    _, patient = np.unique(part["patient_id"].to_numpy(dtype=str), return_inverse=True)
    limits = [thresholds[int(r), int(f)] for r, f in zip(repeat, fold, strict=True)] if task.binary else None
    scorer = make_scorer(part, None if limits is None else np.array(limits, dtype=np.float64), task)
    return _Rows(repeat, fold, patient.astype(np.int64), scorer)


def _judge(
    rows: _Rows, pairs: Sequence[tuple[int, int]], *, seed: tuple[int, int], resamples: int, level: float
) -> dict[str, Any]:
    names = rows.scorer.names
    nothing: dict[str, float | None] = dict.fromkeys(names)
    by_fold = []
    for repeat, fold in pairs:
        inside = (rows.repeat == repeat) & (rows.fold == fold)
        by_fold.append(_metrics(rows, inside) if inside.any() else nothing)
    by_repeat = [_metrics(rows, rows.repeat == repeat) for repeat in rows.repeats]
    pooled = {name: _mean_of_all([found[name] for found in by_repeat]) for name in names}
    intervals = _intervals(rows, pooled, seed=seed, resamples=resamples, level=level)
    result: dict[str, Any] = {}
    for name in names:
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
    return first_of(rows.scorer.score(inside, np.ones((1, int(inside.sum())))))


def _intervals(
    rows: _Rows, pooled: Mapping[str, float | None], *, seed: tuple[int, int], resamples: int, level: float
) -> dict[str, Interval]:
    """Return the interval of each pooled metric."""
    scorer, n_patients = rows.scorer, int(rows.patient.max()) + 1
    if scorer.nothing:
        return {name: Interval(pooled[name], None, None, scorer.nothing) for name in scorer.names}
    needed = [np.bincount(rows.patient[mask], minlength=n_patients) > 0 for mask in scorer.needed]
    drawn = draw(n_patients, needed, resamples=resamples, seed=seed)
    draws = _bootstrap(rows, drawn.counts)
    found = {
        name: percentile_interval(
            pooled[name], draws[name], redrawn=drawn.redrawn, seed=seed[0], level=level, lacking=scorer.lacking
        )
        for name in scorer.names
    }
    if scorer.binary is not None:
        y, prob = scorer.binary
        scores = _by_patient(rows, prob, n_patients)
        if scores is not None:
            positive = np.bincount(rows.patient[y == 1], minlength=n_patients) > 0
            interval = delong_interval(positive.astype(np.int64), scores, level)
            several = f"; mean of {len(scores)} repeats, with their covariance" if len(scores) > 1 else ""
            found["auc"] = Interval(pooled["auc"], interval.low, interval.high, interval.method + several)
    return found


def _bootstrap(rows: _Rows, counts: NDArray[np.int64]) -> dict[str, Floats]:
    """Return each pooled metric of each resample (resamples,), averaged over repeats; NaN when undefined in one."""
    scorer = rows.scorer
    sums = {name: np.zeros(len(counts)) for name in scorer.names}
    for repeat in rows.repeats:
        inside = rows.repeat == repeat
        for block in blocks(len(counts), int(inside.sum()), scorer.cells):
            part = scorer.score(inside, counts[block][:, rows.patient[inside]].astype(np.float64))
            for name in scorer.names:
                sums[name][block] += part[name]
    return {name: total / len(rows.repeats) for name, total in sums.items()}


def _by_patient(rows: _Rows, prob: Floats, n_patients: int) -> Floats | None:
    """Return probabilities (repeats, patients), or None unless every patient has exactly one row in every repeat."""
    scores = np.empty((len(rows.repeats), n_patients))
    for number, repeat in enumerate(rows.repeats):
        inside = rows.repeat == repeat
        if not np.array_equal(np.sort(rows.patient[inside]), np.arange(n_patients)):
            return None
        scores[number, rows.patient[inside]] = prob[inside]
    return scores


def _mean_sd(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    defined = [value for value in values if value is not None]
    mean = float(np.mean(defined)) if defined else None
    return mean, float(np.std(defined, ddof=1)) if len(defined) > 1 else None


def _mean_of_all(values: Sequence[float | None]) -> float | None:
    mean, _ = _mean_sd(values)
    return None if any(value is None for value in values) else mean
