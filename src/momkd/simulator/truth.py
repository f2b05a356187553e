"""What is true of a simulated cohort, kept beside it so that ceilings and localisation can be measured."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from momkd.errors import CohortError
from momkd.files import atomic_path

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Truth:
    """The truth of n patients and m slides with files, in the order of the cohort table.

    ``z`` (n, 6) float64; ``bayes_score`` and ``visible_score`` (n,): the best scores from all of z and from what
    histology shows; ``clean_label`` before label noise, ``label`` as in the table; ``site`` number. ``slide_id`` (m,);
    the patches of slide i are ``offsets[i]:offsets[i + 1]`` of ``informative`` (bool) and ``tissue_type`` (uint8,
    position in ``tissue.TYPES``), in the order of its feature file.
    """

    patient_id: NDArray[np.str_]
    z: NDArray[np.float64]
    bayes_score: NDArray[np.float64]
    visible_score: NDArray[np.float64]
    clean_label: NDArray[np.int64]
    label: NDArray[np.int64]
    site: NDArray[np.int64]
    slide_id: NDArray[np.str_]
    offsets: NDArray[np.int64]
    informative: NDArray[np.bool_]
    tissue_type: NDArray[np.uint8]

    def patches(self, slide_id: str) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
        """Return ``informative`` and ``tissue_type`` (P,) of one slide; raises CohortError for an unknown slide."""
        place = np.flatnonzero(self.slide_id == slide_id)
        if len(place) != 1:
            raise CohortError(f"slide {slide_id}: not among the {len(self.slide_id)} slides of the simulated truth")
        part = slice(int(self.offsets[place[0]]), int(self.offsets[place[0] + 1]))
        return self.informative[part], self.tissue_type[part]


def write_truth(truth: Truth, target: Path) -> None:
    """Write the truth as an .npz file, atomically; equal truths give equal bytes."""
    arrays = {item.name: getattr(truth, item.name) for item in fields(truth)}
    with atomic_path(target) as temporary:
        np.savez_compressed(temporary, format=np.int64(_FORMAT), **arrays)


def read_truth(source: Path) -> Truth:
    """Read ``truth.npz`` beside a simulated cohort; raises CohortError if it is not there or is something else."""
    try:
        with np.load(source, allow_pickle=False) as arrays:
            return Truth(**{item.name: arrays[item.name] for item in fields(Truth)})
    except FileNotFoundError:
        raise CohortError(f"{source}: no such file; only a simulated cohort has its truth beside it") from None
    except (OSError, ValueError, KeyError) as error:
        raise CohortError(f"{source}: not the truth of a simulated cohort ({error})") from error
