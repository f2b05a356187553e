"""Cohorts of every task: what is read from the table, how it is divided, what a check says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from momkd.cohort.check import check
from momkd.cohort.dataset import load_data
from momkd.cohort.splits import check_splits, fit_split, make_splits
from momkd.cohort.table import Cohort, read_cohort
from momkd.errors import Problem, SplitError
from momkd.experiment import CvSettings, Experiment, build_experiment

CONTINUOUS = {"type": "continuous", "label": "score"}
SURVIVAL = {"type": "survival", "label": "days", "event": "died"}


def experiment(folder: Path, task: dict[str, Any], **sections: Any) -> Experiment:
    raw = {"cohort": {"table": "cohort.csv"}, "features": {"dir": "features"}, "task": task, **sections}
    return build_experiment(raw, base=folder)


def texts(problems: list[Problem], severity: str = "error") -> list[str]:
    return [str(problem) for problem in problems if problem.severity == severity]


def scored(lab, rows: list[list[str]], task: dict[str, Any] = CONTINUOUS) -> tuple[Cohort, list[Problem]]:
    lab.header = ["patient_id", "slide_id", *(["days", "died"] if task is SURVIVAL else ["score"])]
    lab.table(rows)
    lab.slides(rows)
    return read_cohort(experiment(lab.folder, task))


def test_more_classes_and_their_order(lab) -> None:
    lab.header[2] = "grade"
    rows = [["P1", "a", "G3"], ["P2", "b", "g1"], ["P3", "c", "G2"], ["P4", "d", "well"]]
    lab.table(rows)
    lab.slides(rows)
    task = {"type": "ordinal", "label": "grade", "classes": ["G1", "G2", "G3"], "map": {"well": "G1"}}
    cohort, problems = read_cohort(experiment(lab.folder, task))
    assert problems == []
    assert cohort.patients["label"].tolist() == [2, 0, 1, 0]
    assert cohort.patients["value"].isna().all()
    assert cohort.strata == cohort.required == cohort.classes == ("G1", "G2", "G3")
    lab.table(rows[:2])
    (message,) = texts(read_cohort(experiment(lab.folder, task))[1])
    assert "no patient of class G2 in column 'grade' (patients: G1 1, G2 0, G3 1); expected every class" in message


def test_values_and_their_quarters(lab) -> None:
    rows = [[f"P{i}", f"s{i}", text] for i, text in enumerate(["-1.5", "2e1", ".5", "+3", "7", "100", "0", "8.25"])]
    cohort, problems = scored(lab, rows)
    assert problems == []
    assert cohort.patients["value"].tolist() == [-1.5, 20.0, 0.5, 3.0, 7.0, 100.0, 0.0, 8.25]
    assert cohort.patients["label"].tolist() == [0, 3, 1, 1, 2, 3, 0, 2]
    assert cohort.patients["label"].dtype == np.int64
    assert (cohort.classes, cohort.required) == ((), ())
    assert cohort.strata[0] == "quarter 1 of the values"
    data = load_data(experiment(lab.folder, CONTINUOUS))
    assert data.values["P5"] == 100.0
    assert data.labels["P5"] == 3


def test_equal_values_are_in_one_quarter(lab) -> None:
    cohort, _ = scored(lab, [[f"P{i}", f"s{i}", "0" if i < 5 else str(i)] for i in range(8)])
    assert cohort.patients["label"].tolist()[:5] == [0] * 5
    assert len(set(cohort.patients["label"])) > 1


def test_times_and_events(lab) -> None:
    words = ["1", "0", "TRUE", "False", "dead", "Alive", "event", "censored", "yes", "NO", "1.0", "0.0"]
    cohort, problems = scored(lab, [[f"P{i:02d}", f"s{i}", str(i + 1), word] for i, word in enumerate(words)], SURVIVAL)
    assert problems == []
    assert cohort.patients["label"].tolist() == [1, 0] * 6
    assert cohort.patients["value"].tolist() == list(range(1, 13))
    assert (cohort.classes, cohort.strata, cohort.required) == ((), ("censored", "event"), ("event",))


def test_missing_values_are_left_out_with_a_note(lab) -> None:
    rows = [["P1", "a", "3", "1"], ["P2", "b", "", "1"], ["P3", "c", "5", "NA"], ["P4", "d", "nan", ""]]
    cohort, problems = scored(lab, [*rows, ["P5", "e", "6", "0"]], SURVIVAL)
    assert texts(problems) == []
    assert cohort.patients.index.tolist() == ["P1", "P5"]
    first, second = texts(problems, "note")
    assert "2 slides without a 'days' value left out: b, d" in first
    assert "1 slide without a 'died' value left out: c" in second


def test_cells_that_are_no_number_are_named_with_slide_and_line(lab) -> None:
    rows = [["P1", "a", "3"], ["P2", "b", "high"], ["P3", "c", "inf"], ["P4", "d", "3;5"], ["P5", "e", "1_0"]]
    cohort, problems = scored(lab, [*rows, ["P6", "f", "4"]])
    (message,) = texts(problems)
    assert "column 'score' holds no number in 4 rows: 'high' (slide b, line 3), 'inf' (slide c, line 4)" in message
    assert cohort.patients.index.tolist() == ["P1", "P6"]
    lab.table([["P1", "a", '"3,5"'], ["P6", "f", "4"], ["P5", "e", "5"]])
    (message,) = texts(read_cohort(experiment(lab.folder, CONTINUOUS))[1])
    assert "a decimal point, not a comma" in message


def test_every_problem_of_a_survival_table_at_once(lab) -> None:
    rows = [
        ["P1", "a", "0", "1"],
        ["P2", "b", "-3", "1"],
        ["P3", "c", "3", "LIVING"],
        ["P3", "c2", "3", "0"],
        ["P4", "d", "5", "1"],
        ["P4", "d2", "5", "0"],
        ["P5", "e", "6", "0"],
        ["P5", "e2", "7", "0"],
        ["P6", "f", "8", "lost"],
        ["P7", "g", "9", "LIVING"],
    ]
    _, problems = scored(lab, rows, SURVIVAL)
    times, events, conflicts = texts(problems)
    assert "column 'days' holds no time in 2 rows: '0' (slide a, line 2), '-3' (slide b, line 3)" in times
    assert "expected a positive number" in times
    assert "neither event nor censored: 'LIVING' (2), 'lost' (1)" in events
    assert "dead/alive" in events
    expected = "P4 (5 censored, 5 event), P5 (6 censored, 7 censored)"
    assert f"2 patients with conflicting 'days' or 'died': {expected}" in conflicts


def test_a_cohort_that_says_nothing_is_an_error(lab) -> None:
    (message,) = texts(scored(lab, [["P1", "a", "3"], ["P2", "b", "3.0"]])[1])
    assert "column 'score' has 1 value in 2 patients; expected values that differ" in message
    (message,) = texts(scored(lab, [["P1", "a", "3", "0"], ["P2", "b", "4", "0"]], SURVIVAL)[1])
    assert "no event in column 'died' (2 patients, all censored)" in message


def test_an_absent_event_column_is_named_by_its_setting(lab) -> None:
    lab.header = ["patient_id", "slide_id", "days", "Died"]
    lab.table([["P1", "a", "3", "1"]])
    (message,) = texts(read_cohort(experiment(lab.folder, SURVIVAL))[1])
    assert "no column 'died'; expected the column of task.event" in message
    assert "set task.event: Died" in message


def patients(labels: list[int], groups: list[str] | None = None) -> pd.DataFrame:
    names = pd.Index([f"P{i:03d}" for i in range(len(labels))], name="patient_id")
    group = pd.Series(groups or [None] * len(labels), dtype=object).to_numpy()
    return pd.DataFrame({"label": labels, "group": group}, index=names)


QUARTERS: dict[str, Any] = {"classes": ("q1", "q2", "q3", "q4"), "required": ()}
EVENTS: dict[str, Any] = {"classes": ("censored", "event"), "required": ("event",)}


@pytest.mark.parametrize("grouped", [False, True])
def test_every_class_is_in_every_role(grouped: bool) -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation([0] * 60 + [1] * 40 + [2] * 20).tolist()
    groups = [f"g{number}" for number in rng.integers(0, 30, 120)] if grouped else None
    table = patients(labels, groups)
    splits = make_splits(table, CvSettings(folds=4, repeats=2), classes=("a", "b", "c"))
    for _, part in splits.groupby(["repeat", "fold", "role"]):
        assert set(table.loc[part["patient_id"], "label"]) == {0, 1, 2}


def test_few_groups_of_several_classes_still_validate() -> None:
    """Five classes that never share a group: the validation part needs five groups, which no pair could give."""
    table = patients([i % 10 // 2 for i in range(60)], [f"g{i % 10}" for i in range(60)])
    splits = fit_split(table, CvSettings(validation=0.05), classes=tuple("abcde"))
    validation = splits[splits["role"] == "val"]["patient_id"]
    assert set(table.loc[validation, "label"]) == set(range(5))


@pytest.mark.parametrize("grouped", [False, True])
def test_folds_hold_events_and_need_no_censored_patient(grouped: bool) -> None:
    groups = [f"g{i % 15}" for i in range(60)] if grouped else None
    table = patients([1] * 58 + [0] * 2, groups)
    splits = make_splits(table, CvSettings(folds=5), **EVENTS)
    assert texts(check_splits(splits, table, **EVENTS)) == []
    rare = patients([0] * 50 + [1] * 10)
    for _, part in make_splits(rare, CvSettings(folds=5), **EVENTS).groupby(["fold", "role"]):
        assert rare.loc[part["patient_id"], "label"].sum() >= 1
    with pytest.raises(SplitError, match="event has 4 patients; expected 5 patients with it → lower cv.folds"):
        make_splits(patients([0] * 50 + [1] * 4), CvSettings(folds=5), **EVENTS)


@pytest.mark.parametrize("grouped", [False, True])
def test_folds_of_values_are_stratified_but_ask_for_no_quarter(grouped: bool) -> None:
    labels = [0] * 30 + [2] * 27 + [3] * 3
    rng = np.random.default_rng(1)
    table = patients(labels, [f"g{number}" for number in rng.integers(0, 12, 60)] if grouped else None)
    splits = make_splits(table, CvSettings(folds=5), **QUARTERS)
    assert texts(check_splits(splits, table, **QUARTERS)) == []
    for fold, part in splits[splits["role"] == "test"].groupby("fold"):
        if not grouped:
            assert (table.loc[part["patient_id"], "label"] == 0).sum() == 6, fold
    with pytest.raises(SplitError, match="there are 16 patients; expected 20 patients"):
        make_splits(patients([0, 1, 2, 3] * 4), CvSettings(folds=5), **QUARTERS)
    with pytest.raises(SplitError, match="there are 3 groups; expected 5 groups"):
        make_splits(patients([0, 1, 2, 3] * 15, ["x", "y", "z"] * 20), CvSettings(folds=5), **QUARTERS)


def test_own_splits_without_events() -> None:
    table = patients([0, 0, 0, 1, 0, 0])
    splits = pd.DataFrame(
        {"repeat": 0, "fold": 0, "role": ["train"] * 2 + ["val"] * 2 + ["test"] * 2, "patient_id": table.index}
    )
    problems = check_splits(splits, table, **EVENTS)
    assert texts(problems) == ["splits, repeat 0 fold 0: no train patient of event; expected event"]
    assert "no test patient of event: its c-index cannot be computed" in texts(problems, "note")[0]


def rows(n: int, cells: list[list[str]]) -> list[list[str]]:
    return [[f"P{i:02d}", f"s{i}", *cells[i]] for i in range(n)]


def test_check_counts_by_task(lab) -> None:
    lab.header = ["patient_id", "slide_id", "score"]
    table = rows(30, [[str(i)] for i in range(30)])
    lab.table(table)
    lab.slides(table)
    report = check(experiment(lab.folder, CONTINUOUS))
    assert report.ok, report.problems
    assert report.counts["patients"] == "30 with score: 0 – 14.5 – 29 (least, median, most)"
    lab.header = ["patient_id", "slide_id", "days", "died"]
    lab.table(rows(30, [[str(i + 1), str(i % 3 // 2)] for i in range(30)]))
    report = check(experiment(lab.folder, SURVIVAL))
    assert report.ok, report.problems
    expected = "30 with days: 10 with the event, 20 censored; times 1 – 15.5 – 30 (least, median, most)"
    assert report.counts["patients"] == expected


def test_rna_must_be_there_for_events(lab) -> None:
    lab.header = ["patient_id", "slide_id", "days", "died"]
    table = rows(40, [[str(i + 1), str(i % 2)] for i in range(40)])
    lab.table(table)
    lab.slides(table)
    lab.rna([row[0] for row in table if row[3] == "0"])
    rna = {"table": "rna.csv", "select": {"method": "variance", "n": 2}}
    report = check(experiment(lab.folder, SURVIVAL, omics=rna))
    found = texts(list(report.problems))
    assert any("no patient with the event has RNA; expected RNA of patients with the event" in text for text in found)
    assert any("no training patient with the event has RNA in repeat 0 fold 0" in text for text in found)
    lab.rna([row[0] for row in table if row[3] == "1"])
    assert check(experiment(lab.folder, SURVIVAL, omics=rna)).ok
