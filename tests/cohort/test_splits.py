"""Folds: disjoint, stratified, the same for any row order; and a user's own folds, checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from momkd.cohort.splits import check_splits, fit_split, load_splits, make_splits, read_splits, write_splits
from momkd.errors import SplitError
from momkd.experiment import CvSettings


def patients(labels: list[int], groups: list[str] | None = None) -> pd.DataFrame:
    names = [f"P{i:03d}" for i in range(len(labels))]
    group = pd.Series(groups or [None] * len(labels), dtype=object).to_numpy()
    return pd.DataFrame({"label": labels, "group": group}, index=pd.Index(names, name="patient_id"))


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[pd.DataFrame, CvSettings]:
    n_groups = draw(st.integers(0, 30))
    n = draw(st.integers(40, 120))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    prevalence = draw(st.floats(0.25, 0.75))
    labels = (rng.uniform(size=n) < prevalence).astype(int).tolist()
    groups = [f"g{number}" for number in rng.integers(0, n_groups, n)] if n_groups >= 12 else None
    cv = CvSettings(
        folds=draw(st.integers(2, 5)),
        repeats=draw(st.integers(1, 2)),
        validation=draw(st.sampled_from([0.1, 0.15, 0.3])),
        seed=draw(st.integers(0, 99)),
    )
    return patients(labels, groups), cv


@settings(max_examples=25, deadline=None, derandomize=True)
@given(cohorts())
def test_no_patient_and_no_group_straddles(case: tuple[pd.DataFrame, CvSettings]) -> None:
    table, cv = case
    splits = make_splits(table, cv)
    grouped = table["group"].notna().any()
    assert splits.columns.tolist() == ["repeat", "fold", "role", "patient_id"]
    for _, part in splits.groupby(["repeat", "fold"]):
        assert sorted(part["patient_id"]) == table.index.tolist()
        own = table.loc[part["patient_id"]]
        if grouped:
            assert pd.Series(part["role"].to_numpy()).groupby(own["group"].to_numpy()).nunique().max() == 1
        for role in ("train", "val", "test"):
            assert set(own["label"][(part["role"] == role).to_numpy()]) == {0, 1}
    tested = splits[splits["role"] == "test"]
    assert not tested.duplicated(["repeat", "patient_id"]).any()
    assert len(tested) == len(table) * cv.repeats
    assert [problem for problem in check_splits(splits, table) if problem.severity == "error"] == []


@settings(max_examples=12, deadline=None, derandomize=True)
@given(cohorts(), st.randoms(use_true_random=False))
def test_row_order_changes_nothing(case: tuple[pd.DataFrame, CvSettings], random) -> None:  # type: ignore[no-untyped-def]
    table, cv = case
    order = list(table.index)
    random.shuffle(order)
    pd.testing.assert_frame_equal(make_splits(table, cv), make_splits(table.loc[order], cv))
    pd.testing.assert_frame_equal(fit_split(table, cv), fit_split(table.loc[order], cv))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(cohorts())
def test_stratified_to_within_a_patient_without_groups(case: tuple[pd.DataFrame, CvSettings]) -> None:
    table, cv = case
    table = table.assign(group=None)
    for _, part in make_splits(table, cv).groupby(["repeat", "fold"]):
        label = table["label"].loc[part["patient_id"]].to_numpy()
        role = part["role"].to_numpy()
        for value in (0, 1):
            total = (table["label"] == value).sum()
            assert abs(((role == "test") & (label == value)).sum() - total / cv.folds) < 1
            training = ((role != "test") & (label == value)).sum()
            validation = ((role == "val") & (label == value)).sum()
            assert abs(validation - max(1, cv.validation * training)) <= 0.5


def many_sites() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    size = 1.0 / np.sqrt(np.arange(1, 26))
    sites = rng.choice([f"s{i:02d}" for i in range(25)], 500, p=size / size.sum())
    return patients((rng.uniform(size=500) < 0.2).astype(int).tolist(), sites.tolist())


def test_grouped_folds_are_balanced_and_differ_between_repeats() -> None:
    table = many_sites()
    splits = make_splits(table, CvSettings(repeats=3))
    tested = splits[splits["role"] == "test"].assign(label=lambda t: table["label"].loc[t["patient_id"]].to_numpy())
    positives = tested[tested["label"] == 1].groupby(["repeat", "fold"]).size()
    expected = (table["label"] == 1).sum() / 5
    assert (abs(positives - expected) <= 0.15 * expected).all()
    validation = (splits["role"] == "val").sum() / (splits["role"] != "test").sum()
    assert abs(validation - 0.15) < 0.02
    pairs = []
    for repeat in range(3):
        fold = tested[tested["repeat"] == repeat].set_index("patient_id")["fold"].sort_index().to_numpy()
        pairs.append(fold[:, None] == fold[None, :])
    assert (pairs[0] & pairs[1]).sum() < 0.9 * pairs[0].sum()


def test_seed_and_repeat_matter_and_are_reproducible() -> None:
    table = patients([0, 1] * 30)
    first = make_splits(table, CvSettings(repeats=2))
    pd.testing.assert_frame_equal(first, make_splits(table, CvSettings(repeats=2)))
    assert not first.equals(make_splits(table, CvSettings(repeats=2, seed=1)))
    by_repeat = [first[first["repeat"] == repeat]["patient_id"].tolist() for repeat in (0, 1)]
    assert by_repeat[0] != by_repeat[1]
    alone = make_splits(table, CvSettings(repeats=1))
    pd.testing.assert_frame_equal(alone, first[first["repeat"] == 0].reset_index(drop=True))


def test_too_few_patients_of_a_class() -> None:
    with pytest.raises(SplitError, match=r"too few for 5 folds .*: HER2\+ has 4 patients; expected 5 patients of each"):
        make_splits(patients([0] * 50 + [1] * 4), CvSettings(), classes=("HER2-", "HER2+"))
    with pytest.raises(SplitError, match="class 1 has 0 patients"):
        make_splits(patients([0] * 50), CvSettings())
    with pytest.raises(SplitError, match="class 1 has 3 patients; expected 4"):
        make_splits(patients([0] * 50 + [1] * 3), CvSettings(folds=2))
    assert len(make_splits(patients([0] * 4 + [1] * 4), CvSettings(folds=2))) == 16
    assert len(make_splits(patients([0] * 3 + [1] * 3), CvSettings(folds=3))) == 18


def test_too_few_groups_of_a_class() -> None:
    labels, groups = [0, 1] * 30, [f"g{i % 4}" for i in range(60)]
    with pytest.raises(SplitError, match=r"class 0 has 30 patients in 2 groups; .*leave cohort.group out"):
        make_splits(patients(labels, groups), CvSettings())


def test_groups_that_cannot_be_divided() -> None:
    # Two groups hold class 1 and both together all of class 0: one must be tested, none is left to divide.
    table = patients([0, 1] * 20, [f"g{i // 20}" for i in range(40)])
    with pytest.raises(SplitError, match="too few for a training and a validation part|no division"):
        fit_split(patients([0, 0, 1, 1], ["a", "b", "c", "c"]), CvSettings())
    splits = fit_split(table, CvSettings())
    assert splits["role"].value_counts().to_dict() == {"train": 20, "val": 20}


def test_validation_is_found_even_if_few_groups_allow_it() -> None:
    # Class 1 sits in two of many groups, so a random order seldom begins with the right pair.
    labels = [0] * 200 + [1] * 8
    groups = [f"g{i // 4:02d}" for i in range(200)] + ["a"] * 4 + ["b"] * 4
    splits = fit_split(patients(labels, groups), CvSettings())
    assert set(splits[splits["patient_id"] >= "P200"]["role"]) == {"train", "val"}


def test_fit_split_has_train_and_val_only() -> None:
    table = patients([0] * 70 + [1] * 30)
    splits = fit_split(table, CvSettings(validation=0.2))
    assert splits["role"].value_counts().to_dict() == {"train": 80, "val": 20}
    assert table["label"].loc[splits[splits["role"] == "val"]["patient_id"]].sum() == 6
    assert set(splits["repeat"]) == set(splits["fold"]) == {0}


def test_patients_with_and_without_group() -> None:
    with pytest.raises(SplitError, match="patient 'P003' has no group"):
        make_splits(patients([0, 1] * 10, ["a", "b", "c", None] * 5), CvSettings())
    doubled = pd.concat([patients([0, 1] * 10)] * 2)
    with pytest.raises(SplitError, match="'P000' is listed more than once"):
        make_splits(doubled, CvSettings())


def test_written_and_read_again(tmp_path: Path) -> None:
    table = patients([0, 1] * 20)
    splits = make_splits(table, CvSettings())
    write_splits(splits.sample(frac=1, random_state=0), tmp_path / "splits.csv")
    again, problems = read_splits(tmp_path / "splits.csv", table)
    assert problems == []
    pd.testing.assert_frame_equal(splits, again)
    before = (tmp_path / "splits.csv").read_bytes()
    write_splits(again, tmp_path / "splits.csv")
    assert (tmp_path / "splits.csv").read_bytes() == before
    loaded = load_splits(table, CvSettings(splits=tmp_path / "splits.csv"))
    pd.testing.assert_frame_equal(loaded, splits)
    pd.testing.assert_frame_equal(load_splits(table, CvSettings()), splits)


def own_splits(**roles: list[str]) -> pd.DataFrame:
    rows = [(0, 0, role, name) for role, names in roles.items() for name in names]
    return pd.DataFrame(rows, columns=["repeat", "fold", "role", "patient_id"])


SIX = patients([0, 1] * 4, list("aabbccdd"))
GOOD = {"train": ["P000", "P001"], "val": ["P002", "P003"], "test": ["P004", "P005", "P006", "P007"]}


def found(**changes: list[str]) -> list[str]:
    return [str(problem) for problem in check_splits(own_splits(**{**GOOD, **changes}), SIX, classes=("neg", "pos"))]


def test_own_splits_that_are_right() -> None:
    assert found() == []


def test_own_splits_with_strangers_and_absentees() -> None:
    messages = found(test=["P004", "P005", "Q1"])
    assert "splits: 1 patients are not in the cohort: Q1; expected labelled patients" in messages[0]
    assert "2 patients of the cohort are in no fold and left out: P006, P007" in messages[1]


def test_own_splits_that_leak() -> None:
    (message,) = found(test=["P004", "P005", "P006", "P007", "P001"])[:1]
    assert "splits, repeat 0 fold 0: patients listed more than once: P001" in message
    (message,) = found(train=["P000", "P001", "P004"], test=["P005", "P006", "P007"])
    assert "groups in more than one role: c (test, train); expected one role a group and fold" in message


def test_own_splits_without_a_class_or_a_role() -> None:
    assert "no val patient of pos; expected both classes" in "".join(found(val=["P002"], train=["P000", "P001"]))
    assert "no val patient; expected a val part" in "".join(found(val=[]))
    assert "no test patient; expected a test part" in "".join(found(test=[]))
    (note,) = [text for text in found(test=["P004"]) if "AUC" in text]
    assert "no test patient of pos: its AUC cannot be computed" in note
    without = own_splits(train=GOOD["train"] + ["P004", "P005"], val=GOOD["val"] + ["P006", "P007"])
    assert check_splits(without, SIX, test=False) == []
    assert "no rows" in str(check_splits(without.iloc[:0], SIX)[-1])


def test_patients_may_be_tested_twice_with_a_note() -> None:
    first = own_splits(**GOOD)
    (note,) = check_splits(pd.concat([first, first.assign(fold=1)]), SIX)
    assert note.severity == "note"
    assert "4 patients are tested in several folds of a repeat: P004, P005, P006, P007" in str(note)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0,0,validation,P000", "column 'role' holds 'validation', first in line 2; expected train, val, test"),
        ("0,x,train,P000", "column 'fold' holds 'x', first in line 2; expected whole numbers from 0"),
        ("-1,0,train,P000", "column 'repeat' holds '-1'"),
    ],
)
def test_own_file_with_wrong_cells(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "s.csv"
    path.write_text(f"repeat,fold,role,patient_id\n{line}\n")
    splits, problems = read_splits(path, SIX)
    assert splits.empty
    assert message in str(problems[0])
    with pytest.raises(SplitError, match="s.csv"):
        load_splits(SIX, CvSettings(splits=path))


def test_own_file_without_a_column_or_file(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("repeat,fold,Role,patient\n0,0,train,P000\n")
    _, problems = read_splits(tmp_path / "s.csv", SIX)
    assert "no column 'role'" in str(problems[0])
    assert "did you mean 'Role'? rename it" in str(problems[0])
    _, problems = read_splits(tmp_path / "none.csv", SIX)
    assert "no such file" in str(problems[0])
