"""What the verdict needs of each task: its metrics on weighted rows, and when a resample is usable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from momkd.evaluation.continuous import CONTINUOUS, weighted_continuous
from momkd.evaluation.metrics import METRICS, Floats, weighted_metrics
from momkd.evaluation.multiclass import multiclass_names, weighted_multiclass
from momkd.evaluation.ordinal import ORDINAL, weighted_ordinal
from momkd.evaluation.survival import SURVIVAL, weighted_survival
from momkd.experiment import TaskSettings

# Resamples × rows handled at once: the cost of comparing pairs is shared by the resamples of a block.
_SMALL_BLOCK, _PAIR_BLOCK = 100_000, 2_000_000

Rows = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Scorer:
    """The metrics of some predictions, one entry a row of their table.

    ``names``: of the metrics, the primary one first. ``score(inside, weights)``: each metric (resamples,), NaN where
    undefined, of the rows in the mask ``inside`` (rows,) with ``weights`` (resamples, rows inside). ``needed``: masks
    (rows,), a resample must hold patients of each; ``lacking`` names the draws that do not. ``nothing`` says why there
    can be no interval at all, or is empty. ``counts``: of patients, for metrics.json. ``cells``: resamples × rows to
    score at once. ``binary``: labels 0/1 and probabilities, for the interval of the AUC; None for other tasks.
    """

    names: tuple[str, ...]
    score: Callable[[Rows, Floats], dict[str, Floats]]
    needed: list[Rows]
    lacking: str
    nothing: str
    counts: dict[str, Rows]
    cells: int = _SMALL_BLOCK
    binary: tuple[NDArray[np.int64], Floats] | None = None


def primary_metric(task: TaskSettings) -> str:
    """Return the metric that stands for a task: auc, macro_auc, kappa, spearman or c_index."""
    if task.binary:
        return "auc"
    return {"classification": "macro_auc", "ordinal": "kappa", "continuous": "spearman", "survival": "c_index"}[
        task.type
    ]


def make_scorer(part: pd.DataFrame, thresholds: Floats | None, task: TaskSettings) -> Scorer:
    """Return the scorer of predictions whose columns are checked and numeric; ``thresholds`` (rows,) if binary."""
    if task.type == "survival":
        return _survival(part)
    if task.type == "continuous":
        return _continuous(part)
    position = {name: number for number, name in enumerate(task.classes)}
    y = np.array([position[name] for name in part["label"]], dtype=np.int64)
    prob = part[[f"prob_{name}" for name in task.classes]].to_numpy(dtype=np.float64)
    if thresholds is not None:
        return _binary(y, prob[:, -1], thresholds)
    return _classes(y, prob, task)


def main_scorer(part: pd.DataFrame, task: TaskSettings) -> Scorer:
    """Return the scorer for the metric that stands for the task, which uses no threshold; columns: see above."""
    return make_scorer(part, np.full(len(part), 0.5) if task.binary else None, task)


def _binary(y: NDArray[np.int64], prob: Floats, thresholds: Floats) -> Scorer:
    predicted = prob >= thresholds
    return Scorer(
        METRICS,
        lambda inside, w: weighted_metrics(y[inside], prob[inside], predicted[inside], w),
        needed=[y == 1, y == 0],
        lacking="of one class",
        nothing=_one_class(y),
        counts={"positive": y == 1},
        binary=(y, prob),
    )


def _classes(y: NDArray[np.int64], prob: Floats, task: TaskSettings) -> Scorer:
    present = [y == number for number in np.unique(y)]
    ordinal = task.type == "ordinal"

    def score(inside: Rows, w: Floats) -> dict[str, Floats]:
        if ordinal:
            return weighted_ordinal(y[inside], prob[inside], w)
        return weighted_multiclass(y[inside], prob[inside], task.classes, w)

    return Scorer(
        ORDINAL if ordinal else multiclass_names(task.classes),
        score,
        needed=present,
        lacking="without a class",
        nothing=_one_class(y),
        counts={name: y == number for number, name in enumerate(task.classes)},
    )


def _continuous(part: pd.DataFrame) -> Scorer:
    observed, predicted = (part[name].to_numpy(dtype=np.float64) for name in ("label", "predicted"))
    return Scorer(
        CONTINUOUS,
        lambda inside, w: weighted_continuous(observed[inside], predicted[inside], w),
        needed=[],
        lacking="",
        nothing="" if len(observed) and np.ptp(observed) > 0 else "none: the patients are of one value",
        counts={},
        cells=_PAIR_BLOCK,
    )


def _survival(part: pd.DataFrame) -> Scorer:
    time, risk = (part[name].to_numpy(dtype=np.float64) for name in ("time", "risk"))
    event = part["event"].to_numpy(dtype=np.float64) == 1
    model = part["fold"].to_numpy(dtype=np.int64)
    return Scorer(
        SURVIVAL,
        lambda inside, w: weighted_survival(time[inside], event[inside], risk[inside], model[inside], w),
        needed=[event],
        lacking="without an event",
        nothing="" if event.any() else "none: no patient has the event",
        counts={"events": event},
        cells=_PAIR_BLOCK,
    )


def _one_class(y: NDArray[np.int64]) -> str:
    return "none: the patients are of one class" if len(np.unique(y)) < 2 else ""


def count_patients(scorer: Scorer, patient: NDArray[np.int64]) -> dict[str, Any]:
    """Return how many patients and rows there are, and how many patients of each kind that the scorer counts."""
    of_kind = {name: len(np.unique(patient[mask])) for name, mask in scorer.counts.items()}
    return {"patients": int(patient.max()) + 1, **of_kind, "rows": len(patient)}
