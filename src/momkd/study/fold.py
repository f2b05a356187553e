"""One fold from patients to files: prepare, fit, export the student, score validation and test from histology alone."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
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
from momkd.study.tables import patient_table, slide_table
from momkd.training.fit import fit
from momkd.training.prepare import Roles, prepare_fold, samples_of
from momkd.training.samples import Sample
from momkd.training.seeds import derive_seed


def run_fold(
    cohort: CohortData, experiment: Experiment, run: RunFolder, fold: FoldId, roles: Roles, watch: Watcher
) -> None:
    """Train one fold and leave its folder complete; fold.json is written last.

    The test patients are looked at once, after the student is on disk.
    """
    folder = run.fold(fold)
    epochs = experiment.train.epochs
    watch(Event("started", fold.repeat, fold.fold, epochs=epochs))
    prepared = prepare_fold(cohort, roles, experiment)
    if prepared.genes is not None:
        write_csv(folder / "genes.csv", prepared.genes)

    def on_epoch(row: dict[str, float]) -> None:
        watch(Event("epoch", fold.repeat, fold.fold, int(row["epoch"]), epochs, row["val_auc"]))

    seed = derive_seed(experiment.train.seed, "fold", fold.repeat, fold.fold) % (1 << 31)
    result = fit(
        prepared.data,
        experiment.model,
        experiment.train.model_copy(update={"seed": seed}),
        resume_file=folder / "resume" / "state.safetensors",
        on_epoch=on_epoch,
    )
    write_csv(folder / "history.csv", pd.DataFrame(result.history))
    card = StudentCard(
        label=experiment.task.label,
        classes=cohort.cohort.classes,
        features=geometry(cohort, prepared.data.train),
        graph_k=experiment.graph.k,
        normalize=experiment.features.normalize,
        model=experiment.model,
        threshold=0.5,
        source=f"{fold.name}, {len(roles.train)} training patients"
        + ("" if prepared.genes is None else f", taught by {len(prepared.genes)} genes"),
    )
    predictor = StudentPredictor(result.model.student, prepared.normalizer, card)
    val = score_samples(predictor, cohort, prepared.data.val)
    predictor.card = _with_validation(card, patient_table(val, card.classes))
    save_student(predictor, folder / "student")

    test = score_samples(predictor, cohort, samples_of(cohort, roles.test))
    slides = pd.concat([val.assign(role="val"), test.assign(role="test")] if len(test) else [val.assign(role="val")])
    _write_predictions(folder, fold, slides, card.classes)
    shutil.rmtree(folder / "resume", ignore_errors=True)
    summary = {
        "repeat": fold.repeat,
        "fold": fold.fold,
        "best_epoch": result.best_epoch,
        "epochs": len(result.history),
        "threshold": predictor.card.threshold,
        "seconds": round(result.seconds, 3),
    }
    write_json(folder / "fold.json", summary)
    watch(Event("done", fold.repeat, fold.fold, len(result.history), epochs, predictor.card.validation["auc"]))


def score_samples(predictor: StudentPredictor, cohort: CohortData, samples: Sequence[Sample]) -> pd.DataFrame:
    """Slide table of labelled slides, scored one at a time from histology."""
    predictions = [predictor.predict(cohort.bag(sample.slide_id)) for sample in samples]
    table = slide_table([sample.patient_id for sample in samples], predictions, predictor.card.classes)
    table.insert(2, "label", [predictor.card.classes[sample.label] for sample in samples])
    return table


def _with_validation(card: StudentCard, patients: pd.DataFrame) -> StudentCard:
    """The card with the threshold and the metrics that the validation patients give."""
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
