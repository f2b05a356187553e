"""Tables and findings as the terminal shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from momkd.errors import Problem
from momkd.report.words import METRIC_HEADS, metric_rows

if TYPE_CHECKING:
    from momkd.cohort.check import CheckReport


def console() -> Console:
    """The terminal's standard output."""
    return Console()


def show_metrics(metrics: Mapping[str, Any], title: str, role: str = "test") -> None:
    """One row a metric: mean ± sd over folds, the pooled value and its interval."""
    rows, intervals = metric_rows(metrics[role])
    screen = console()
    screen.print(title, style="bold", highlight=False)
    table = Table()
    for number, head in enumerate(METRIC_HEADS):
        table.add_column(head, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    screen.print(table)
    screen.print(f"intervals: {escape(intervals)}", style="dim", highlight=False)


def show_check(report: CheckReport) -> None:
    """Counts first, then notes, then problems, then the verdict."""
    out = console()
    show_facts("", report.counts)
    show_problems(report.problems)
    if report.ok:
        out.print("[bold green]ok[/]: this cohort can be trained on")
    else:
        errors = sum(problem.severity == "error" for problem in report.problems)
        out.print(
            f"[bold red]{errors} problem{'s' if errors > 1 else ''}[/]: nothing can be trained until they are mended"
        )


def show_facts(title: str, facts: Mapping[str, str]) -> None:
    """Names and what is known, a line each."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0), title=title or None, title_justify="left")
    for name, value in facts.items():
        table.add_row(str(name), escape(str(value)))
    console().print(table)


def show_problems(problems: Sequence[Problem]) -> None:
    """Notes, then errors, a line each."""
    for severity, style in (("note", "yellow"), ("error", "red")):
        for problem in problems:
            if problem.severity == severity:
                console().print(f"[{style}]{severity}[/] {escape(str(problem))}", soft_wrap=True, highlight=False)


def show_table(frame: pd.DataFrame, title: str, rows: int = 20) -> None:
    """The first rows of a table."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in frame.columns:
        justify: Literal["left", "right"] = "right" if pd.api.types.is_numeric_dtype(frame[name]) else "left"
        # In a narrow terminal a name or a number goes on in the next line; cut off, it would be another one.
        table.add_column(str(name), justify=justify, overflow="fold")
    for row in frame.head(rows).itertuples(index=False):
        table.add_row(*(_cell(value) for value in row))
    console().print(table)
    if len(frame) > rows:
        console().print(f"… {len(frame) - rows} more rows")


def _cell(value: object) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))
