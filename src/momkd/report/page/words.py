"""Numbers as a reader sees them."""

from __future__ import annotations

import numpy as np
import pandas as pd


def number(value: float | None) -> str:
    """Three decimals; five digits for large values in the unit of the label."""
    if value is None or not np.isfinite(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.5g}"


def mean_sd(mean: float | None, sd: float | None) -> str:
    """Mean ± sd, without the sd where there is none."""
    return number(mean) if sd is None or not np.isfinite(sd) else f"{number(mean)} ± {number(sd)}"


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
