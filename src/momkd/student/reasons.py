"""Why a student gave a slide its score, patch by patch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from momkd.errors import StudentError
from momkd.models.influence import MEMORY, Reasons, reasons
from momkd.models.student import Student
from momkd.slides.bag import Bag
from momkd.student.predictor import SlidePrediction, StudentPredictor, graph_of, shared_rule
from momkd.student.threads import threads_for, use_threads

FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class SlideReasons:
    """A slide's prediction and what every patch has to do with it; P patches.

    ``influence`` {column: (P,)}: how much less the log-odds of a class (of two the second; else each), or the predicted
    value or risk, would be without the patch, to first order; it sums to zero. ``attention`` (P,) sums to one.
    ``evidence`` (P,): affinity to the positive minus the negative memory; None where RNA never taught that memory, so
    that it says nothing about classes. ``prototypes`` {memory: (P, C, K)}: cosines with the codes of one member. What
    a method does not have is empty.
    """

    prediction: SlidePrediction
    influence: Mapping[str, FloatArray]
    attention: FloatArray | None
    evidence: FloatArray | None
    prototypes: Mapping[str, FloatArray]


def columns_of(predictor: StudentPredictor) -> tuple[str, ...]:
    """What influence is told of: of two classes the second, of more each, else the label."""
    card, classes = predictor.card, predictor.card.classes
    if not classes:
        return (card.label,)
    return classes[1:] if len(classes) == 2 else classes


def explain(predictors: Sequence[StudentPredictor], bag: Bag, *, member: int = 0) -> SlideReasons:
    """Means over all members of all ``predictors`` (of one task); ``member`` of the first one shows its prototypes.

    Raises StudentError when the bag does not fit, when there is no such member, or when nothing in the method tells
    one patch from another.
    """
    first = predictors[0]
    if not 0 <= member < len(first.members):
        raise StudentError(f"there is no member {member}: the student has {len(first.members)}, counted from 0")
    votes: list[np.ndarray] = []
    attention: list[np.ndarray] = []
    evidence: list[np.ndarray] = []
    influence: list[np.ndarray] = []
    prototypes: dict[str, FloatArray] = {}
    rule = shared_rule(predictors)
    graph = None if rule is None else graph_of(bag, rule)
    for place, predictor in enumerate(predictors):
        with torch.no_grad(), use_threads(threads_for(bag.n_patches)):
            bags = predictor.prepare(bag, graph)
            for number, network in enumerate(predictor.members):
                found = reasons(network, bags) if isinstance(network, Student) else None
                out = network(bags) if found is None else found.output
                votes.append(_numbers(network.outcome.predict(out.scores)[0]))
                if out.attention is not None:
                    attention.append(_numbers(out.attention))
                if found is not None:
                    influence.append(_numbers(found.influence))
                    if predictor.card.shared_memory and out.evidence is not None:
                        evidence.append(_numbers(out.evidence))
                    if place == 0 and number == member:
                        prototypes = _told(found, predictor)
    if not attention and not influence:
        raise StudentError(
            f"{first.card.model.name} weighs all patches alike, so there is nothing to draw; explain a run of momkd or "
            "of a method with attention"
        )
    mean = np.mean(influence, axis=0) if influence else np.empty((bag.n_patches, 0))
    return SlideReasons(
        SlidePrediction(bag.slide_id, np.mean(votes, axis=0), low=np.min(votes, axis=0), high=np.max(votes, axis=0)),
        {name: mean[:, i] for i, name in enumerate(columns_of(first))} if influence else {},
        np.mean(attention, axis=0) if attention else None,
        np.mean(evidence, axis=0) if evidence else None,
        prototypes,
    )


def _told(found: Reasons, predictor: StudentPredictor) -> dict[str, FloatArray]:
    return {
        name: _numbers(cosines)
        for name, cosines in found.prototypes.items()
        if name != MEMORY or predictor.card.shared_memory
    }


def _numbers(values: torch.Tensor) -> np.ndarray:
    return np.asarray(values.double().cpu().numpy())
