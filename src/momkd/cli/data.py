"""The verbs that bring data into shape and look at it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from momkd.cli.render import console, show_facts, show_problems, show_table
from momkd.cohort.dataset import CohortData, load_data, pack_features
from momkd.cohort.pairing import word_of
from momkd.cohort.splits import load_splits
from momkd.errors import OmicsError
from momkd.experiment import Experiment, OmicsSettings
from momkd.omics.genes import GeneReport, gene_report
from momkd.parallel import Place
from momkd.slides.folders import given_features
from momkd.slides.importer import ImportReport, add_graphs, import_features
from momkd.slides.inspection import inspect_file
from momkd.slides.mpp import read_slide_mpp
from momkd.study.run_folder import write_csv


class _SlideProgress:
    """A bar over slides on the terminal's error stream."""

    def __init__(self, what: str) -> None:
        screen = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bars = Progress(*columns, console=screen, disable=not screen.is_terminal)
        self._task = self.bars.add_task(what, total=None)

    def __call__(self, done: int, total: int, slide_id: str) -> None:
        self.bars.update(self._task, completed=done, total=total, description=slide_id)


def do_import(
    source: str, out: Path, dtype: str, slide_mpp: str | None, k: int | None, table: str | None, place: Place
) -> None:
    """Import feature files; exit code 1 if any could not be."""
    progress = _SlideProgress("importing")
    with progress.bars:
        report = import_features(
            source,
            out,
            dtype=dtype,
            slide_mpp=read_slide_mpp(slide_mpp),
            graph_k=k,
            table=table,
            place=place,
            progress=progress,
        )
    _show_report(report, "imported")


def do_inspect(sources: list[str], slide_mpp: str | None, table: str | None, *, as_json: bool) -> None:
    """Show what each file is; of several files a line each, then what is wrong; exit code 1 if any is."""
    files = [file for source in sources for file in given_features(source)[0]]
    found = [inspect_file(file, slide_mpp=read_slide_mpp(slide_mpp), table=table) for file in files]
    if as_json:
        rows = [
            {"file": str(one.path), "ok": one.ok, **one.facts, "problems": [str(problem) for problem in one.problems]}
            for one in found
        ]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif len(found) == 1:
        if found[0].facts:
            show_facts(str(found[0].path), found[0].facts)
        show_problems(found[0].problems)
    else:
        columns = ["layout", "patches", "patch size (level-0 px)", "µm per level-0 px"]
        table_of = [
            {
                "slide": one.path.stem,
                "state": "ok" if one.ok else "error",
                **{name: one.facts.get(name, "–") for name in columns},
            }
            for one in found
        ]
        show_table(pd.DataFrame(table_of), f"{len(found)} feature files", rows=len(found))
        show_problems([problem for one in found for problem in one.problems])
    if not all(one.ok for one in found):
        raise typer.Exit(1)


def do_graph(folder: Path, k: int) -> None:
    """Store graphs in feature files; exit code 1 if any could not be."""
    progress = _SlideProgress("graphs")
    with progress.bars:
        report = add_graphs(folder, k, progress=progress)
    _show_report(report, f"given a graph of k = {k}")


def do_pack(experiment: Experiment) -> None:
    """Make the experiment's feature store, or bring it up to date."""
    progress = _SlideProgress("packing")
    with progress.bars:
        report = pack_features(experiment, progress=progress)
    size = sum(file.stat().st_size for file in report.path.iterdir())
    console().print(
        f"{report.path}: {len(report.packed)} slides packed, {len(report.refreshed)} touched but the same, "
        f"{len(report.unchanged)} already there; {size / 1e6:.1f} MB of {experiment.features.store_dtype}",
        soft_wrap=True,
    )


def _show_report(report: ImportReport, done: str) -> None:
    show_problems(report.problems)
    failed = len(report.failed)
    console().print(
        f"{report.out}: {len(report.written)} slides {done}, {len(report.unchanged)} already complete, {failed} failed"
    )
    if failed:
        raise typer.Exit(1)


def do_genes(experiment: Experiment, out: Path) -> None:
    """Rank the genes of each omics table and report what they know of the label."""
    if experiment.omics is None:
        raise OmicsError("the experiment has no omics section; add one to rank genes")
    data = load_data(experiment)
    several = len(experiment.omics) > 1
    reports = {
        name: _gene_report(name, settings, data, experiment, several=several)
        for name, settings in experiment.omics.items()
    }
    for part in ("ranking", "folds", "stability"):
        frames = [_named(name, getattr(report, part), several=several) for name, report in reports.items()]
        write_csv(out / f"{'genes' if part == 'ranking' else part}.csv", pd.concat(frames, ignore_index=True))
    for name, report in reports.items():
        of, word = (f" of {name}", word_of(name)) if several else ("", "RNA")
        for note in report.notes:
            console().print(f"[yellow]note[/] {escape(f'{name}: {note}' if several else note)}", highlight=False)
        show_table(report.ranking, f"genes{of} by {experiment.omics[name].select.method} → {out / 'genes.csv'}")
        title = f"held-out logistic regression on genes{of} chosen inside each fold → {out / 'folds.csv'}"
        show_table(report.folds, title)
        if report.auc_mean is not None:
            spread = "" if report.auc_sd is None else f" ± {report.auc_sd:.3f}"
            what = f"{_what(experiment)} with a mean test AUC of {report.auc_mean:.3f}{spread}"
            console().print(f"{word} alone predicts {what}")


def _gene_report(
    name: str, settings: OmicsSettings, data: CohortData, experiment: Experiment, *, several: bool
) -> GeneReport:
    patients, cohort = data.cohort.patients, data.cohort
    try:
        return gene_report(
            data.omics[name].values,
            patients["label"],
            None if patients["group"].isna().all() else patients["group"],
            settings,
            seed=experiment.train.seed,
            folds=load_splits(patients, experiment.cv, classes=cohort.strata, required=cohort.required),
        )
    except OmicsError as error:
        raise OmicsError(f"omics.{name}: {error}" if several else str(error)) from error


def _named(name: str, table: pd.DataFrame, *, several: bool) -> pd.DataFrame:
    return pd.concat([pd.Series(name, table.index, name="table"), table], axis=1) if several else table


def _what(experiment: Experiment) -> str:
    """What the gene report predicts: it needs classes, so of a value the quarter, of survival the event."""
    task = experiment.task
    if task.categorical:
        return task.label
    return f"the event {task.event}" if task.type == "survival" else f"the quarter of the cohort by {task.label}"
