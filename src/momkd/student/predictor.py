"""A student network with everything it needs to score a bag: normaliser, graph rule, classes, threshold."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from momkd.errors import StudentError
from momkd.experiment import ModelSettings, TaskSettings
from momkd.models.graph import Graph
from momkd.models.method import SlideModel
from momkd.models.outcome import make_outcome
from momkd.models.packed import PackedBags
from momkd.models.registry import make_student
from momkd.slides.bag import Bag
from momkd.slides.graph import bag_edges
from momkd.slides.normalize import Kind, Normalizer
from momkd.student.threads import threads_for, use_threads

FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True)
class FeatureGeometry:
    """The features that a student was trained on: width D, encoder name, patch size in level-0 px, µm per px."""

    width: int
    encoder: str | None = None
    patch_size_level0: float | None = None
    mpp: float | None = None


@dataclass(frozen=True)
class StudentCard:
    """What ``student.json`` says: enough to rebuild its networks and to judge whether features fit them.

    ``members``: how many networks vote; ``programmes``: the omics tables whose programme memories they hold.
    ``threshold`` (two classes; chosen on validation patients) is on the probability of the last class. ``validation``
    holds metrics on the validation patients; test metrics belong to the run, since a student must not depend on test
    data. ``shared_memory``: RNA or slides have taught the class-conditional memory, so that its codes mean something.
    ``cohort`` describes who taught it: table, patients, slides, groups, patients of each class, patients with omics.
    """

    task: TaskSettings
    features: FeatureGeometry
    graph_k: int
    normalize: Kind
    model: ModelSettings
    threshold: float
    members: int = 1
    programmes: tuple[str, ...] = ()
    shared_memory: bool = False
    cohort: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, Any] = field(default_factory=dict)
    source: str = ""

    @property
    def label(self) -> str:
        """What is predicted."""
        return self.task.label

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes; none for a value or a risk."""
        return self.task.classes

    @property
    def intended_use(self) -> str:
        """What a student is for, in words a person can be held to."""
        known = self.features
        parts = [f"features of {known.encoder or 'an unnamed encoder'}"]
        parts += [f"patches of {known.patch_size_level0:g} level-0 px"] if known.patch_size_level0 else []
        parts += [f"{known.mpp:g} µm per level-0 px"] if known.mpp else []
        return (
            f"Research use: {self.label} of patients like those who taught it, from {', '.join(parts)}. Not a medical "
            "device; judge it on patients of your own before you rely on it."
        )

    def network(self) -> SlideModel:
        """One member, with weights yet to be loaded."""
        return make_student(self.features.width, make_outcome(self.task), self.model, self.programmes)


@dataclass(frozen=True, eq=False)
class SlidePrediction:
    """What a student says of one slide.

    ``values``: class probabilities (classes,), or one number, the value or the risk; per patch ``attention`` and
    ``evidence`` (P,), None where the method has none.
    """

    slide_id: str
    values: FloatArray
    attention: FloatArray | None = None
    evidence: FloatArray | None = None


def graph_of(bag: Bag, k: int) -> Graph:
    """The graph of a bag by a student's rule; raises FeatureFileError as ``bag_edges`` does."""
    return Graph.from_edges(torch.from_numpy(bag_edges(bag, k)), bag.n_patches)


def shared_rule(students: Sequence[StudentPredictor]) -> int | None:
    """The graph rule of several students, which may then share a bag's graph; None where they do not agree."""
    rules = {student.card.graph_k for student in students}
    return rules.pop() if len(rules) == 1 else None


class StudentPredictor:
    """Scores bags from histology alone, on one device, in eval mode: the mean of what its member networks say."""

    def __init__(self, members: Sequence[SlideModel], normalizer: Normalizer, card: StudentCard) -> None:
        self.members = [member.eval().requires_grad_(False) for member in members]
        self.normalizer = normalizer
        self.card = card

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return next(self.members[0].parameters()).device

    def prepare(self, bag: Bag, graph: Graph | None = None) -> PackedBags:
        """Normalise a bag and give it its graph; students of one graph rule may share the ``graph`` of ``graph_of``.

        Raises StudentError when the bag has another width or comes from another encoder.
        """
        self.check(bag)
        features = torch.from_numpy(self.normalizer.transform(bag.features))
        return PackedBags.pack([features], [graph_of(bag, self.card.graph_k) if graph is None else graph]).to(
            self.device
        )

    def check(self, bag: Bag) -> None:
        """Refuse features that this student was not trained on."""
        expected = self.card.features
        if bag.width != expected.width:
            raise StudentError(
                f"{bag.source}: slide {bag.slide_id} has features of width {bag.width}, this student was trained on "
                f"width {expected.width}; extract them with the same encoder"
                + (f" ({expected.encoder})" if expected.encoder else "")
            )
        if expected.encoder and bag.encoder and bag.encoder.casefold() != expected.encoder.casefold():
            raise StudentError(
                f"{bag.source}: slide {bag.slide_id} has features of encoder {bag.encoder!r}, this student was "
                f"trained on {expected.encoder!r}; extract them with that encoder"
            )

    def predict(self, bag: Bag, graph: Graph | None = None) -> SlidePrediction:
        """Score one slide; the same bytes whatever ran before and whatever runs beside."""
        return self.score(bag.slide_id, self.prepare(bag, graph))

    def score(self, slide_id: str, bags: PackedBags) -> SlidePrediction:
        """Score one slide that is prepared: normalised, with its graph, on the device."""
        with torch.inference_mode(), use_threads(threads_for(len(bags.features))):
            outputs = [member(bags) for member in self.members]
            votes = [member.outcome.predict(out.scores)[0] for member, out in zip(self.members, outputs, strict=True)]
        return SlidePrediction(
            slide_id,
            _mean(votes),
            _mean_where_known([out.attention for out in outputs]),
            _mean_where_known([out.evidence for out in outputs]),
        )

    def digest(self) -> str:
        """SHA-256 of all that decides what it says: weights, normaliser, card."""
        found = hashlib.sha256(repr(self.card).encode())
        for member in self.members:
            for name, value in sorted(member.state_dict().items()):
                found.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        for name, array in sorted(self.normalizer.arrays().items()):
            found.update(name.encode() + np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    def member(self, number: int) -> StudentPredictor:
        """One member alone."""
        card = dataclasses.replace(self.card, members=1)
        return StudentPredictor([self.members[number]], self.normalizer, card)


def _mean(votes: Sequence[torch.Tensor]) -> FloatArray:
    mean: FloatArray = (votes[0] if len(votes) == 1 else torch.stack(list(votes)).mean(0)).cpu().numpy()
    return mean


def _mean_where_known(rows: Sequence[torch.Tensor | None]) -> FloatArray | None:
    known = [row for row in rows if row is not None]
    return _mean(known) if known else None
