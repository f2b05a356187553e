"""What the verbs of `momkd gdc` do and show."""

from __future__ import annotations

import threading
from pathlib import Path

import pandas as pd
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from momkd.cli.render import console, show_problems, show_table
from momkd.errors import GdcError
from momkd.gdc.ask import make_plan
from momkd.gdc.client import SERVER, Client, read_token
from momkd.gdc.cohort import EXPERIMENT, write_cohort
from momkd.gdc.download import Event, download
from momkd.gdc.expression import GENES, VALUES, merge_expression
from momkd.gdc.plan import Plan, make_settings, read_plan, write_plan
from momkd.gdc.records import KINDS, Kind


def do_plan(
    out: Path,
    project: str,
    sample_types: str,
    patients: Path | None,
    limit: int | None,
    server: str,
    timeout: float,
    retries: int,
) -> None:
    """Make and write a plan, and show what it costs."""
    settings = make_settings(project, sample_types, patients, limit)
    client = Client(server, timeout=timeout, retries=retries, on_retry=_say)
    with Console(stderr=True).status(f"asking {client.server} for {settings.project}"):
        plan, notes = make_plan(client, settings)
    changes = write_plan(plan, out)
    show_problems([*notes, *changes])
    sites = len({case.site for case in plan.cases})
    title = f"{settings.project}, {plan.data_release}: {len(plan.cases)} patients of {sites} sites"
    show_table(_sizes(plan, out), title)
    _print(f"{out}: plan.json, files.csv, cases.csv, manifest-<kind>.txt; then momkd gdc download {out}")


def do_download(
    folder: Path,
    what: str,
    workers: int,
    token: Path | None,
    server: str | None,
    timeout: float,
    retries: int,
    *,
    verify: bool,
) -> None:
    """Download with progress; exit code 1 if anything is missing at the end."""
    kinds = _kinds(what)
    plan = read_plan(folder)
    if token is not None and server is None and plan.server != SERVER:
        raise GdcError(
            f"{folder}: the plan is of {plan.server}; a token goes to another server than {SERVER} only if you name it "
            f"→ --server {plan.server}"
        )
    secret = None if token is None else read_token(token)
    with _Bars(sum(file.size for file in plan.used(*kinds))) as bars:
        client = Client(server or plan.server, secret, timeout, retries, on_retry=bars.say)
        report = download(folder, client, kinds=kinds, workers=workers, verify=verify, watch=bars)
    show_problems(report.problems)
    failed = sum(problem.severity == "error" for problem in report.problems)
    words = [f"{len(report.done)} files downloaded", f"{len(report.present)} already there", f"{failed} failed"]
    words += [f"{len(report.untried)} not tried"] if report.untried else []
    _print(f"{folder}: {', '.join(words)}")
    if not report.complete:
        _print(f"what is there stays; go on with: momkd gdc download {folder} --what {what}")
        raise typer.Exit(1)


def do_rna(folder: Path, values: str, genes: str) -> None:
    """Merge expression and say where it is."""
    if values not in VALUES:
        raise GdcError(f"--values {values!r}: expected one of {', '.join(VALUES)}")
    screen = Console(stderr=True)
    bars = Progress(TextColumn("{task.description}"), BarColumn(), console=screen, disable=not screen.is_terminal)
    task = bars.add_task("merging", total=None)
    with bars:
        merged = merge_expression(
            folder,
            values=values,
            gene_type=None if genes == "all" else genes,
            progress=lambda done, total, _: bars.update(task, completed=done, total=total),
        )
    _print(f"{merged.table}: {merged.genes} genes × {merged.patients} patients, {values}")
    if merged.summed:
        _print(f"{len(merged.summed)} symbols are the sum of several genes; see {folder / GENES}")


def do_cohort(folder: Path, labels: list[Path], patient_column: str) -> None:
    """Write the cohort table and say what to do next."""
    report = write_cohort(folder, labels=labels, patient_column=patient_column)
    show_problems(report.notes)
    _print(f"{report.table}: {report.slides} slides of {report.patients} patients; {', '.join(report.columns)}")
    experiment = folder / EXPERIMENT
    kept = "" if report.new_experiment else " (yours, left as it is)"
    _print(
        f"next: momkd gdc download {folder} --what slides; momkd extract {folder / 'slides'} --out "
        f"{folder / 'features'}; momkd check {experiment}{kept}"
    )


class _Bars:
    """A bar over all bytes and one a file at work; a line a file where there is no terminal."""

    def __init__(self, total: int) -> None:
        self._screen = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._screen,
            disable=not self._screen.is_terminal,
        )
        self._all = self._bars.add_task("all", total=total)
        self._running: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> _Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Show a line above the bars."""
        self._screen.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)

    def __call__(self, event: Event) -> None:
        file = event.file
        with self._lock:
            if event.kind == "started":
                self._running[file.file_id] = self._bars.add_task(f"  {escape(file.name[:40])}", total=file.size)
            elif event.kind in ("bytes", "present"):
                self._bars.advance(self._all, event.count)
                if file.file_id in self._running:
                    self._bars.advance(self._running[file.file_id], event.count)
            else:
                self._bars.remove_task(self._running.pop(file.file_id))
                if event.kind == "failed" or not self._screen.is_terminal:
                    self.say(f"{file.name}: {event.kind}")


def _kinds(what: str) -> tuple[Kind, ...]:
    names = [name.strip() for name in what.split(",")]
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        raise GdcError(f"--what {what!r}: expected some of {', '.join(KINDS)}, separated by commas")
    return tuple(kind for kind in KINDS if kind in names)


def _sizes(plan: Plan, folder: Path) -> pd.DataFrame:
    rows = []
    for kind in KINDS:
        files = plan.used(kind)
        here = sum(file.find(folder) is not None for file in files)
        gigabytes = f"{sum(file.size for file in files) / 1e9:.2f}"
        rows.append({"kind": kind, "files": len(files), "GB": gigabytes, "already there": here})
    return pd.DataFrame(rows)


def _say(text: str) -> None:
    Console(stderr=True).print(text, style="dim", highlight=False, markup=False, soft_wrap=True)


def _print(text: str) -> None:
    console().print(text, highlight=False, markup=False, soft_wrap=True)
