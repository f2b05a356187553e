"""Prediction from histology alone, by one student or by all students of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from momkd.errors import FeatureFileError, StudentError, summarise
from momkd.models.graph import Graph
from momkd.parallel import Place, chunks, run_tasks
from momkd.slides.bag import Bag
from momkd.slides.folders import given_features
from momkd.slides.mpp import SlideMpp
from momkd.slides.readers import bag_digest, read_bag
from momkd.slides.remote import FeatureFile
from momkd.student import SlidePrediction, StudentCard, StudentPredictor, load_student
from momkd.student.predictor import graph_of, shared_rule
from momkd.study.run_folder import RunFolder
from momkd.study.tables import class_of, patient_table, predicted_class, slide_table
from momkd.training.prefetch import ahead

FloatArray = npt.NDArray[np.floating]
# Into so many tasks the slides are divided for a cluster: each loads the model once.
_SHARDS = 64


class Ensemble:
    """One student or several, of the folder ``source``, that vote with their mean; so is the threshold a mean.

    Raises StudentError when they were made for different tasks.
    """

    def __init__(self, students: Sequence[StudentPredictor], source: Path) -> None:
        first = students[0].card
        for student in students:
            card = student.card
            if card.task.model_dump(exclude={"map"}) != first.task.model_dump(exclude={"map"}):
                raise StudentError(
                    f"{source}: students of different tasks cannot vote: {_told(first)}; {_told(card)}; "
                    "give the run that each fold belongs to, or one fold"
                )
        self.students = tuple(students)
        self.task, self.classes, self.label = first.task, first.classes, first.label
        self.graph_k = shared_rule(students)
        self.threshold = float(np.mean([student.card.threshold for student in students]))

    def predict(self, bag: Bag, graph: Graph | None = None) -> SlidePrediction:
        """Mean and range of class probabilities, mean attention and evidence; students share one ``graph``."""
        if graph is None and self.graph_k is not None:
            graph = graph_of(bag, self.graph_k)
        votes = [student.predict(bag, graph) for student in self.students]

        def mean(rows: Sequence[FloatArray | None]) -> FloatArray | None:
            known = [row for row in rows if row is not None]
            return np.asarray(np.mean(known, axis=0, dtype=np.float64)) if known else None

        return SlidePrediction(
            bag.slide_id,
            np.mean([vote.values for vote in votes], axis=0, dtype=np.float64),
            mean([vote.attention for vote in votes]),
            mean([vote.evidence for vote in votes]),
            np.min([vote.low for vote in votes if vote.low is not None], axis=0),
            np.max([vote.high for vote in votes if vote.high is not None], axis=0),
        )

    def predicted(self, values: FloatArray) -> str | None:
        """The class that mean probabilities speak for; None for a value or a risk."""
        return class_of(values, self.threshold, self.classes) if self.classes else None


def _told(card: StudentCard) -> str:
    task = card.task.model_dump(mode="json", include={"type", "label", "event", "classes", "bins"})
    return f"{card.source.split(',')[0]} predicts {', '.join(f'{k} {v}' for k, v in task.items() if v)}"


def load_model(path: Path, device: str = "cpu", *, force: bool = False) -> Ensemble:
    """Load a RUN (all its folds vote), a fold folder, or a student folder; ``force`` as in ``load_student``.

    Raises StudentError when the path is none of them or a run leaves no students, RunError when it is unfinished.
    """
    path = Path(path)
    if (path / "student.json").is_file():
        return Ensemble([load_student(path, device, force=force)], path)
    if (path / "student" / "student.json").is_file():
        return Ensemble([load_student(path / "student", device, force=force)], path)
    if (path / "experiment.yaml").is_file():
        run = RunFolder(path)
        folders = [run.fold(fold) / "student" for fold in run.done_folds()]
        if not any(folder.is_dir() for folder in folders):
            name = run.experiment().model.name
            raise StudentError(
                f"{path}: its folds hold no student, because {name} (model.name) is shown the omics of the patients "
                "that it scores; give a run of a method that predicts from slides alone"
            )
        return Ensemble([load_student(folder, device, force=force) for folder in folders], path)
    raise StudentError(f"{path}: found neither a run, a fold nor a student folder (student.json)")


def feature_files(sources: Sequence[str | Path]) -> dict[str, FeatureFile]:
    """Feature files by slide id, from files and folders, here or behind a URL; a slide given twice is an error."""
    found: dict[str, FeatureFile] = {}
    for source in sources:
        files = {file.stem: file for file in given_features(source)[0]}
        twice = sorted(set(files) & set(found))
        if twice:
            raise FeatureFileError(f"{source}: slides given twice: {summarise(twice)}")
        found |= files
    return found


@dataclass(frozen=True, eq=False)
class _Slide:
    """A slide that was read, or why it was not."""

    slide_id: str
    bag: Bag
    graph: Graph | None
    digest: str
    error: FeatureFileError | None = None


@dataclass(frozen=True, eq=False)
class Scored:
    """A slide's prediction, or why there is none; ``digest`` of its contents where patients have several slides."""

    slide_id: str
    digest: str = ""
    prediction: SlidePrediction | None = None
    problem: str = ""


@dataclass(frozen=True)
class _Scoring:
    """What it takes to score files, wherever that is."""

    model: Path
    slide_mpp: SlideMpp
    device: str
    force: bool
    digests: bool

    def load(self) -> tuple[_Scoring, Ensemble]:
        return self, load_model(self.model, self.device, force=self.force)


def _read(files: Sequence[tuple[str, FeatureFile]], scoring: _Scoring, k: int | None) -> Iterator[_Slide]:
    nothing = Bag("", np.empty((0, 0), np.float32), None, None, None, None)
    for slide_id, path in files:
        try:
            bag = read_bag(path, slide_mpp=scoring.slide_mpp)
            graph = None if k is None else graph_of(bag, k)
            yield _Slide(slide_id, bag, graph, bag_digest(bag) if scoring.digests else "")
        except FeatureFileError as error:
            yield _Slide(slide_id, nothing, None, "", error)


def _score(
    context: tuple[_Scoring, Ensemble], files: Sequence[tuple[str, FeatureFile]], tell: Callable[[Any], None]
) -> None:
    """Score some files; a thread reads the next slides and finds their neighbours while the networks compute."""
    scoring, ensemble = context
    with closing(ahead(_read(files, scoring, ensemble.graph_k))) as reading:
        for one in reading:
            try:
                if one.error is not None:
                    raise one.error
                # Tables hold no patches, and those of ten thousand slides would fill the memory.
                found = replace(ensemble.predict(one.bag, one.graph), attention=None, evidence=None)
                tell(Scored(one.slide_id, one.digest, found))
            except (FeatureFileError, StudentError) as error:
                tell(Scored(one.slide_id, problem=str(error)))


def predict(
    model: Path,
    sources: Sequence[str | Path],
    *,
    patients: Mapping[str, str] | None = None,
    slide_mpp: SlideMpp = None,
    device: str = "cpu",
    force: bool = False,
    place: Place | None = None,
    on_slide: Callable[[str], None] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score feature files, or all of folders, here or behind a URL: (slides, patients) tables, no RNA anywhere.

    ``patients`` maps slide ids to patients; without it every slide is its own patient. ``force``: score features of
    another encoder or patch size as well. ``place``: where slides are scored (default: this process). Both tables end
    in ``predicted``: of two classes by the threshold that the validation patients chose, of more the most probable one.
    Raises FeatureFileError listing every file that cannot be read.
    """
    scoring = _Scoring(Path(model), slide_mpp, device, force, digests=patients is not None)
    ensemble = load_model(model, device, force=force)
    files = sorted(feature_files(sources).items())
    unknown = [slide for slide, _ in files if slide not in patients] if patients is not None else []
    if unknown:
        raise StudentError(f"{len(unknown)} slides have no patient in the table: {summarise(unknown)}")
    scored: list[Scored] = []

    def take(one: Scored) -> None:
        scored.append(one)
        if on_slide is not None:
            on_slide(one.slide_id)

    if place is None or not place.ray:
        _score((scoring, ensemble), files, take)
    else:
        run_tasks(chunks(files, _SHARDS), scoring.load, _score, place=place, workers=1, watch=take)
    failures = [f"  - {one.problem}" for one in sorted(scored, key=lambda one: one.slide_id) if one.problem]
    if failures:
        raise FeatureFileError("\n".join([f"{len(failures)} of {len(files)} slides cannot be scored:", *failures]))
    rows = [
        (one.slide_id if patients is None else patients[one.slide_id], one.digest, one.prediction)
        for one in scored
        if one.prediction is not None
    ]
    # A patient's slides are averaged in the order of their contents, so that their names change nothing.
    rows.sort(key=lambda row: (row[0], row[1], row[2].slide_id))
    slides = slide_table([row[0] for row in rows], [row[2] for row in rows], ensemble.task)
    by_patient = patient_table(slides, ensemble.classes)
    for table in (slides, by_patient):
        if ensemble.classes:
            table["predicted"] = predicted_class(table, ensemble.threshold, ensemble.classes)
    return slides, by_patient
