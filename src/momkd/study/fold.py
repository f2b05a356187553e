"""One fold from patients to files: prepare, fit, export the student, score validation and test from histology alone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from momkd.cohort.dataset import CohortData
from momkd.experiment import Experiment
from momkd.files import write_json
from momkd.student.threads import use_blas_threads
from momkd.study.events import Event, Watcher
from momkd.study.fold_memory import write_memory
from momkd.study.fold_model import FoldModel, Member
from momkd.study.run_folder import FoldId, RunFolder, write_csv
from momkd.study.tables import patient_table
from momkd.training.fit import fit
from momkd.training.judge import score_name
from momkd.training.members import member_roles
from momkd.training.prepare import Roles, fit_normalizer, prepare_bags, prepare_fit, samples_of
from momkd.training.ranks import current
from momkd.training.schedule import epochs_of
from momkd.training.seeds import derive_seed


def run_fold(
    cohort: CohortData, experiment: Experiment, run: RunFolder, fold: FoldId, roles: Roles, watch: Watcher
) -> None:
    """Train the members of one fold and leave its folder complete; fold.json is written last.

    The test patients are looked at once, after the student is on disk.
    """
    with use_blas_threads(1):
        _run_fold(cohort, experiment, run, fold, roles, watch)


def _run_fold(
    cohort: CohortData, experiment: Experiment, run: RunFolder, fold: FoldId, roles: Roles, watch: Watcher
) -> None:
    folder, train = run.fold(fold), experiment.train
    seed = derive_seed(train.seed, "fold", fold.repeat, fold.fold) % (1 << 31)
    members = member_roles(cohort, roles, train.members, seed)
    fitted_on = roles.train if len(members) == 1 else roles.train + roles.val
    normalizer = fit_normalizer(cohort, fitted_on, experiment)
    bags = prepare_bags(cohort, normalizer, experiment)
    fits: list[Member] = []
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
        fits.append(Member(own, data, genes, result))
    if not current().first:
        return
    _write_member_tables(folder, fits)
    write_memory(folder, fits[0].result.model, fits[0].data)
    model = FoldModel(cohort, experiment, fold.name, fits, normalizer)
    val = model.score_left_out()
    card = model.judge(patient_table(val, experiment.task.classes))
    model.save(folder / "student")
    tested = samples_of(cohort, roles.test)
    started = time.monotonic()
    test = model.score(tested)
    inference = time.monotonic() - started
    slides = pd.concat([val.assign(role="val"), test.assign(role="test")] if len(test) else [val.assign(role="val")])
    _write_predictions(folder, fold, slides, card.classes)
    shutil.rmtree(folder / "resume", ignore_errors=True)
    history, epochs_made = fits[-1].result.history, sum(len(one.result.history) for one in fits)
    summary = {
        "repeat": fold.repeat,
        "fold": fold.fold,
        "members": len(fits),
        "best_epoch": fits[-1].result.best_epoch,
        "epochs": epochs_made,
        "threshold": card.threshold,
        "seconds": round(sum(one.result.seconds for one in fits), 3),
        "parameters": sum(p.numel() for p in fits[0].result.model.student.parameters()),
        "inference_ms": round(1000 * inference / len(tested), 3) if tested else None,
    }
    write_json(folder / "fold.json", summary)
    score = card.validation.get("auc", history[-1][score_name(experiment.task)])
    watch(Event("done", fold.repeat, fold.fold, epochs_made, epochs_made, score))


def _write_member_tables(folder: Path, fits: Sequence[Member]) -> None:
    """history.csv and genes.csv; with several members, their number is the first column."""
    histories = [pd.DataFrame(one.result.history) for one in fits]
    genes = [one.genes for one in fits if one.genes is not None]
    for name, tables in (("history.csv", histories), ("genes.csv", genes)):
        if len(tables) > 1:
            for number, table in enumerate(tables):
                table.insert(0, "member", number)
        if tables:
            write_csv(folder / name, pd.concat(tables, ignore_index=True))


def _write_predictions(folder: Path, fold: FoldId, slides: pd.DataFrame, classes: Sequence[str]) -> None:
    for frame, name in ((slides, "slides.csv"), (patient_table(slides, classes), "predictions.csv")):
        frame = frame.copy()
        frame.insert(0, "repeat", fold.repeat)
        frame.insert(1, "fold", fold.fold)
        frame.insert(2, "role", frame.pop("role"))
        write_csv(folder / name, frame)
