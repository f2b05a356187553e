"""momkd: train on slides and RNA, predict from the slide alone.

The verbs of the command line are functions: ``momkd.crossval(momkd.load_experiment("E.yaml"), "runs/her2")``. They are
imported when first used, so ``import momkd`` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from momkd.cohort.check import check as check
    from momkd.experiment import load_experiment as load_experiment
    from momkd.experiment import load_search as load_search
    from momkd.experiment import load_sweep as load_sweep
    from momkd.extract.slides import extract_slides as extract_slides
    from momkd.slides.importer import import_features as import_features
    from momkd.slides.readers import read_bag as read_bag
    from momkd.student import load_student as load_student
    from momkd.study.checkpoint import import_checkpoint as import_checkpoint
    from momkd.study.crossval import crossval as crossval
    from momkd.study.crossval import fit_final as fit_final
    from momkd.study.external import evaluate as evaluate
    from momkd.study.predict import predict as predict
    from momkd.study.search import search as search
    from momkd.study.sweep import sweep as sweep

_HOMES = {
    "check": "momkd.cohort.check",
    "crossval": "momkd.study.crossval",
    "evaluate": "momkd.study.external",
    "extract_slides": "momkd.extract.slides",
    "fit_final": "momkd.study.crossval",
    "import_checkpoint": "momkd.study.checkpoint",
    "import_features": "momkd.slides.importer",
    "load_experiment": "momkd.experiment",
    "load_search": "momkd.experiment",
    "load_student": "momkd.student",
    "load_sweep": "momkd.experiment",
    "predict": "momkd.study.predict",
    "read_bag": "momkd.slides.readers",
    "search": "momkd.study.search",
    "sweep": "momkd.study.sweep",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'momkd' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
