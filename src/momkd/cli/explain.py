"""The verb that says why."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from momkd.cli.render import console, show_table
from momkd.explain.prototypes import explain_prototypes
from momkd.explain.run import Event, ExplainSettings, explain_slides
from momkd.slides.mpp import read_slide_mpp
from momkd.study.predict import feature_files

_SHORT = {"minus_random": "Δ", "p": "p"}


def do_explain(
    model: Path,
    sources: list[str],
    out: Path,
    settings: ExplainSettings,
    *,
    slides: list[Path],
    slide_mpp: str | None,
    device: str,
    force: bool = False,
) -> None:
    """Explain with a bar over slides, say what there is; exit code 1 if any slide failed."""
    screen = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen, disable=not screen.is_terminal, transient=True) as bars:
        task = bars.add_task("slides", total=len(feature_files(sources)))

        def watch(event: Event) -> None:
            bars.advance(task)
            if event.kind == "failed":
                screen.print(f"{escape(event.slide_id)}: [red]failed[/]: {escape(event.note)}", soft_wrap=True)
            elif event.note:
                screen.print(escape(event.note), soft_wrap=True, highlight=False)

        report = explain_slides(
            model,
            sources,
            out,
            settings,
            slides=slides,
            slide_mpp=read_slide_mpp(slide_mpp),
            device=device,
            force=force,
            watch=watch,
        )
    if report.faithfulness is not None:
        short = {f"{curve}_{what}": sign for curve in ("deletion", "insertion") for what, sign in _SHORT.items()}
        title = (
            "how true the maps are: mean score while patches go (deletion) or come (insertion); Δ, p: against random"
        )
        show_table(report.faithfulness.rename(columns=short), title)
    parts = [f"{len(report.made)} slides explained", f"{len(report.unchanged)} already there"]
    parts += [f"{len(report.failed)} failed"]
    page = report.out / "index.html"
    seen = f"; open {page}" if page.is_file() else ""
    console().print(f"{out}: {', '.join(parts)}{seen}", soft_wrap=True, highlight=False)
    if report.failed:
        raise typer.Exit(1)


def do_prototypes(run: Path, out: Path, fold: str) -> None:
    """Explain the prototypes of a fold; show how many patients use each."""
    report = explain_prototypes(run, out, fold=fold)
    counts = report.usage.groupby(["memory", "by", "code"], sort=False).size().rename("patients").reset_index()
    found = report.genes[report.genes["q"] < 0.05].groupby(["memory", "code"]).size().rename("genes with q < .05")
    counts = counts.merge(found.reset_index(), how="left", on=["memory", "code"]).fillna({"genes with q < .05": 0})
    show_table(counts, "patients whose nearest prototype it is", rows=64)
    console().print(f"{out}: usage.csv, genes.csv; open {out / 'index.html'}", soft_wrap=True, highlight=False)
