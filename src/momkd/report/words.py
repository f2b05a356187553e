"""Numbers, and the metrics of a run, as a reader sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from momkd.report.names import interval_words, metric_name

# The heads of ``metric_rows``.
METRIC_HEADS = ("metric", "folds: mean ± sd", "pooled", "95 % interval")


def number(value: float | None) -> str:
    """Three decimals; five digits for large values in the unit of the label."""
    if value is None or not np.isfinite(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.5g}"


def mean_sd(mean: float | None, sd: float | None) -> str:
    """Mean ± sd, without the sd where there is none."""
    return number(mean) if sd is None or not np.isfinite(sd) else f"{number(mean)} ± {number(sd)}"


def mean_sds(table: pd.DataFrame, key: str) -> list[str]:
    """Mean ± sd of each row, from the columns <key>_mean and <key>_sd."""
    return [mean_sd(*pair) for pair in zip(table[f"{key}_mean"], table[f"{key}_sd"], strict=True)]


def interval(low: float | None, high: float | None) -> str:
    """Both limits, or a dash."""
    known = low is not None and high is not None and np.isfinite([low, high]).all()
    return f"{number(low)} – {number(high)}" if known else "–"


def spread_of(values: pd.Series) -> str:
    """Least – median – most."""
    return f"{values.min():.4g} – {values.median():.4g} – {values.max():.4g}"


def count(value: float) -> str:
    """A whole number, its thousands apart."""
    return f"{int(value):,}".replace(",", " ")


def metric_rows(section: Mapping[str, Any]) -> tuple[list[list[str]], str]:
    """The metrics of one role of metrics.json, a row each under ``METRIC_HEADS``, and what their intervals are."""
    rows: list[list[str]] = []
    methods: dict[str, list[str]] = {}
    for key, entry in section.items():
        if isinstance(entry, Mapping):
            name = metric_name(key)
            # The mean of one fold says nothing that the pooled value does not.
            mean = mean_sd(entry["mean"], entry["sd"]) if len(entry["values"]) != 1 else number(None)
            rows.append([name, mean, number(entry["pooled"]), interval(entry["ci_low"], entry["ci_high"])])
            methods.setdefault(str(entry["ci_method"]), []).append(name)
    return rows, interval_words(methods)
