"""One slide without its patient: where the tissue lies, what it is, and which patches are informative."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

TYPES = ("tumour", "stroma", "immune", "fat", "necrosis", "normal")

# How common the types other than tumour are, as an offset of their fields (in standard deviations).
_COMMON = (0.9, 0.0, 0.1, -0.8, 0.2)

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tissue:
    """P patches of a slide in reading order.

    ``cells`` (P, 2) int64: column and row on the grid of patches; ``types`` (P,) uint8: position in TYPES;
    ``informative`` (P,) bool: patches of the foci, all of them tumour.
    """

    cells: NDArray[np.int64]
    types: NDArray[np.uint8]
    informative: NDArray[np.bool_]


def simulate_tissue(n_patches: int, foci_share: float, rng: np.random.Generator) -> Tissue:
    """Draw exactly ``n_patches`` cells of tissue in one to four fragments with holes, and label them.

    Types are coherent regions (the largest of smooth random fields); tumour is 25–75 % of the tissue; ``foci_share`` of
    the tumour, at least one patch unless the share is 0, forms one to three compact foci.
    """
    side = max(3, int(np.ceil(np.sqrt(n_patches / 0.35))))
    row, column = np.divmod(np.arange(side * side), side)
    chosen = np.sort(np.argsort(-_tissue_score(side, rng), kind="stable")[:n_patches])
    cells = np.column_stack([column[chosen], row[chosen]]).astype(np.int64)
    fields = np.stack([_smooth_field(side, side / 10.0, rng)[chosen] for _ in TYPES])
    others = fields[1:] + (np.array(_COMMON) + rng.normal(0.0, 0.4, len(_COMMON)))[:, None]
    types = (1 + np.argmax(others, axis=0)).astype(np.uint8)
    n_tumour = max(1, round((0.25 + 0.5 * rng.beta(2.0, 2.0)) * n_patches))
    types[np.argsort(-fields[0], kind="stable")[:n_tumour]] = 0
    informative = np.zeros(n_patches, dtype=bool)
    tumour = np.flatnonzero(types == 0)
    informative[tumour[_foci(cells[tumour], foci_share, rng)]] = True
    return Tissue(cells, types, informative)


def _tissue_score(side: int, rng: np.random.Generator) -> Floats:
    """Return how much each cell is tissue (side², row-major): blurred ellipses, and holes far below everything."""
    row, column = np.divmod(np.arange(side * side), side)
    score = np.full(side * side, -np.inf)
    for _ in range(int(rng.integers(1, 5))):
        centre = rng.uniform(0.2, 0.8, 2) * side
        radius = rng.uniform(0.15, 0.35, 2) * side
        distance = ((row - centre[0]) / radius[0]) ** 2 + ((column - centre[1]) / radius[1]) ** 2
        score = np.maximum(score, -np.sqrt(distance))
    score += 0.25 * _smooth_field(side, side / 14.0, rng)
    holes = _smooth_field(side, side / 25.0, rng) > 1.9
    return np.where(holes, score - 1e3, score)


def _smooth_field(side: int, width: float, rng: np.random.Generator) -> Floats:
    """Return a Gaussian random field of unit variance (side², row-major) whose correlation reaches ``width`` cells."""
    field = gaussian_filter(rng.normal(size=(side, side)), max(width, 0.5), mode="wrap")
    return np.asarray(field / max(float(field.std()), 1e-12)).ravel()


def _foci(tumour: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Choose ``share`` of the tumour cells, those nearest to a few centres among them."""
    n = min(len(tumour), max(1, round(share * len(tumour)))) if share > 0.0 else 0
    # About a dozen patches a focus: more centres would make single patches of foci on small slides.
    centres = tumour[rng.choice(len(tumour), min(1 + n // 12, 3, len(tumour)), replace=False)]
    distance = ((tumour[:, None, :] - centres[None]) ** 2).sum(axis=2).min(axis=1)
    return np.argsort(distance, kind="stable")[:n]
