"""Groups of patients divided so that every part holds its share of every class.

Counts are (groups, classes) int64 tables of patients. ``required``: bool (classes,), the classes that no part may
lack; where none is, no part may be empty.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# How many assignments of groups are drawn, to keep the best balanced.
_CANDIDATES = 64
# What a fold without one of the classes costs: more than any imbalance.
_MISSING = 1e6

Counts = NDArray[np.int64]


def assign_groups(counts: Counts, folds: int, rng: np.random.Generator, required: NDArray[np.bool_]) -> Counts | None:
    """Return the fold of every group: the best balanced of many greedy assignments, or None if a class is missing.

    Each candidate takes the groups from large to small, in an order blurred at random, and gives each to the fold
    whose classes it overfills least; balance is the squared deviation from equal class counts.
    """
    candidates = np.arange(_CANDIDATES)
    target = np.maximum(counts.sum(axis=0), 1) / folds
    size = np.log((counts / target).sum(axis=1))
    order = np.argsort(-(size + rng.normal(0.0, 0.5, (_CANDIDATES, len(counts)))), axis=1, kind="stable")
    load = np.zeros((_CANDIDATES, folds, counts.shape[1]))
    assigned = np.zeros((_CANDIDATES, len(counts)), dtype=np.int64)
    for step in range(len(counts)):
        group = order[:, step]
        added = counts[group] / target
        fold = np.argmin((load * added[:, None, :]).sum(axis=2), axis=1)
        load[candidates, fold] += added
        assigned[candidates, group] = fold
    cost = ((load - 1.0) ** 2).sum(axis=(1, 2)) + _MISSING * (_needed(load, required) == 0).sum(axis=(1, 2))
    best = int(np.argmin(cost))
    return assigned[best] if cost[best] < _MISSING else None


def validation_groups(
    counts: Counts, share: float, rng: np.random.Generator, required: NDArray[np.bool_]
) -> NDArray[np.bool_] | None:
    """Choose groups whose class counts come nearest to ``share``; None if no choice leaves each class on both sides.

    Each candidate walks through the groups in random order and takes a group when that brings it nearer. Should all
    candidates miss a class, as few groups as there are classes decide, the best one added to each first group. With two
    classes nothing is overlooked: if any choice works, some pair works, because one group of each class suffices for
    validation and leaves the most for training.
    """
    total = counts.sum(axis=0)
    needed = _needed(counts, required)

    def cost(held: Counts) -> NDArray[np.float64]:
        part = _needed(held, required)
        missing = (part == 0).sum(axis=-1) + (part == needed.sum(axis=0)).sum(axis=-1)
        return np.asarray((np.abs(held - share * total) / np.maximum(total, 1)).sum(axis=-1) + _MISSING * missing)

    candidates = np.arange(_CANDIDATES)
    order = rng.permuted(np.tile(np.flatnonzero(counts.sum(axis=1)), (_CANDIDATES, 1)), axis=1)
    taken = np.zeros((_CANDIDATES, len(counts)), dtype=bool)
    held = np.zeros((_CANDIDATES, counts.shape[1]), dtype=np.int64)
    for group in order.T:
        more = held + counts[group]
        better = cost(more) < cost(held)
        taken[candidates[better], group[better]] = True
        held[better] = more[better]
    best = int(np.argmin(cost(held)))
    if cost(held)[best] < _MISSING:
        return np.asarray(taken[best])
    lowest, chosen = _MISSING, [0]
    for first in np.flatnonzero(needed[:, np.argmin(needed.sum(axis=0))]).tolist():
        some, members = counts[first], [first]
        for _ in range(max(1, needed.shape[1] - 1)):
            together = counts + some
            together[members] = some
            members.append(int(np.argmin(cost(together))))
            some = together[members[-1]]
        if cost(some) < lowest:
            lowest, chosen = float(cost(some)), members
    return np.isin(np.arange(len(counts)), chosen) if lowest < _MISSING else None


def _needed(held: NDArray[Any], required: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the columns (…, needed) of which each part must hold some: the required classes, or all patients."""
    return held[..., required] if required.any() else held.sum(axis=-1, keepdims=True)
