"""The sections that reports of runs and of comparisons share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from momkd.errors import RunError
from momkd.experiment import TaskSettings
from momkd.files import read_json
from momkd.report.page.document import Block, Fold, Section, Table, Text
from momkd.report.words import METRIC_HEADS, metric_rows
from momkd.study.run_folder import RunFolder

_FROM_OMICS = (
    "This label was computed from the omics. A teacher that sees them can teach what the label was computed from, so "
    "what omics add here is close to circular. The prediction itself uses histology alone; it does not show agreement "
    "with a laboratory's assay."
)


def warnings_of(task: TaskSettings) -> list[Block]:
    """What a reader must know before the numbers."""
    return [Text(_FROM_OMICS, "warning")] if task.from_omics else []


def metrics_table(section: Mapping[str, Any]) -> Table:
    """Every metric of a role: mean ± sd over folds, the pooled value, its interval and what that is."""
    rows, intervals = metric_rows(section)
    caption = (
        "Pooled: all patients of a repeat together, averaged over repeats; the interval belongs to it. It speaks of "
        "other patients, given these trained models. Folds share training patients: their sd is not a standard error. "
        f"Intervals: {intervals}."
    )
    return Table(METRIC_HEADS, rows, caption, frozenset({1, 2, 3}), frozenset({0}))


def settings_section(run: RunFolder) -> Section:
    """The resolved experiment, versions and machine, the fingerprints of the tables."""
    blocks: list[Block] = []
    if run.environment_file.is_file():
        found = read_json(run.environment_file)
        rows = [[name, str(version)] for name, version in found.get("packages", {}).items()]
        rows += [[name, str(found[name])] for name in ("python", "platform", "processor") if name in found]
        rows += [[f"{name} (SHA-256)", str(digest)] for name, digest in found.get("data", {}).items()]
        blocks.append(Table(["", ""], rows, "Versions, machine and fingerprints of the tables, when the run was made."))
    settings = run.path / "experiment.yaml"
    if settings.is_file():
        blocks.append(Fold("experiment.yaml, every setting resolved", settings.read_text(encoding="utf-8")))
    return Section("Settings and versions", blocks)


def log_section(runs: Sequence[Path]) -> Section:
    """The warnings of the logs."""
    lines = []
    for run in runs:
        if (run / "log.txt").is_file():
            text = (run / "log.txt").read_text(encoding="utf-8", errors="replace")
            lines += [line for line in text.splitlines() if " WARNING " in line or " ERROR " in line]
    return Section("Warnings of the log", [Fold(f"{len(lines)} lines", "\n".join(lines))] if lines else [])


def read_metrics(run: RunFolder) -> dict[str, Any]:
    """metrics.json; raises RunError where the run has none yet."""
    file = run.path / "metrics.json"
    if not file.is_file():
        raise RunError(
            f"{run.path}: unfinished, it has no metrics.json; run the same `momkd crossval`, `momkd fit` or "
            "`momkd evaluate` command again"
        )
    found: dict[str, Any] = read_json(file)
    return found
