"""What a study decides from its data before it trains: slides a step, CPU threads a fit."""

from __future__ import annotations

import logging
from statistics import median

from momkd.cohort.dataset import CohortData
from momkd.experiment import TrainSettings
from momkd.student.threads import threads_for

logger = logging.getLogger(__name__)


# Slides a step under `auto`. A slide of one vector is soon learnt from, and small steps only add noise; attention over
# many patches takes many steps (docs/study.md).
_VECTORS_A_STEP, _BAGS_A_STEP = 64, 16


def resolve(settings: TrainSettings, cohort: CohortData, fits: int) -> TrainSettings:
    """The settings with a number in the place of every ``auto``, for ``fits`` fits on a cohort."""
    patches_a_slide = median(cohort.n_patches(slide) for slide in cohort.cohort.slides["slide_id"])
    if settings.batch_size == "auto":
        size = _VECTORS_A_STEP if patches_a_slide == 1 else _BAGS_A_STEP
        settings = settings.model_copy(update={"batch_size": size})
        logger.info("train.batch_size auto: %d slides a step, at a median of %g patches a slide", size, patches_a_slide)
    return settings.model_copy(update={"threads": _threads(settings, patches_a_slide, fits)})


def _threads(settings: TrainSettings, patches_a_slide: float, fits: int) -> int:
    """The number of threads of each of ``fits`` fits: as set; ``auto``: 1 for small steps, else a share of the cores.

    It depends on the data, the study and the machine, and not on ``--workers``: another number of threads rounds sums
    differently, and results must be the same however the folds are spread.
    """
    if settings.threads != "auto":
        return settings.threads
    return max(1, threads_for(patches_a_slide * settings.slides_a_step) // fits)
