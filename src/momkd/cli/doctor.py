"""The verb that looks at the machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer
from rich.markup import escape
from rich.table import Table

from momkd.cli.render import console
from momkd.study.doctor import examine_machine

_STYLES = {"PASS": "green", "WARN": "yellow", "FAIL": "bold red"}


def do_doctor(folder: Path, *, as_json: bool) -> None:
    """Show every finding; exit code 1 if anything failed."""
    findings = examine_machine(folder)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        for finding in findings:
            mend = f"\n→ {finding.mend}" if finding.mend else ""
            style = _STYLES[finding.verdict]
            table.add_row(f"[{style}]{finding.verdict}[/]", finding.name, escape(finding.found + mend))
        console().print(table)
    if any(finding.verdict == "FAIL" for finding in findings):
        raise typer.Exit(1)
