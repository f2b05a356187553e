"""Patients divided into balanced parts for fits inside a fold: members that check one another, teachers out of fold."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from momkd.cohort.balance import assign_groups
from momkd.errors import SplitError


def balanced_parts(patients: pd.DataFrame, n_parts: int, seed: int) -> NDArray[np.int64]:
    """Return the part 0 … n − 1 of each patient; groups stay whole, every label of ``patients`` is in every part.

    ``patients``: columns label (int) and group (str, or None everywhere), in canonical order. n is ``n_parts``, or the
    largest smaller number for which such a division is found. Raises SplitError when there is none of two parts.
    """
    group = patients["group"]
    names = (group if group.notna().all() else patients.index.to_series()).to_numpy(dtype=str)
    number = np.unique(names, return_inverse=True)[1].reshape(-1)
    labels = np.unique(patients["label"].to_numpy(), return_inverse=True)[1].reshape(-1)
    counts = np.zeros((number.max() + 1, labels.max() + 1), dtype=np.int64)
    np.add.at(counts, (number, labels), 1)
    for parts in range(n_parts, 1, -1):
        assigned = assign_groups(
            counts, parts, np.random.default_rng((seed, parts)), np.ones(counts.shape[1], dtype=bool)
        )
        if assigned is not None:
            return np.asarray(assigned[number])
    raise SplitError(
        f"{len(patients)} training patients in {len(counts)} groups cannot be divided into two parts with every class "
        "in both, which cross-fitted members and soft labels need → set train.members: 1 and model.teacher.weight: 0, "
        "or leave cohort.group out"
    )
