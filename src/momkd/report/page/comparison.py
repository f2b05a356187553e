"""The report of a comparison of methods."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from momkd.evaluation.scorers import primary_metric
from momkd.experiment import TaskSettings
from momkd.files import read_json
from momkd.report.comparison import draw_forest, draw_roc, metric_head, paper_table
from momkd.report.names import metric_name
from momkd.report.page.document import Block, Card, Page, Section, Table, picture
from momkd.report.page.parts import log_section, settings_section, warnings_of
from momkd.report.page.people import cohort_section, read_patients, splits_section
from momkd.report.words import interval, mean_sd, number
from momkd.study.run_folder import RunFolder

_COSTS = ["parameters", "s / epoch", "ms / slide"]


def comparison_page(folder: RunFolder) -> Page:
    """The table and its pictures, how the methods were compared, and on whom."""
    table = pd.DataFrame(read_json(folder.path / "table.json")["methods"]).fillna(np.nan)
    names = [str(name) for name in table["method"]]
    first = RunFolder(folder.path / names[0])
    task = first.experiment().task
    patients, measure = read_patients(first, task), metric_name(primary_metric(task))
    return Page(
        title=f"{task.label}: {len(names)} methods on the same folds",
        subtitle=f"{measure}; every method is compared with {names[0]} · {folder.path.resolve().name}",
        cards=_cards(table, primary_metric(task)),
        sections=[
            _comparison(folder, table, task),
            _others(table, primary_metric(task)),
            cohort_section(patients, task),
            splits_section(folder, patients, task),
            log_section([folder.path, *(folder.path / name for name in names)]),
            settings_section(first),
        ],
        foot=f"Made by momkd report. Each method is a run of its own: momkd report {folder.path.name}/{names[0]}.",
    )


def _comparison(folder: RunFolder, table: pd.DataFrame, task: TaskSettings) -> Section:
    main, names = primary_metric(task), [str(name) for name in table["method"]]
    shown = paper_table(table, main)[_heart(main)]
    forest = partial(draw_forest, table, main, task.label)
    blocks: list[Block] = [
        *warnings_of(task),
        Table.of(shown, _caption(main, names), left=2, strong=_best(table, main)),
        picture(forest, "forest plot of all methods", "Dots: means over folds. Bars: 95 % intervals."),
    ]
    if task.binary:
        predictions = {name: RunFolder(folder.path / name).predictions(task) for name in names}
        caption = "Mean curve of the test folds" + (", the first eight methods." if len(names) > 8 else ".")
        blocks.append(picture(partial(draw_roc, predictions, task, task.label), "ROC curves by method", caption))
    return Section("Comparison", blocks)


def _others(table: pd.DataFrame, main: str) -> Section:
    shown = paper_table(table, main)
    others = [name for name in shown.columns if name not in [*_heart(main), *_COSTS]]
    blocks: list[Block] = []
    if others:
        blocks.append(Table.of(shown[["method", *others]], "Mean ± sd of the test folds."))
    caption = "Of one network; seconds on the machine of the run, with the other methods beside."
    blocks.append(Table.of(shown[["method", *_COSTS]], caption))
    return Section("Other metrics and costs", blocks)


def _heart(main: str) -> list[str]:
    """The columns of the comparison itself."""
    return ["method", "omics", metric_head(main), "95 % CI", "difference", "p", "p (Holm)"]


def _best(table: pd.DataFrame, main: str) -> list[int]:
    """The row of the highest mean among methods that need no omics of the patient they predict."""
    fair = table[f"{main}_mean"].where(table["omics"] != "training and test")
    return [int(np.nanargmax(fair.to_numpy(dtype=np.float64)))] if fair.notna().any() else []


def _caption(main: str, names: list[str]) -> str:
    return (
        f"{metric_name(main)}: mean ± sd of the test folds. 95 % CI of that mean, difference from {names[0]} and p: "
        "corrected resampled t of Nadeau and Bengio, which allows for folds that share training patients; p (Holm) "
        f"for {len(names) - 1} methods. Bold: the best that predicts from histology alone. Omics at test: upper bounds."
    )


def _cards(table: pd.DataFrame, main: str) -> list[Card]:
    first = table.iloc[0]
    words = f"{metric_name(main)} of {first['method']}, mean of folds ± sd"
    cards = [Card(mean_sd(first[f"{main}_mean"], first[f"{main}_sd"]), words)]
    for place in _best(table, main):
        best = table.iloc[place]
        name = str(best["method"])
        cards.append(Card(name, f"the best from histology alone, {number(best[f'{main}_mean'])}"))
        if place:
            limits = interval(best["difference_ci_low"], best["difference_ci_high"])
            cards.append(Card(limits, f"95 % CI of {name} − {first['method']}"))
    return cards
