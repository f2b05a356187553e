"""What is said of an explained slide in numbers and words: explanation.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from momkd.slides.bag import Bag
from momkd.student.reasons import SlideReasons
from momkd.study.predict import Ensemble


def told(
    bag: Bag, reasons: SlideReasons, ensemble: Ensemble, files: Sequence[str], notes: Sequence[str]
) -> dict[str, Any]:
    """The contents of explanation.json, without what it was made of.

    ``lowest`` and ``highest`` are votes of single networks: how far they disagree, not a confidence interval.
    """
    found, student = reasons.prediction, ensemble.students[0]
    names = student.card.classes or (student.card.label,)

    def named(values: Any) -> dict[str, float]:
        return dict(zip(names, map(float, values), strict=True))

    return {
        "slide_id": bag.slide_id,
        "patches": bag.n_patches,
        "label": student.card.label,
        "prediction": named(found.values),
        "lowest": named(found.values if found.low is None else found.low),
        "highest": named(found.values if found.high is None else found.high),
        "predicted": ensemble.predicted(found.values),
        "threshold": ensemble.threshold if student.card.task.binary else None,
        "networks": sum(len(one.members) for one in ensemble.students),
        "intended_use": student.card.intended_use,
        "notes": list(notes),
        "files": list(files),
    }
