"""How many CPU threads a fit uses: a matter of the data and the machine, never of how many folds run beside it."""

from __future__ import annotations

import os
from statistics import median

from momkd.cohort.dataset import CohortData
from momkd.experiment import TrainSettings

# Below so many patches a step, a second thread costs more in hand-over than it saves.
_PATCHES_WORTH_A_SECOND_THREAD = 2048


def resolve_threads(settings: TrainSettings, cohort: CohortData) -> int:
    """The number of threads: as set, or by the patches of a typical step if ``auto``.

    Since sums are rounded differently by another number of threads, this must not depend on ``--workers``.
    """
    if settings.threads != "auto":
        return settings.threads
    patches_a_step = median(cohort.n_patches(slide) for slide in cohort.cohort.slides["slide_id"]) * settings.batch_size
    return 1 if patches_a_step < _PATCHES_WORTH_A_SECOND_THREAD else max(1, os.cpu_count() or 1)
