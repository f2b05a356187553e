"""The verbs that train, judge and predict."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import typer

from momkd.cli.progress import StudyProgress
from momkd.cli.render import console, show_metrics, show_problems, show_table
from momkd.errors import CohortError, Problem, raise_problems, summarise
from momkd.experiment import Experiment
from momkd.files import read_json
from momkd.parallel import Place
from momkd.report.curves import draw_run
from momkd.report.taught import taught
from momkd.slides.mpp import read_slide_mpp
from momkd.study.checkpoint import import_checkpoint
from momkd.study.crossval import StudyResult, crossval, fit_final
from momkd.study.external import evaluate
from momkd.study.predict import predict
from momkd.study.reproduce import reproduce
from momkd.study.run_folder import RunFolder, write_csv
from momkd.training.judge import score_words


def do_crossval(experiment: Experiment, out: Path, workers: int | None, place: Place | None = None) -> StudyResult:
    """Cross-validate with progress bars, draw the curves, print the table."""
    folds = experiment.cv.folds * experiment.cv.repeats
    with StudyProgress(folds, score_words(experiment.task)) as progress:
        result = crossval(experiment, out, workers=workers, place=place, watch=progress)
    if not result.metrics:  # another of several processes tells
        return result
    show_metrics(result.metrics, _title(experiment, out, "cross-validation, test patients"))
    _finish(out, draw_run(out, experiment.task))
    return result


def do_fit(experiment: Experiment, out: Path) -> StudyResult:
    """Fit on all patients."""
    with StudyProgress(1, score_words(experiment.task)) as progress:
        result = fit_final(experiment, out, watch=progress)
    if not result.metrics:
        return result
    chosen = "epoch and threshold" if experiment.task.binary else "the epoch"
    title = _title(experiment, out, f"validation patients (they chose {chosen}: optimistic)")
    show_metrics(result.metrics, title, "val")
    _finish(out, draw_run(out, experiment.task))
    return result


def do_evaluate(
    run: Path,
    experiment: Experiment,
    out: Path,
    *,
    allow_overlap: bool = False,
    allow_other_label: bool = False,
    force: bool = False,
) -> StudyResult:
    """Judge a run on an external cohort."""
    result = evaluate(
        run, experiment, out, allow_overlap=allow_overlap, allow_other_label=allow_other_label, force=force
    )
    predicts = read_json(RunFolder(out).environment_file)["predicts"]
    if predicts != experiment.task.label:
        found = f"the run predicts {predicts}, and is judged by this cohort's column {experiment.task.label}"
        show_problems([Problem(str(run), found, severity="note")])
    show_metrics(result.metrics, _title(experiment, out, "external cohort, never seen"))
    _finish(out, draw_run(out, experiment.task))
    return result


def do_predict(
    model: Path,
    sources: list[str],
    out: Path,
    table: Path | None,
    slide_mpp: str | None,
    device: str,
    *,
    force: bool = False,
    place: Place | None = None,
) -> None:
    """Score slides and write one or two tables."""
    patients = None if table is None else _patients(table)
    slides, by_patient = predict(
        model, sources, patients=patients, slide_mpp=read_slide_mpp(slide_mpp), device=device, force=force, place=place
    )
    columns = ["slide_id", "patient_id", *slides.columns[2:]]
    write_csv(out, slides[columns])
    show_table(slides[columns], f"{len(slides)} slides → {out}")
    if patients is not None:
        target = out.with_name(f"{out.stem}.patients{out.suffix}")
        write_csv(target, by_patient)
        show_table(by_patient, f"{len(by_patient)} patients → {target}")


def do_reproduce(run: Path, out: Path, tolerance: float, workers: int | None, place: Place) -> None:
    """Do a run again and say how the two compare; exit code 1 if they differ."""
    experiment = RunFolder(run).experiment()
    folds = len(RunFolder(run).done_folds())
    with StudyProgress(folds, score_words(experiment.task)) as progress:
        found = reproduce(run, out, workers=workers, place=place, tolerance=tolerance, watch=progress)
    rows = [
        {"metric": name, "then": then, "now": now, "difference": None if None in (then, now) else now - then}  # type: ignore[operator]
        for name, (then, now) in found.metrics.items()
    ]
    show_table(pd.DataFrame(rows), f"{run} and {out}", rows=len(rows))
    if found.changed:
        changed = pd.DataFrame([(name, *both) for name, both in found.changed.items()], columns=["what", "then", "now"])
        show_table(changed, "another machine or other versions", rows=len(changed))
    splits = "the same splits" if found.same_splits else "other splits"
    console().print(
        f"{found.verdict}: {splits}; {found.predictions} predictions differ by at most {found.largest:.3g} (tolerance "
        f"{found.tolerance:g}); students of {found.students} of {found.folds} folds are the same bytes",
        soft_wrap=True,
        highlight=False,
    )
    if found.verdict == "different":
        raise typer.Exit(1)


def do_import_checkpoint(
    source: Path,
    out: Path,
    *,
    label: str,
    classes: tuple[str, ...],
    graph_k: int,
    threshold: float,
    encoder: str | None,
) -> None:
    """Import a published checkpoint and say what it is."""
    predictor = import_checkpoint(
        source, out, label=label, classes=classes, graph_k=graph_k, threshold=threshold, encoder=encoder
    )
    card, encoder_settings = predictor.card, predictor.card.model.encoder
    console().print(
        f"{out}: student for {' / '.join(card.classes)}; features of width {card.features.width}, "
        f"W {encoder_settings.dim}, heads {encoder_settings.heads}, K {card.model.memory.codes}, k {card.graph_k}"
    )


def _patients(table: Path) -> dict[str, str]:
    frame = pd.read_csv(table, dtype=str, keep_default_na=False)
    missing = [name for name in ("patient_id", "slide_id") if name not in frame.columns]
    if missing:
        raise CohortError(f"{table}: columns {missing} are missing; found {list(frame.columns)}")
    pairs = frame[["slide_id", "patient_id"]].drop_duplicates()
    shared = sorted(set(pairs.loc[pairs["slide_id"].duplicated(), "slide_id"]))
    nobody = sorted(pairs.loc[pairs["patient_id"].str.strip() == "", "slide_id"])
    findings = [(shared, "given to several patients", "one patient a slide"), (nobody, "without a patient_id", "an id")]
    raise_problems(
        [
            Problem(str(table), f"{len(s)} slides {what}: {summarise(s)}", expected)
            for s, what, expected in findings
            if s
        ]
    )
    return dict(zip(pairs["slide_id"], pairs["patient_id"], strict=True))


def _title(experiment: Experiment, out: Path, what: str) -> str:
    return f"{experiment.task.label}: {what} · {taught(RunFolder(out), experiment).words()}"


def _finish(out: Path, pictures: list[Path]) -> None:
    names = ", ".join(path.name for path in pictures)
    console().print(f"{out}: metrics.json, predictions.csv, slides.csv, {names}", soft_wrap=True)
    console().print(f"one page with all of it: momkd report {out}", soft_wrap=True, highlight=False)
