"""One fold from patients to files: prepare, fit, export the student, score validation and test from histology alone."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from momkd.cohort.dataset import CohortData
from momkd.evaluation.metrics import binary_metrics
from momkd.evaluation.threshold import MaxF1Threshold
from momkd.experiment import Experiment
from momkd.files import write_json
from momkd.student.folder import save_student
from momkd.student.predictor import FeatureGeometry, StudentCard, StudentPredictor
from momkd.study.events import Event, Watcher
from momkd.study.run_folder import FoldId, RunFolder, write_csv
from momkd.study.tables import observed_table, patient_table, slide_table
from momkd.training.fit import FitResult, fit
from momkd.training.judge import score_name
from momkd.training.members import member_roles
from momkd.training.prepare import Roles, fit_normalizer, prepare_bags, prepare_fit, samples_of
from momkd.training.samples import FitData, Sample
from momkd.training.schedule import epochs_of
from momkd.training.seeds import derive_seed


def run_fold(
    cohort: CohortData, experiment: Experiment, run: RunFolder, fold: FoldId, roles: Roles, watch: Watcher
) -> None:
    """Train the members of one fold and leave its folder complete; fold.json is written last.

    The test patients are looked at once, after the student is on disk.
    """
    folder, train = run.fold(fold), experiment.train
    seed = derive_seed(train.seed, "fold", fold.repeat, fold.fold) % (1 << 31)
    members = member_roles(cohort, roles, train.members, seed)
    fitted_on = roles.train if len(members) == 1 else roles.train + roles.val
    normalizer = fit_normalizer(cohort, fitted_on, experiment)
    bags = prepare_bags(cohort, normalizer, experiment)
    fits: list[_Member] = []
    for number, own in enumerate(members):
        member_seed = seed if number == 0 else derive_seed(seed, "member", number) % (1 << 31)
        data, genes = prepare_fit(cohort, own, experiment, bags, member_seed)
        epochs = epochs_of(train, len(data.train))
        if number == 0:
            watch(Event("started", fold.repeat, fold.fold, epochs=epochs * len(members)))

        def on_epoch(row: dict[str, float], before: int = epochs * number, all_of: int = epochs * len(members)) -> None:
            score = row[score_name(experiment.task)]
            watch(Event("epoch", fold.repeat, fold.fold, before + int(row["epoch"]), all_of, score))

        result = fit(
            data,
            experiment.model,
            train.model_copy(update={"seed": member_seed}),
            resume_file=folder / "resume" / f"member-{number}.safetensors",
            on_epoch=on_epoch,
        )
        fits.append(_Member(own, data, genes, result))
    _write_member_tables(folder, fits)
    predictor = StudentPredictor(
        [one.result.model.student for one in fits], normalizer, _card(cohort, experiment, fold, fits)
    )
    val = pd.concat(
        [score_samples(predictor.member(m), cohort, one.data.val) for m, one in enumerate(fits)], ignore_index=True
    ).sort_values("patient_id", kind="stable")
    predictor.card = _with_validation(predictor.card, patient_table(val, predictor.card.classes))
    save_student(predictor, folder / "student")

    test = score_samples(predictor, cohort, samples_of(cohort, roles.test))
    slides = pd.concat([val.assign(role="val"), test.assign(role="test")] if len(test) else [val.assign(role="val")])
    _write_predictions(folder, fold, slides, predictor.card.classes)
    shutil.rmtree(folder / "resume", ignore_errors=True)
    history, epochs_made = fits[-1].result.history, sum(len(one.result.history) for one in fits)
    summary = {
        "repeat": fold.repeat,
        "fold": fold.fold,
        "members": len(fits),
        "best_epoch": fits[-1].result.best_epoch,
        "epochs": epochs_made,
        "threshold": predictor.card.threshold,
        "seconds": round(sum(one.result.seconds for one in fits), 3),
    }
    write_json(folder / "fold.json", summary)
    score = predictor.card.validation.get("auc", history[-1][score_name(experiment.task)])
    watch(Event("done", fold.repeat, fold.fold, epochs_made, epochs_made, score))


@dataclass(frozen=True, eq=False)
class _Member:
    """A network of a fold: who trained it, on what, and what came of it."""

    roles: Roles
    data: FitData
    genes: pd.DataFrame | None
    result: FitResult


def _card(cohort: CohortData, experiment: Experiment, fold: FoldId, fits: Sequence[_Member]) -> StudentCard:
    patients = {patient for one in fits for patient in one.roles.train}
    taught = sorted({gene for one in fits for table in one.data.tables.values() for gene in table.genes})
    samples = sorted({sample for one in fits for sample in one.data.train}, key=lambda sample: sample.slide_id)
    return StudentCard(
        task=experiment.task,
        features=geometry(cohort, samples),
        graph_k=experiment.graph.k,
        normalize=experiment.features.normalize,
        model=experiment.model,
        threshold=0.5,
        members=len(fits),
        programmes=tuple(fits[0].result.model.student.programmes),
        source=f"{fold.name}, {len(patients)} training patients"
        + (f", taught by {len(taught)} genes" if taught else ""),
    )


def _write_member_tables(folder: Path, fits: Sequence[_Member]) -> None:
    """history.csv and genes.csv; with several members, their number is the first column."""
    histories = [pd.DataFrame(one.result.history) for one in fits]
    genes = [one.genes for one in fits if one.genes is not None]
    for name, tables in (("history.csv", histories), ("genes.csv", genes)):
        if len(tables) > 1:
            for number, table in enumerate(tables):
                table.insert(0, "member", number)
        if tables:
            write_csv(folder / name, pd.concat(tables, ignore_index=True))


def score_samples(predictor: StudentPredictor, cohort: CohortData, samples: Sequence[Sample]) -> pd.DataFrame:
    """Slide table of labelled slides, scored one at a time from histology."""
    task, patients = predictor.card.task, [sample.patient_id for sample in samples]
    predictions = [predictor.predict(cohort.bag(sample.slide_id)) for sample in samples]
    table = slide_table(patients, predictions, task)
    observed = observed_table(task, patients, cohort.labels, cohort.values)
    for place, name in enumerate(observed.columns, start=2):
        table.insert(place, name, observed[name].to_numpy())
    return table


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
    )


def _write_predictions(folder: Path, fold: FoldId, slides: pd.DataFrame, classes: Sequence[str]) -> None:
    for frame, name in ((slides, "slides.csv"), (patient_table(slides, classes), "predictions.csv")):
        frame = frame.copy()
        frame.insert(0, "repeat", fold.repeat)
        frame.insert(1, "fold", fold.fold)
        frame.insert(2, "role", frame.pop("role"))
        write_csv(folder / name, frame)
