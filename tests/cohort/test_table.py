"""The cohort table: what is read, what is noted, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from momkd.cohort.table import Cohort, read_cohort
from momkd.errors import Problem

ROWS = [
    ["P2", "b", "Positive"],
    ["P1", "a2", "negative"],
    ["P1", "a1", "NEGATIVE"],
    ["P3", "c", " positive "],
]


def texts(problems: list[Problem], severity: str) -> list[str]:
    return [str(problem) for problem in problems if problem.severity == severity]


def errors(result: tuple[Cohort, list[Problem]]) -> list[str]:
    return texts(result[1], "error")


def notes(result: tuple[Cohort, list[Problem]]) -> list[str]:
    return texts(result[1], "note")


def test_reads_slides_and_patients_in_canonical_order(lab) -> None:
    lab.table(ROWS)
    lab.slides(ROWS)
    cohort, problems = read_cohort(lab.experiment())
    assert problems == []
    assert cohort.slides[["patient_id", "slide_id"]].values.tolist() == [
        ["P1", "a1"],
        ["P1", "a2"],
        ["P2", "b"],
        ["P3", "c"],
    ]
    assert cohort.slides["path"].tolist()[0] == lab.folder / "features" / "a1.h5"
    assert cohort.patients.index.tolist() == ["P1", "P2", "P3"]
    assert cohort.patients["label"].tolist() == [0, 1, 1]
    assert cohort.patients["group"].isna().all()
    assert cohort.classes == ("negative", "positive")


def test_row_order_changes_nothing(lab) -> None:
    lab.slides(ROWS)
    lab.table(ROWS)
    first, _ = read_cohort(lab.experiment())
    lab.table(ROWS[::-1])
    second, _ = read_cohort(lab.experiment())
    pd.testing.assert_frame_equal(first.slides, second.slides)
    pd.testing.assert_frame_equal(first.patients, second.patients)


@pytest.mark.parametrize(("name", "separator"), [("t.tsv", "\t"), ("t.csv", ","), ("t.txt", "\t")])
def test_text_formats_keep_leading_zeros(lab, name: str, separator: str) -> None:
    rows = [["007", "0010", "negative"], ["8", "0011", "positive"]]
    lab.table(rows, name=name, separator=separator)
    lab.slides(rows)
    cohort, problems = read_cohort(lab.experiment(cohort={"table": name}))
    assert problems == []
    assert cohort.patients.index.tolist() == ["007", "8"]
    assert cohort.slides["slide_id"].tolist() == ["0010", "0011"]


def test_compressed_table_with_byte_order_mark(lab) -> None:
    lab.slides(ROWS)
    frame = pd.DataFrame(ROWS, columns=lab.header)
    frame.to_csv(lab.folder / "t.csv.gz", index=False, encoding="utf-8-sig")
    assert errors(read_cohort(lab.experiment(cohort={"table": "t.csv.gz"}))) == []


def test_parquet_of_numbers_and_gaps(lab) -> None:
    frame = pd.DataFrame({"patient_id": [7, 8, 9], "slide_id": ["a", "b", "c"], "y": [1.0, 0.0, None]})
    frame.to_parquet(lab.folder / "t.parquet")
    lab.slide("a")
    lab.slide("b")
    experiment = lab.experiment(cohort={"table": "t.parquet"}, task={"label": "y", "classes": [0, 1]})
    cohort, problems = read_cohort(experiment)
    assert texts(problems, "error") == []
    assert cohort.patients["label"].to_dict() == {"7": 1, "8": 0}
    assert "1 slide without a 'y' label left out: c" in texts(problems, "note")[0]


def test_unlabelled_rows_are_noted_with_names(lab) -> None:
    rows = [*ROWS, ["P4", "d", ""], ["P5", "e", "NA"]]
    lab.table(rows)
    lab.slides(ROWS)
    result = read_cohort(lab.experiment())
    assert errors(result) == []
    assert len(notes(result)) == 1
    assert "2 slides without a 'HER2' label left out: d, e" in notes(result)[0]
    assert [str(note) for note in result[0].notes] == notes(result)


def test_map_gives_other_words_a_class(lab) -> None:
    rows = [["P1", "a", "H"], ["P2", "b", "l"], ["P3", "c", "na"]]
    lab.table(rows)
    lab.slides(rows)
    cohort, problems = read_cohort(lab.experiment(task={"map": {"h": "positive", "L": "Negative", "NA": "negative"}}))
    assert problems == []
    assert cohort.patients["label"].tolist() == [1, 0, 0]


def test_unknown_label_lists_values_and_offers_a_map(lab) -> None:
    rows = [*ROWS, ["P4", "d", "pos"], ["P5", "e", "pos"], ["P6", "f", "equivocal"]]
    lab.table(rows)
    lab.slides(ROWS)
    (message,) = errors(read_cohort(lab.experiment()))
    assert "column 'HER2' has values that are no class: 'equivocal' (1), 'pos' (2)" in message
    assert "expected negative, positive" in message
    assert "task.map: {'equivocal': <class>, 'pos': positive}" in message


def test_numbers_written_as_floats_are_offered_not_applied(lab) -> None:
    rows = [["P1", "a", "1.0"], ["P2", "b", "0.0"]]
    lab.table(rows)
    lab.slides(rows)
    cohort, problems = read_cohort(lab.experiment(task={"classes": [0, 1]}))
    assert len(cohort.patients) == 0
    assert "task.map: {'0.0': 0, '1.0': 1}" in texts(problems, "error")[0]


def test_missing_columns_name_the_nearest(lab) -> None:
    lab.header = ["Patient ID", "slide_id", "ER"]
    lab.table(ROWS)
    found = errors(read_cohort(lab.experiment()))
    assert len(found) == 2
    assert "no column 'patient_id'; expected the column of cohort.patient" in found[0]
    assert "did you mean 'Patient ID'? set cohort.patient: Patient ID" in found[0]
    assert "no column 'HER2'" in found[1]
    assert "its columns are Patient ID, slide_id, ER" in found[1]


def test_wrong_separator_is_recognised(lab) -> None:
    lab.table(ROWS, separator=";")
    assert (
        "the whole header was read as one column ('patient_id;slide_id;HER2')"
        in errors(read_cohort(lab.experiment()))[0]
    )


def test_column_that_occurs_twice(lab) -> None:
    lab.header = ["patient_id", "slide_id", "HER2", "HER2"]
    lab.table([[*row, row[2]] for row in ROWS])
    assert "2 columns are called 'HER2'" in errors(read_cohort(lab.experiment()))[0]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00bad\xff", b"a,b\n1,2,3\n"])
def test_unreadable_table(lab, content: bytes) -> None:
    (lab.folder / "cohort.csv").write_bytes(content)
    (message,) = errors(read_cohort(lab.experiment()))
    assert "cohort.csv: not readable as a table" in message


def test_table_that_is_not_there_or_of_unknown_kind(lab) -> None:
    assert "no such file" in errors(read_cohort(lab.experiment()))[0]
    (lab.folder / "cohort.xlsx").write_bytes(b"x")
    (message,) = errors(read_cohort(lab.experiment(cohort={"table": "cohort.xlsx"})))
    assert "its name ends in '.xlsx', which is none of .csv" in message
    (lab.folder / "cohort.parquet").write_bytes(b"x")
    assert "not readable" in errors(read_cohort(lab.experiment(cohort={"table": "cohort.parquet"})))[0]


def test_empty_ids_name_column_and_lines(lab) -> None:
    rows = [*ROWS, ["", "d", "positive"], ["P9", " ", "positive"], ["", "", ""], ["", "e", "positive"]]
    lab.table(rows)
    lab.slides(ROWS)
    found = errors(read_cohort(lab.experiment()))
    assert len(found) == 2
    assert "column 'patient_id' is empty in 2 rows (line 6, 9)" in found[0]
    assert "column 'slide_id' is empty in 1 row (line 7)" in found[1]


def test_spaces_around_ids_are_removed_and_noted(lab) -> None:
    lab.table([["P1 ", "a", "negative"], [" P1", " b", "negative"], ["P2", "c", "positive"]])
    lab.slides([["", slide] for slide in "abc"])
    result = read_cohort(lab.experiment())
    assert errors(result) == []
    assert "spaces around 3 ids were removed: ' P1', ' b', 'P1 '" in notes(result)[0]
    assert result[0].patients.index.tolist() == ["P1", "P2"]


@pytest.mark.parametrize("slide", ["../secret", "a/b", "..", "a\\b", "~root"])
def test_slide_ids_stay_in_the_feature_folder(lab, slide: str) -> None:
    lab.table([*ROWS, ["P9", slide, "positive"]])
    lab.slides(ROWS)
    result = read_cohort(lab.experiment())
    assert len(errors(result)) == 1
    assert "1 slide id could lead out of the feature folder" in errors(result)[0]
    assert slide not in result[0].slides["slide_id"].tolist()


def test_duplicates_within_and_across_patients(lab) -> None:
    lab.table([*ROWS, ["P2", "b", "positive"], ["P3", "a1", "positive"]])
    lab.slides(ROWS)
    found = errors(read_cohort(lab.experiment()))
    assert "1 slide on more than one row: b" in found[0]
    assert "1 slide given to several patients: a1 (P1, P3)" in found[1]


def test_conflicting_labels_and_an_absent_class(lab) -> None:
    lab.table([["P1", "a", "negative"], ["P1", "b", "positive"], ["P2", "c", "positive"]])
    lab.slide("c")
    found = errors(read_cohort(lab.experiment()))
    assert "1 patient with conflicting 'HER2' labels: P1 (negative, positive)" in found[0]
    assert "no patient of class negative in column 'HER2' (patients: negative 0, positive 1)" in found[1]


def test_groups(lab) -> None:
    lab.header.append("site")
    rows = [["P1", "a", "negative", "X"], ["P1", "b", "negative", "X"], ["P2", "c", "positive", "Y"]]
    lab.table(rows)
    lab.slides(rows)
    cohort, problems = read_cohort(lab.experiment(cohort={"group": "site"}))
    assert problems == []
    assert cohort.patients["group"].to_dict() == {"P1": "X", "P2": "Y"}
    lab.table([*rows[:1], ["P1", "b", "negative", "Z"], ["P2", "c", "positive", ""]])
    found = errors(read_cohort(lab.experiment(cohort={"group": "site"})))
    assert "1 patient in more than one 'site': P1 ('X', 'Z')" in found[0]
    assert "1 patient without a 'site': P2" in found[1]
    assert "leave cohort.group out" in found[1]


def test_excluded_slides_are_noted_and_must_exist(lab) -> None:
    lab.table(ROWS)
    lab.slides([row for row in ROWS if row[1] != "c"])
    result = read_cohort(lab.experiment(cohort={"exclude": ["c", "a11"]}))
    assert result[0].slides["slide_id"].tolist() == ["a1", "a2", "b"]
    assert "1 slide not in" in errors(result)[0]
    assert "did you mean 'a1'?" in errors(result)[0]
    assert "1 slide left out on purpose: c" in notes(result)[0]
    assert "1 patient with no other slide left out with them: P3" in notes(result)[1]


def test_missing_feature_files_are_errors(lab) -> None:
    lab.table(ROWS)
    lab.slides(ROWS[:2])
    result = read_cohort(lab.experiment())
    assert len(errors(result)) == 2
    assert "a1: no feature file" in errors(result)[0]
    assert result[0].slides["slide_id"].tolist() == ["a2", "b"]
    assert result[0].patients.index.tolist() == ["P1", "P2", "P3"]


def test_missing_feature_folder(lab) -> None:
    lab.table(ROWS)
    assert "no such folder" in errors(read_cohort(lab.experiment(features={"dir": "nowhere"})))[0]


def test_every_problem_at_once(lab) -> None:
    lab.table([*ROWS, ["P4", "../x", "positive"], ["", "d", "positive"], ["P5", "e", "maybe"], ["P1", "f", "positive"]])
    found = "\n".join(errors(read_cohort(lab.experiment(cohort={"exclude": ["zz"]}))))
    for text in ("lead out of", "is empty", "no class", "conflicting", "cohort.exclude", "feature"):
        assert text in found


def test_real_cohort(shared: Path) -> None:
    from momkd.experiment import build_experiment

    raw = {
        "cohort": {"table": "cohort.csv", "group": "site"},
        "features": {"dir": "features"},
        "task": {"label": "HER2", "classes": ["negative", "positive"]},
    }
    cohort, problems = read_cohort(build_experiment(raw, base=shared / "data" / "tcga_brca"))
    assert texts(problems, "error") == []
    assert cohort.patients["label"].value_counts().to_dict() == {0: 461, 1: 104}
    assert "119 slides without a 'HER2' label" in texts(problems, "note")[0]
