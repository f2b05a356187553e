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
    """The features that a student was trained on; None where the training slides did not say, or did not agree.

    ``width`` D, ``encoder`` its name, ``patch_size_level0`` the side of a patch in level-0 pixels, ``mpp`` µm per
    level-0 pixel, ``patch_um`` the side of a patch in µm, on which scanners of 20× and 40× can agree.
    """

    width: int
    encoder: str | None = None
    patch_size_level0: float | None = None
    mpp: float | None = None
    patch_um: float | None = None

    def words(self) -> str:
        """What the features are, in words."""
        parts = [f"features of {self.encoder or 'an unnamed encoder'}"]
        if self.patch_um:
            parts.append(f"patches of {self.patch_um:.4g} µm")
        elif self.patch_size_level0:
            parts.append(f"patches of {self.patch_size_level0:g} level-0 px")
        parts += [f"{self.mpp:g} µm per level-0 px"] if self.mpp else []
        return ", ".join(parts)


# Scanners of one magnification differ by some percent in µm per pixel; the next magnification by a factor of two.
_SAME_SIZE = 0.15


def patch_um_of(bag: Bag) -> float | None:
    """The side of a bag's patches in µm, where the file says enough."""
    return None if bag.patch_size_level0 is None or bag.mpp is None else bag.patch_size_level0 * bag.mpp


def agreed_patch_um(bags: Sequence[Bag]) -> float | None:
    """The median side in µm of the patches of slides that agree on it; None where any does not say."""
    sizes = [patch_um_of(bag) for bag in bags]
    known = [size for size in sizes if size is not None]
    if not known or len(known) < len(sizes):
        return None
    middle = float(np.median(known))
    return middle if all(abs(size / middle - 1) <= _SAME_SIZE for size in known) else None


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
        return (
            f"Research use: {self.label} of patients like those who taught it, from {self.features.words()}. Not a "
            "medical device; judge it on patients of your own before you rely on it."
        )

    def network(self) -> SlideModel:
        """One member, with weights yet to be loaded."""
        return make_student(self.features.width, make_outcome(self.task), self.model, self.programmes)


@dataclass(frozen=True, eq=False)
class SlidePrediction:
    """What a student says of one slide.

    ``values``: class probabilities (classes,), or one number, the value or the risk; per patch ``attention`` and
    ``evidence`` (P,), None where the method has none. ``low`` and ``high``, shaped like ``values``: the lowest and
    highest vote of the networks whose mean it is; how far they disagree, not a confidence interval.
    """

    slide_id: str
    values: FloatArray
    attention: FloatArray | None = None
    evidence: FloatArray | None = None
    low: FloatArray | None = None
    high: FloatArray | None = None


def graph_of(bag: Bag, k: int) -> Graph:
    """The graph of a bag by a student's rule; raises FeatureFileError as ``bag_edges`` does."""
    return Graph.from_edges(torch.from_numpy(bag_edges(bag, k)), bag.n_patches)


def shared_rule(students: Sequence[StudentPredictor]) -> int | None:
    """The graph rule of several students, which may then share a bag's graph; None where they do not agree."""
    rules = {student.card.graph_k for student in students}
    return rules.pop() if len(rules) == 1 else None


class StudentPredictor:
    """Scores bags from histology alone, on one device, in eval mode: the mean of what its member networks say.

    ``force``: also score features of another encoder or patch size than those it was trained on.
    """

    def __init__(
        self, members: Sequence[SlideModel], normalizer: Normalizer, card: StudentCard, *, force: bool = False
    ) -> None:
        self.force = force
        self.members = [member.eval().requires_grad_(False) for member in members]
        self.normalizer = normalizer
        self.card = card

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return next(self.members[0].parameters()).device

    def prepare(self, bag: Bag, graph: Graph | None = None) -> PackedBags:
        """Normalise a bag and give it its graph; students of one graph rule may share the ``graph`` of ``graph_of``.

        Raises StudentError as ``check`` does.
        """
        self.check(bag)
        features = torch.from_numpy(self.normalizer.transform(bag.features))
        return PackedBags.pack([features], [graph_of(bag, self.card.graph_k) if graph is None else graph]).to(
            self.device
        )

    def check(self, bag: Bag) -> None:
        """Raise StudentError for features of another width and, unless forced, another encoder or patch size."""
        expected = self.card.features
        if bag.width != expected.width:
            raise StudentError(
                f"{bag.source}: slide {bag.slide_id} has features of width {bag.width}, this student was trained on "
                f"width {expected.width}; extract them with the same encoder"
                + (f" ({expected.encoder})" if expected.encoder else "")
            )
        if self.force:
            return
        if expected.encoder and bag.encoder and bag.encoder.casefold() != expected.encoder.casefold():
            raise StudentError(
                f"{bag.source}: slide {bag.slide_id} has features of encoder {bag.encoder!r}, this student was "
                f"trained on {expected.encoder!r}; extract them with that encoder, or force it (--force)"
            )
        self._check_patch_size(bag)

    def _check_patch_size(self, bag: Bag) -> None:
        expected, um, pixels = self.card.features, patch_um_of(bag), bag.patch_size_level0
        if expected.patch_um is not None and um is not None:
            found, wanted, unit = um, expected.patch_um, "µm"
        elif expected.patch_size_level0 is not None and pixels is not None and (um is None or expected.mpp is None):
            found, wanted, unit = pixels, expected.patch_size_level0, "level-0 px"
        else:
            return
        if abs(found / wanted - 1) > _SAME_SIZE:
            hint = "" if unit == "µm" else "; where µm per level-0 pixel is known (--slide-mpp), µm are compared"
            raise StudentError(
                f"{bag.source}: slide {bag.slide_id} has patches of {found:.4g} {unit}, this student was trained on "
                f"patches of {wanted:.4g} {unit}; extract them with that size, or force it (--force){hint}"
            )

    def predict(self, bag: Bag, graph: Graph | None = None) -> SlidePrediction:
        """Score one slide; the same bytes whatever ran before and whatever runs beside."""
        return self.score(bag.slide_id, self.prepare(bag, graph))

    def score(self, slide_id: str, bags: PackedBags) -> SlidePrediction:
        """Score one slide that is prepared: normalised, with its graph, on the device."""
        with torch.inference_mode(), use_threads(threads_for(len(bags.features))):
            outputs = [member(bags) for member in self.members]
            votes = [member.outcome.predict(out.scores)[0] for member, out in zip(self.members, outputs, strict=True)]
        every = torch.stack(votes)
        return SlidePrediction(
            slide_id,
            _mean(votes),
            _mean_where_known([out.attention for out in outputs]),
            _mean_where_known([out.evidence for out in outputs]),
            every.amin(0).cpu().numpy(),
            every.amax(0).cpu().numpy(),
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
        return StudentPredictor([self.members[number]], self.normalizer, card, force=self.force)


def _mean(votes: Sequence[torch.Tensor]) -> FloatArray:
    mean: FloatArray = (votes[0] if len(votes) == 1 else torch.stack(list(votes)).mean(0)).cpu().numpy()
    return mean


def _mean_where_known(rows: Sequence[torch.Tensor | None]) -> FloatArray | None:
    known = [row for row in rows if row is not None]
    return _mean(known) if known else None
