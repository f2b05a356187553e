"""How many CPU threads a fit uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from threadpoolctl import threadpool_limits

from momkd.cohort.dataset import CohortData
from momkd.experiment import TrainSettings
from momkd.student.threads import threads_for


def resolve_threads(settings: TrainSettings, cohort: CohortData, fits: int) -> int:
    """The number of threads of each of ``fits`` fits: as set; ``auto``: 1 for small steps, else a share of the cores.

    It depends on the data, the study and the machine, and not on ``--workers``: another number of threads rounds sums
    differently, and results must be the same however the folds are spread.
    """
    if settings.threads != "auto":
        return settings.threads
    patches_a_slide = median(cohort.n_patches(slide) for slide in cohort.cohort.slides["slide_id"])
    return max(1, threads_for(patches_a_slide * settings.batch_size) // fits)


@contextmanager
def use_blas_threads(count: int) -> Iterator[None]:
    """Let numpy and scipy use ``count`` threads inside the block, for the same reason and lest processes crowd."""
    with threadpool_limits(count, user_api="blas"):
        yield
