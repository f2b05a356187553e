"""The verb that varies settings."""

from __future__ import annotations

from pathlib import Path

from momkd.cli.progress import StudyProgress
from momkd.cli.render import console, show_problems, show_table
from momkd.errors import Problem
from momkd.experiment import SearchSpace, SweepPlan
from momkd.parallel import Place
from momkd.report.sweep import caption, sweep_table, write_sweep
from momkd.study.search import search
from momkd.study.sweep import Sweep, sweep
from momkd.training.judge import score_words


def do_search(
    space: SearchSpace,
    out: Path,
    trials: int,
    workers: int | None,
    place: Place | None = None,
    *,
    halving: bool,
    show_test: bool,
) -> None:
    """Run a search with progress bars, write table and picture, print the table; raises what failed at the end."""
    cv, task = space.base.cv, space.base.task
    with StudyProgress(trials * cv.folds * cv.repeats, score_words(task)) as progress:
        found = search(
            space,
            out,
            trials=trials,
            halving=halving,
            workers=workers,
            place=place,
            watch=progress,
            show_test=show_test,
        )
    _show(found, out, f"{len(found.table)} trials")


def do_sweep(plan: SweepPlan, out: Path, workers: int | None, place: Place | None = None, *, show_test: bool) -> None:
    """Run a sweep with progress bars, write table and picture, print the table; raises what failed at the end."""
    cv, task = plan.points[0].experiment.cv, plan.points[0].experiment.task
    show_problems([Problem("sweep", note, severity="note") for note in plan.notes])
    with StudyProgress(len(plan.points) * cv.folds * cv.repeats, score_words(task)) as progress:
        found = sweep(plan, out, workers=workers, place=place, watch=progress, show_test=show_test)
    _show(found, out, f"{len(plan.points)} points")


def _show(found: Sweep, out: Path, what: str) -> None:
    files = write_sweep(found, out)
    show_table(sweep_table(found), f"{found.task.label}: {what}", rows=len(found.table))
    console().print(caption(found), style="dim", highlight=False)
    if found.best is not None:
        console().print(f"best by validation: {out / found.best}", soft_wrap=True, highlight=False)
    written = ", ".join(["sweep.csv", *(path.name for path in files)])
    console().print(
        f"{out}: {written}; a run for each {'trial' if found.searched else 'point'}", soft_wrap=True, highlight=False
    )
    found.results.raise_failures()
