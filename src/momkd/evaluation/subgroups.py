"""The verdict by site, scanner, or whatever else the patients are grouped by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from momkd.evaluation.predictions import checked_predictions
from momkd.evaluation.scorers import main_scorer, primary_metric
from momkd.evaluation.verdict import verdict
from momkd.experiment import TaskSettings

# Of groups that are too small to be judged alone, taken together.
OTHERS = "all smaller"


def by_group(
    predictions: pd.DataFrame,
    groups: Mapping[str, str],
    task: TaskSettings,
    *,
    least: int = 15,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the metric that stands for the task in each group of patients, test rows only, the largest group first.

    ``groups``: patient_id → group; patients without one are left out. Groups of fewer than ``least`` patients, and of
    one class, are judged together as ``OTHERS``, last. Columns: group, groups (how many), patients, value, ci_low,
    ci_high, ci_method, all as ``verdict`` defines them for ``pooled``; None where undefined.
    Raises RunError where predictions are not usable.
    """
    frame = checked_predictions(predictions, task)
    frame = frame[frame["role"] == "test"]
    group = frame["patient_id"].map(dict(groups))
    frame, group = frame[group.notna()], group[group.notna()]
    sizes = frame.groupby(group)["patient_id"].nunique().sort_values(ascending=False, kind="stable")
    alone = [
        name for name in sizes.index if sizes[name] >= least and not main_scorer(frame[group == name], task).nothing
    ]
    rows = [_judge(frame[group == name], name, 1, task, resamples, seed) for name in alone]
    rest = ~group.isin(alone)
    if rest.any():
        rows.append(_judge(frame[rest], OTHERS, int(group[rest].nunique()), task, resamples, seed))
    return pd.DataFrame(rows, columns=["group", "groups", "patients", "value", "ci_low", "ci_high", "ci_method"])


def _judge(
    frame: pd.DataFrame, name: str, groups: int, task: TaskSettings, resamples: int, seed: int
) -> dict[str, Any]:
    pairs = frame[["repeat", "fold"]].drop_duplicates().itertuples(index=False)
    # The metrics that stand for a task use no threshold.
    limits = {(int(repeat), int(fold)): 0.5 for repeat, fold in pairs}
    found = verdict(frame, limits, task, seed=seed, resamples=resamples)["test"][primary_metric(task)]
    return {
        "group": name,
        "groups": groups,
        "patients": frame["patient_id"].nunique(),
        "value": found["pooled"],
        "ci_low": found["ci_low"],
        "ci_high": found["ci_high"],
        "ci_method": found["ci_method"],
    }
