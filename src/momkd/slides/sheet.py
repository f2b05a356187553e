"""What every file layout is translated to before anything is checked or read, and the errors of this floor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from momkd.errors import FeatureFileError, Problem

if TYPE_CHECKING:
    from momkd.slides.remote import FeatureFile


def defect(subject: FeatureFile | str, found: str, expected: str = "", mend: str = "") -> FeatureFileError:
    """Make the error of one feature file; its only argument is a Problem, so that a cohort's can be collected."""
    return FeatureFileError(Problem(str(subject), found, expected, mend))


def problem_of(error: FeatureFileError) -> Problem:
    """Return the Problem that an error of this floor carries."""
    first = error.args[0] if error.args else ""
    return first if isinstance(first, Problem) else Problem("feature file", str(first))


# The mend where a layout needs the slide's mpp and has none.
GIVE_MPP = "set features.slide_mpp (import-features: --slide-mpp) to the slides' µm per level-0 pixel, such as 0.25"


@dataclass(frozen=True)
class Stored:
    """An array in a file: shape and dtype are known, the values are read on call."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    def __str__(self) -> str:
        return f"{self.name} {self.shape} {self.dtype.name}"


@dataclass(frozen=True)
class Sheet:
    """An open feature file in the words of one layout; valid as long as the file is open.

    ``is_vector``: one vector stands for the slide, so features (D,) are a bag of one. ``um_per_px``: the coordinates
    are stored in µm and divided by this to give level-0 pixels; None where they are level-0 pixels already.
    """

    path: FeatureFile
    layout: str
    features: Stored
    coords: Stored | None = None
    edges: Mapping[int, Stored] = field(default_factory=dict)
    patch_size_level0: float | None = None
    mpp: float | None = None
    encoder: str | None = None
    is_vector: bool = False
    um_per_px: float | None = None
