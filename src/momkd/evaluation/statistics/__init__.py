"""Intervals and tests: DeLong, the bootstrap over patients, the corrected resampled t-test, Holm.

All but the corrected t-test speak of other patients of the same kind, given the trained models: they do not cover what
another training run or another cohort would change.
"""

from momkd.evaluation.statistics.bootstrap import (
    PairedBootstrap,
    Resamples,
    blocks,
    bootstrap_interval,
    draw,
    draw_patients,
    paired_auc_bootstrap,
    paired_bootstrap,
    percentile_interval,
)
from momkd.evaluation.statistics.delong import DeLong, PairedDeLong, delong, delong_interval, paired_delong
from momkd.evaluation.statistics.folds import (
    CorrectedT,
    corrected_resampled_t,
    fold_interval,
    fold_ratio,
    fold_values,
    holm,
    paired_corrected_t,
)
from momkd.evaluation.statistics.interval import Floats, Interval

__all__ = [
    "CorrectedT",
    "DeLong",
    "Floats",
    "Interval",
    "PairedBootstrap",
    "PairedDeLong",
    "Resamples",
    "blocks",
    "bootstrap_interval",
    "corrected_resampled_t",
    "delong",
    "delong_interval",
    "draw",
    "draw_patients",
    "fold_interval",
    "fold_ratio",
    "fold_values",
    "holm",
    "paired_auc_bootstrap",
    "paired_bootstrap",
    "paired_corrected_t",
    "paired_delong",
    "percentile_interval",
]
