"""What a fold has trained, as one thing that scores slides: a student, or for upper bounds the networks themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from momkd.cohort.dataset import CohortData
from momkd.evaluation.metrics import binary_metrics
from momkd.evaluation.threshold import MaxF1Threshold
from momkd.experiment import Experiment, teaches
from momkd.models.method import SlideModel
from momkd.models.packed import PackedBags
from momkd.models.student import Student
from momkd.slides.normalize import Normalizer
from momkd.student.folder import save_student
from momkd.student.predictor import (
    FeatureGeometry,
    SlidePrediction,
    StudentCard,
    StudentPredictor,
    agreed_patch_um,
)
from momkd.study.tables import observed_table, slide_table
from momkd.training.fit import FitResult, score
from momkd.training.prepare import Roles
from momkd.training.samples import BagCache, FitData, Sample


@dataclass(frozen=True, eq=False)
class Member:
    """A network of a fold: who trained it, on what, and what came of it."""

    roles: Roles
    data: FitData
    genes: pd.DataFrame | None
    result: FitResult


class FoldModel:
    """The members of a fold and what their student's card says.

    A student scores each slide alone and from histology. An upper bound is given the omics of the patient too, so there
    is nothing to save: its members score, and a patient without omics counts as the average profile.
    """

    def __init__(
        self, cohort: CohortData, experiment: Experiment, name: str, fits: Sequence[Member], normalizer: Normalizer
    ) -> None:
        self.cohort, self.fits, self.task = cohort, fits, experiment.task
        self.card = _card(cohort, experiment, name, fits)
        students = [one.result.model.student for one in fits]
        networks = [student for student in students if isinstance(student, SlideModel)]
        self.student = StudentPredictor(networks, normalizer, self.card) if len(networks) == len(fits) else None

    def score(self, samples: Sequence[Sample]) -> pd.DataFrame:
        """Slide table of labelled slides, by all members together."""
        return self._table(samples, range(len(self.fits)))

    def score_left_out(self) -> pd.DataFrame:
        """Slide table of every validation patient, by the member that left it out.

        Its slides are taken as the fit prepared them, which is what the student's normaliser and graph rule give.
        """
        tables = [self._table(one.data.val, [m], self.fits[0].data.bags) for m, one in enumerate(self.fits)]
        return pd.concat(tables, ignore_index=True).sort_values("patient_id", kind="stable")

    def judge(self, patients: pd.DataFrame) -> StudentCard:
        """Put on the card the threshold and the metrics that the validation patients give, for two classes."""
        self.card = _with_validation(self.card, patients)
        if self.student is not None:
            self.student.card = self.card
        return self.card

    def save(self, folder: Path) -> None:
        """Write the student folder; an upper bound leaves none."""
        if self.student is not None:
            save_student(self.student, folder)

    def _table(
        self, samples: Sequence[Sample], members: Sequence[int], prepared: BagCache | None = None
    ) -> pd.DataFrame:
        if self.student is None:
            predictions = _with_omics([self.fits[m] for m in members], samples)
        else:
            student = self.student if len(members) == len(self.fits) else self.student.member(members[0])
            predictions = [self._predict(student, sample.slide_id, prepared) for sample in samples]
        patients = [sample.patient_id for sample in samples]
        table = slide_table(patients, predictions, self.task)
        observed = observed_table(self.task, patients, self.cohort.labels, self.cohort.values)
        for place, name in enumerate(observed.columns, start=2):
            table.insert(place, name, observed[name].to_numpy())
        return table

    def _predict(self, student: StudentPredictor, slide_id: str, prepared: BagCache | None) -> SlidePrediction:
        if prepared is None:
            return student.predict(self.cohort.bag(slide_id))
        bag = prepared[slide_id]
        return student.score(slide_id, PackedBags.pack([bag.features], [bag.graph]).to(student.device))


def _with_omics(fits: Sequence[Member], samples: Sequence[Sample]) -> list[SlidePrediction]:
    votes = []
    for one in fits:
        scores = torch.from_numpy(score(one.result.model, samples, one.data, torch.device("cpu")))
        with torch.inference_mode():
            votes.append(one.result.model.student.outcome.predict(scores).double().numpy())
    mean = np.mean(votes, axis=0)
    return [SlidePrediction(sample.slide_id, values) for sample, values in zip(samples, mean, strict=True)]


def _card(cohort: CohortData, experiment: Experiment, name: str, fits: Sequence[Member]) -> StudentCard:
    patients = {patient for one in fits for patient in one.roles.train}
    taught = {(table, gene) for one in fits for table, rows in one.data.tables.items() for gene in rows.genes}
    samples = sorted({sample for one in fits for sample in one.data.train}, key=lambda sample: sample.slide_id)
    student = fits[0].result.model.student
    return StudentCard(
        task=experiment.task,
        features=geometry(cohort, samples),
        graph_k=experiment.graph.k,
        normalize=experiment.features.normalize,
        model=experiment.model,
        threshold=0.5,
        members=len(fits),
        programmes=tuple(student.programmes) if isinstance(student, Student) else (),
        shared_memory=isinstance(student, Student) and bool(taught) and teaches(experiment.model.loss),
        cohort=_described(
            cohort, experiment, sorted(patients), samples, {patient for one in fits for patient in _paired(one)}
        ),
        source=f"{name}, {len(patients)} training patients" + (f", taught by {len(taught)} genes" if taught else ""),
    )


def _paired(one: Member) -> set[str]:
    return {patient for rows in one.data.tables.values() for patient in rows.rows.row}


def _described(
    cohort: CohortData, experiment: Experiment, patients: Sequence[str], samples: Sequence[Sample], paired: set[str]
) -> dict[str, Any]:
    """Who taught a student: no patient is named."""
    rows = cohort.cohort.among(patients)
    told: dict[str, Any] = {
        "table": experiment.cohort.table.name,
        "patients": len(patients),
        "with_omics": len(paired & set(patients)),
        "slides": len(samples),
    }
    if rows["group"].notna().all():
        told["groups"] = int(rows["group"].nunique())
    if experiment.task.categorical:
        counts = rows["label"].value_counts()
        told["classes"] = {name: int(counts.get(number, 0)) for number, name in enumerate(experiment.task.classes)}
    return told


def _with_validation(card: StudentCard, patients: pd.DataFrame) -> StudentCard:
    """The card with the threshold and the metrics that the validation patients give, for two classes."""
    if not card.task.binary:
        return dataclasses.replace(card, validation={"patients": len(patients)})
    positive = card.classes[-1]
    labels = (patients["label"] == positive).to_numpy().astype(np.int64)
    prob = patients[f"prob_{positive}"].to_numpy()
    threshold = float(MaxF1Threshold().fit(labels, prob).threshold_)
    metrics = binary_metrics(labels, prob, threshold)
    return dataclasses.replace(card, threshold=threshold, validation={"patients": len(patients), **metrics})


def geometry(cohort: CohortData, samples: Sequence[Sample]) -> FeatureGeometry:
    """What the training slides agree on about their features; None where they do not say or do not agree."""
    bags = [cohort.bag(sample.slide_id) for sample in samples]
    encoders = {bag.encoder for bag in bags}
    sizes = {bag.patch_size_level0 for bag in bags}
    mpps = {bag.mpp for bag in bags}
    return FeatureGeometry(
        cohort.width,
        encoders.pop() if len(encoders) == 1 else None,
        sizes.pop() if len(sizes) == 1 else None,
        mpps.pop() if len(mpps) == 1 else None,
        agreed_patch_um(bags),
    )
