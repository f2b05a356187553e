"""A student network with everything it needs to score a bag: normaliser, graph rule, classes, threshold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from momkd.errors import StudentError
from momkd.experiment import ModelSettings
from momkd.models.momkd import Student
from momkd.models.packed import PackedBags
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
    """What ``student.json`` says: enough to rebuild the network and to judge whether features fit it.

    ``threshold`` (chosen on validation patients) is on the probability of the last class. ``validation`` holds
    metrics on the validation patients; test metrics belong to the run, since a student must not depend on test data.
    """

    label: str
    classes: tuple[str, ...]
    features: FeatureGeometry
    graph_k: int
    normalize: Kind
    model: ModelSettings
    threshold: float
    validation: dict[str, Any] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True, eq=False)
class SlidePrediction:
    """What a student says of one slide: ``prob`` (classes,), and per patch ``attention`` and ``evidence`` (P,)."""

    slide_id: str
    prob: FloatArray
    attention: FloatArray
    evidence: FloatArray


class StudentPredictor:
    """Scores bags from histology alone, on one device, in eval mode."""

    def __init__(self, network: Student, normalizer: Normalizer, card: StudentCard) -> None:
        self.network = network.eval().requires_grad_(False)
        self.normalizer = normalizer
        self.card = card

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return self.network.log_temperature.device

    def prepare(self, bag: Bag) -> PackedBags:
        """Normalise a bag and give it its graph.

        Raises StudentError when the bag has another width or comes from another encoder.
        """
        self.check(bag)
        features = torch.from_numpy(self.normalizer.transform(bag.features))
        edges = torch.from_numpy(bag_edges(bag, self.card.graph_k))
        return PackedBags.pack([features], [edges]).to(self.device)

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

    def predict(self, bag: Bag) -> SlidePrediction:
        """Score one slide; the same bytes whatever ran before and whatever runs beside."""
        with torch.inference_mode(), use_threads(threads_for(bag.n_patches)):
            out = self.network(self.prepare(bag))
            prob = torch.softmax(out.logits, dim=-1)[0]
        return SlidePrediction(
            bag.slide_id, prob.cpu().numpy(), out.attention.cpu().numpy(), out.evidence.cpu().numpy()
        )
