"""A slide as the models see it: a bag of patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from momkd.slides.remote import FeatureFile


@dataclass(frozen=True, eq=False)
class Bag:
    """One slide's patches, as read from one feature file and validated.

    ``features`` (P, D) float16 or float32, finite, C-contiguous. ``coords`` (P, 2) int64: x, y of each patch's
    top-left corner in level-0 pixels, or None where the file has none (they are never invented).
    ``patch_size_level0`` in level-0 pixels; ``mpp`` in µm per level-0 pixel. ``edges`` {k: (2, E) int64}: graphs the
    file brings, row 0 the patch, row 1 its neighbour. ``layout`` is the name of the file layout, ``source`` the file,
    here or behind a URL.
    """

    slide_id: str
    features: np.ndarray
    coords: np.ndarray | None
    patch_size_level0: float | None
    mpp: float | None
    encoder: str | None
    edges: Mapping[int, np.ndarray] = field(default_factory=dict)
    layout: str = "memory"
    source: FeatureFile = Path("memory")

    @property
    def n_patches(self) -> int:
        """P, the number of patches."""
        return int(self.features.shape[0])

    @property
    def width(self) -> int:
        """D, the number of features of a patch."""
        return int(self.features.shape[1])


@dataclass(frozen=True)
class BagInfo:
    """What a feature file's header says, without its features having been read.

    ``dtype`` is the type as stored (float64 is read as float32); ``edge_ks`` the k of the graphs in the file,
    ascending.
    """

    slide_id: str
    n_patches: int
    width: int
    dtype: str
    has_coords: bool
    edge_ks: tuple[int, ...]
    patch_size_level0: float | None
    mpp: float | None
    encoder: str | None
    layout: str
    source: FeatureFile
