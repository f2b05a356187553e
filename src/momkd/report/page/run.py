"""The report of a run: of ``crossval``, ``fit`` or ``evaluate``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd

from momkd.evaluation.scorers import primary_metric
from momkd.experiment import Experiment, TaskSettings
from momkd.report.curves import draw_learning, draw_outcome, has_learning, outcome_title, role_shown
from momkd.report.memory import draw_memory, has_memory
from momkd.report.names import metric_name
from momkd.report.page.document import Block, Card, Page, Section, Text, picture
from momkd.report.page.parts import (
    log_section,
    metrics_table,
    read_metrics,
    settings_section,
    warnings_of,
)
from momkd.report.page.people import cohort_section, read_patients, sites_section, splits_section
from momkd.report.reliability import draw_reliability
from momkd.report.taught import taught
from momkd.report.words import interval, mean_sd, number
from momkd.study.run_folder import RunFolder

_OPTIMISTIC = (
    "Nobody was tested: these are the validation patients, which chose the epoch and the threshold. The numbers are "
    "optimistic and not for publication."
)
_RELIABILITY = (
    "Left: bins of equally many patients. Right: what acting on the prediction is worth, beside treating all or none. "
    "A fold's temperature is fitted on its validation patients; predictions.csv has the probabilities before it."
)
_OUTCOMES = {
    "classification": "ROC and confusion",
    "ordinal": "confusion matrix and expected class by observed class",
    "continuous": "predicted against observed value",
    "survival": "Kaplan–Meier curves of lower and higher predicted risk",
}


def run_page(run: RunFolder) -> Page:
    """Everything that a run says, in the order in which a reader asks. Raises RunError for an unfinished run."""
    metrics, experiment = read_metrics(run), run.experiment()
    task = experiment.task
    predictions, patients = run.predictions(task), read_patients(run, task)
    role, teaching = role_shown(predictions), taught(run, experiment)
    return Page(
        title=f"{task.label}: {teaching.method}, {_kind(run, metrics)}",
        subtitle=f"{teaching.words()} · {run.path.resolve().name}",
        cards=_cards(metrics, role, task),
        sections=[
            Section("Metrics", [*warnings_of(task), *_caution(role), metrics_table(metrics[role])]),
            Section("Curves", _curves(predictions, task)),
            cohort_section(patients, task),
            sites_section(predictions, patients, task),
            splits_section(run, patients, task),
            _learning(run, experiment),
            log_section([run.path]),
            settings_section(run),
        ],
        foot="Made by momkd report. The documentation says what each number means: Metrics and what they guarantee.",
    )


def _kind(run: RunFolder, metrics: Mapping[str, Any]) -> str:
    if "test" not in metrics:
        return "fitted on all patients"
    return "cross-validation" if run.splits_file.is_file() else "external cohort"


def _caution(role: str) -> list[Block]:
    return [] if role == "test" else [Text(_OPTIMISTIC, "warning")]


def _cards(metrics: Mapping[str, Any], role: str, task: TaskSettings) -> list[Card]:
    main, folds = metrics[role][primary_metric(task)], len(metrics["folds"])
    name, counts = metric_name(primary_metric(task)), metrics["counts"][role]
    cards = []
    if folds > 1:
        cards.append(Card(mean_sd(main["mean"], main["sd"]), f"{name}, mean of {folds} {role} folds ± sd"))
    cards.append(Card(number(main["pooled"]), f"{name}, {role} patients pooled"))
    cards.append(Card(interval(main["ci_low"], main["ci_high"]), "95 % interval of the pooled value"))
    cards.append(Card(str(counts["patients"]), f"{role} patients"))
    return cards


def _curves(predictions: pd.DataFrame, task: TaskSettings) -> list[Block]:
    words = "ROC and precision–recall curves" if task.binary else _OUTCOMES[task.type]
    blocks: list[Block] = [picture(partial(draw_outcome, predictions, task), words)]
    if task.binary and role_shown(predictions) == "test":
        title = outcome_title(predictions, task)
        draw = partial(draw_reliability, predictions, task, title)
        blocks.append(picture(draw, "calibration and decision curves", _RELIABILITY))
    return blocks


def _learning(run: RunFolder, experiment: Experiment) -> Section:
    histories = run.histories()
    blocks: list[Block] = []
    if has_learning(histories):
        blocks.append(picture(partial(draw_learning, histories), "training loss and validation by epoch"))
    if has_memory(histories):
        draw = partial(draw_memory, histories, experiment.task.classes)
        caption = "The documentation defines each diagnostic: The memory laboratory."
        blocks.append(picture(draw, "memory diagnostics by epoch", caption))
    return Section("Learning and memory", blocks)
