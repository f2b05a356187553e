"""The patch graph: exact k nearest neighbours with a rule for ties."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from momkd.slides.bag import Bag
from momkd.slides.sheet import defect

# Patches lie on grids, where whole rings of neighbours are equally far; so many candidates beyond k are asked for at
# once that most rows are settled by the first query.
_SPARE = 3
_BLOCK = 1 << 20


def knn_edges(coords: np.ndarray, k: int) -> np.ndarray:
    """Return the directed k-nearest-neighbour graph of patch positions as (2, E) int64.

    ``coords`` (P, 2), any unit. Row 0 is the patch, row 1 its neighbour; columns are sorted by patch, then neighbour.
    No self-loops; E = P·min(k, P − 1), so P ≤ k gives the complete directed graph and P = 1 none.

    Ties are settled by (Euclidean distance, row number), exactly: whole-number coordinates are compared as integers.
    Every row's k-th distance must lie strictly below the farthest candidate's, or more candidates are asked for. Only
    the first k + 1 rows of one position can ever be chosen, so further duplicates are left out of the search.
    Raises ValueError for negative k or a wrong shape. O(P log P) time.
    """
    coords = np.asarray(coords)
    if k < 0:
        raise ValueError(f"k is {k}; expected 0 or more")
    if coords.ndim != 2 or coords.shape[1] != 2:
        raise ValueError(f"coords have shape {coords.shape}; expected (patches, 2)")
    n_patches = len(coords)
    if n_patches <= 1 or k == 0:
        return np.empty((2, 0), dtype=np.int64)
    if n_patches <= k + 1:
        return _complete(n_patches)
    points = _comparable(coords)
    candidates = _without_surplus(points, k + 1)
    tree = cKDTree(points[candidates])
    neighbours = np.empty((n_patches, k), dtype=np.int64)
    open_rows, asked = np.arange(n_patches), k + 1 + _SPARE
    while len(open_rows):
        asked = min(asked, len(candidates))
        unsettled = []
        step = max(1, _BLOCK // asked)
        for start in range(0, len(open_rows), step):
            rows = open_rows[start : start + step]
            chosen, settled = _nearest(tree, points, candidates, rows, k, asked)
            neighbours[rows] = chosen
            unsettled.append(rows[~settled])
        open_rows, asked = np.concatenate(unsettled), asked * 2
    neighbours.sort(axis=1)
    return np.stack([np.repeat(np.arange(n_patches), k), neighbours.ravel()])


def bag_edges(bag: Bag, k: int) -> np.ndarray:
    """Return the edges (2, E) int64 that a network shall use for a bag.

    k = 0 or one patch: no edge (the network adds self-loops). Otherwise the file's own graph wins: its edge_index_k<k>,
    else the only one it has; without any, ``knn_edges`` of the coordinates.
    Raises FeatureFileError where the file has several graphs and none for k, or neither graph nor coordinates.
    """
    if k < 0:
        raise ValueError(f"k is {k}; expected 0 or more")
    if k == 0 or bag.n_patches == 1:
        return np.empty((2, 0), dtype=np.int64)
    if k in bag.edges:
        return bag.edges[k]
    if len(bag.edges) == 1:
        return next(iter(bag.edges.values()))
    if bag.edges:
        names = ", ".join(f"edge_index_k{own}" for own in sorted(bag.edges))
        mend = f"set graph.k to one of {', '.join(map(str, sorted(bag.edges)))}"
        raise defect(bag.source, f"graphs {names}, none for graph.k {k}", f"edge_index_k{k}, or one graph only", mend)
    if bag.coords is None:
        mend = "set graph.k: 0 (no graph), or use feature files with coordinates"
        if bag.layout == "tensor":
            mend += ", such as CLAM's h5_files instead of its pt_files"
        raise defect(bag.source, f"no coords and no graph for {bag.n_patches} patches", f"coords for graph.k {k}", mend)
    return knn_edges(bag.coords, k)


def induced_edges(edges: np.ndarray, rows: np.ndarray, n_patches: int) -> np.ndarray:
    """Return the edges (2, E') int64 among the patches ``rows`` (distinct), numbered by their place in ``rows``.

    ``edges`` (2, E) of the ``n_patches`` patches; the order of those that stay is kept.
    """
    place = np.full(n_patches, -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    numbered = place[edges]
    return np.ascontiguousarray(numbered[:, (numbered >= 0).all(axis=0)])


def _complete(n_patches: int) -> np.ndarray:
    patch, neighbour = np.divmod(np.arange(n_patches * n_patches), n_patches)
    return np.stack([patch, neighbour])[:, patch != neighbour]


def _comparable(coords: np.ndarray) -> np.ndarray:
    """Return positions whose squared distances do not overflow: int64 where they are whole and small, else float64."""
    points = coords.astype(np.float64) if coords.dtype.kind == "f" else coords
    if not np.isfinite(points).all():
        raise ValueError("coords are not finite")
    points = points - points.min(axis=0)
    if points.max() < 2**31 and (points == np.rint(points)).all():
        whole: np.ndarray = points.astype(np.int64)
        return whole
    wide: np.ndarray = points.astype(np.float64)
    return wide


def _without_surplus(points: np.ndarray, most: int) -> np.ndarray:
    """Return the row numbers of the first ``most`` rows of every position, ascending."""
    order = np.lexsort((points[:, 1], points[:, 0]))  # stable: equal positions stay in row order
    ordered = points[order]
    is_first = np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)]
    if is_first.all():
        return np.arange(len(points))
    starts = np.flatnonzero(is_first)
    rank = np.arange(len(points)) - starts[np.cumsum(is_first) - 1]
    return np.sort(order[rank < most])


def _nearest(
    tree: cKDTree, points: np.ndarray, candidates: np.ndarray, rows: np.ndarray, k: int, asked: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best of ``asked`` candidates (rows, k), and for which rows no other candidate can be better."""
    _, found = tree.query(points[rows], k=asked, workers=-1)
    found = candidates[found]
    squared = _squared(points[:, 0], found, rows)
    squared += _squared(points[:, 1], found, rows)
    farthest = squared.max(axis=1)
    is_self = found == rows[:, None]
    n_patches = len(points)
    largest = int(farthest.max()) if squared.dtype.kind == "i" else None
    if largest is not None and largest < (2**63 - 1) // n_patches - 1:
        # Distance and row number in one integer: one sort instead of two.
        key = squared * n_patches + found
        key[is_self] = np.iinfo(np.int64).max
        key.sort(axis=1)
        chosen, kth = key[:, :k] % n_patches, key[:, k - 1] // n_patches
    else:
        distance = np.where(is_self, np.inf, squared)
        order = np.lexsort((found, distance), axis=1)[:, :k]
        chosen, kth = (
            np.take_along_axis(found, order, axis=1),
            np.take_along_axis(distance, order[:, -1:], axis=1)[:, 0],
        )
    # The tree computes in floating point, so a candidate that it left out may be nearer by a rounding error.
    settled = (kth < farthest * (1 - 1e-9)) | (asked == len(candidates))
    return chosen, settled


def _squared(axis: np.ndarray, found: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the squared differences along one axis: one axis at a time gathers ten times faster than pairs do."""
    difference: np.ndarray = np.ascontiguousarray(axis)[found]
    difference -= axis[rows, None]
    difference *= difference
    return difference
