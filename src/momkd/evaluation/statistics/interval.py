"""A value with its limits, and what the intervals share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A value with its confidence limits, which are None where the method has none; ``method`` says which it is."""

    value: float | None
    low: float | None
    high: float | None
    method: str


def normal_quantile(level: float) -> float:
    """Return the normal quantile of two-sided limits, 1.96 for 0.95; ValueError outside (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(f"found level {level}; expected a number between 0 and 1")
    return float(ndtri((1 + level) / 2))


def percent(level: float) -> str:
    """Return the level in words: 95 %."""
    return f"{100 * level:g} %"
