"""Pairs of patients in the order of their times: how many each patient is in, and how many the risk orders right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from momkd.evaluation.metrics import Floats

# Pairs compared at once, about 16 MB.
_BLOCK_PAIRS = 2_000_000


def ordered_pairs(time: Floats, event: NDArray[np.bool_], risk: Floats, w: Floats) -> tuple[Floats, Floats]:
    """Return for each row the weight of its concordant pairs and of its comparable pairs, both (resamples, rows).

    ``time``, ``event``, ``risk`` (rows,); ``w`` (resamples, rows), how often each row counts. A pair (i, j) belongs to
    i and is comparable when i has the event and j is known to have it later: time_j > time_i, or j is censored at
    time_i. It is concordant when risk_i > risk_j; equal risks count half. The row's own weight is not in the sums,
    which are whole numbers of halves for whole weights, and so exact.
    """
    concordant, comparable = np.zeros(w.shape), np.zeros(w.shape)
    with_event = np.flatnonzero(event)
    for start in range(0, len(with_event), step := max(1, _BLOCK_PAIRS // max(len(time), 1))):
        rows = with_event[start : start + step]
        later = (time > time[rows, None]) | ((time == time[rows, None]) & ~event)
        higher = (risk < risk[rows, None]) + 0.5 * (risk == risk[rows, None])
        comparable[:, rows] = w @ later.astype(np.float64).T
        concordant[:, rows] = w @ (higher * later).T
    return concordant, comparable
