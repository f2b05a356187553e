"""How many CPU threads a fit uses."""

from __future__ import annotations

from statistics import median

from momkd.cohort.dataset import CohortData
from momkd.experiment import TrainSettings
from momkd.student.threads import threads_for


def resolve_threads(settings: TrainSettings, cohort: CohortData) -> int:
    """The number of threads: as set, or by the patches of a typical step if ``auto``."""
    if settings.threads != "auto":
        return settings.threads
    patches_a_slide = median(cohort.n_patches(slide) for slide in cohort.cohort.slides["slide_id"])
    return threads_for(patches_a_slide * settings.batch_size)
