"""The verbs that bring data into shape and look at it."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from momkd.cli.render import console, show_problems, show_table
from momkd.cohort.dataset import load_data
from momkd.errors import OmicsError
from momkd.experiment import Experiment
from momkd.omics.genes import gene_report
from momkd.slides.importer import ImportReport, add_graphs, import_features
from momkd.study.run_folder import write_csv


class _SlideProgress:
    """A bar over slides on the terminal's error stream."""

    def __init__(self, what: str) -> None:
        screen = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bars = Progress(*columns, console=screen, disable=not screen.is_terminal)
        self._task = self.bars.add_task(what, total=None)

    def __call__(self, done: int, total: int, slide_id: str) -> None:
        self.bars.update(self._task, completed=done, total=total)


def do_import(source: Path, out: Path, dtype: str, slide_mpp: float | None, k: int | None) -> None:
    """Import feature files; exit code 1 if any could not be."""
    progress = _SlideProgress("importing")
    with progress.bars:
        report = import_features(source, out, dtype=dtype, slide_mpp=slide_mpp, graph_k=k, progress=progress)
    _show_report(report, "imported")


def do_graph(folder: Path, k: int) -> None:
    """Store graphs in feature files; exit code 1 if any could not be."""
    progress = _SlideProgress("graphs")
    with progress.bars:
        report = add_graphs(folder, k, progress=progress)
    _show_report(report, f"given a graph of k = {k}")


def _show_report(report: ImportReport, done: str) -> None:
    show_problems(report.problems)
    failed = len(report.failed)
    console().print(
        f"{report.out}: {len(report.written)} slides {done}, {len(report.unchanged)} already complete, {failed} failed"
    )
    if failed:
        raise typer.Exit(1)


def do_genes(experiment: Experiment, out: Path) -> None:
    """Rank genes and report what they know of the label."""
    if experiment.omics is None:
        raise OmicsError("the experiment has no omics section; add one to rank genes")
    data = load_data(experiment)
    if data.omics is None:
        raise OmicsError("the experiment has no omics table")
    values = data.omics.values
    patients = data.cohort.patients.loc[values.index]
    groups = None if patients["group"].isna().all() else patients["group"].to_numpy()
    report = gene_report(
        values,
        patients["label"].to_numpy(),
        groups,
        experiment.omics,
        seed=experiment.cv.seed,
        folds=experiment.cv.folds,
    )
    write_csv(out / "genes.csv", report.genes)
    write_csv(out / "folds.csv", report.folds)
    show_table(report.genes, f"genes by {experiment.omics.select.method} → {out / 'genes.csv'}")
    show_table(report.folds, f"held-out logistic regression on the chosen genes → {out / 'folds.csv'}")
