"""What is said of an explained slide in numbers and words: explanation.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from momkd.slides.bag import Bag
from momkd.student.predictor import SlidePrediction
from momkd.student.reasons import SlideReasons
from momkd.study.predict import Ensemble


def told_prediction(found: SlidePrediction, ensemble: Ensemble) -> dict[str, Any]:
    """What is predicted of a slide, by class or label.

    ``lowest`` and ``highest`` are votes of single networks: how far they disagree, not a confidence interval.
    """
    names = ensemble.classes or (ensemble.label,)

    def named(values: Any) -> dict[str, float]:
        return dict(zip(names, map(float, values), strict=True))

    return {
        "slide_id": found.slide_id,
        "label": ensemble.label,
        "prediction": named(found.values),
        "lowest": named(found.values if found.low is None else found.low),
        "highest": named(found.values if found.high is None else found.high),
        "predicted": ensemble.predicted(found.values),
        "threshold": ensemble.threshold if ensemble.task.binary else None,
    }


def told(
    bag: Bag, reasons: SlideReasons, ensemble: Ensemble, files: Sequence[str], notes: Sequence[str]
) -> dict[str, Any]:
    """The contents of explanation.json, without what it was made of."""
    return {
        **told_prediction(reasons.prediction, ensemble),
        "patches": bag.n_patches,
        "networks": sum(len(one.members) for one in ensemble.students),
        "intended_use": ensemble.students[0].card.intended_use,
        "notes": list(notes),
        "files": list(files),
    }
