"""Who trains, who validates, who tests: patients and groups never straddle roles.

A split table has the columns repeat (int64, 0-based), fold (int64, 0-based), role ("train", "val" or "test") and
patient_id, sorted by repeat, fold, role and patient. It depends on the seed and on who is in the cohort, never on the
order of rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from momkd.cohort.balance import Counts, assign_groups, validation_groups
from momkd.cohort.tabular import read_text_table
from momkd.errors import Problem, SplitError, raise_problems, summarise
from momkd.experiment import CvSettings
from momkd.files import atomic_path

ROLES = ("train", "val", "test")


def make_splits(
    patients: pd.DataFrame, cv: CvSettings, *, classes: Sequence[str] = (), required: Sequence[str] | None = None
) -> pd.DataFrame:
    """Divide patients into stratified folds, and each fold's training patients into train and validation.

    ``patients``: indexed by patient_id, columns label (int) and group (str, or None everywhere for no groups);
    ``classes`` names the labels (``Cohort.strata``), and ``required`` those that must be in every role of every fold
    (``Cohort.required``; None: all). Without groups the test folds are scikit-learn's StratifiedKFold; with groups they
    are the best balanced of many random assignments, because StratifiedGroupKFold orders groups by size and so repeats
    nearly the same folds whatever its seed. Raises SplitError saying which class is too rare.
    """
    table = _Patients(patients, classes, required)
    # With two folds the training part is a single fold and must itself be divided, so each needs two of a class.
    needed = 4 if cv.folds == 2 else cv.folds
    table.check(needed, f"{cv.folds} folds with a validation part", "lower cv.folds, add patients")
    rows = []
    for repeat in range(cv.repeats):
        fold_of = table.test_folds(cv.folds, seed=(cv.seed, repeat))
        for fold in range(cv.folds):
            training = fold_of != fold
            validation = table.validation(training, cv.validation, seed=(cv.seed, repeat, fold))
            role = np.where(~training, "test", np.where(validation, "val", "train"))
            rows.append(pd.DataFrame({"repeat": repeat, "fold": fold, "role": role, "patient_id": table.names}))
    return sort_splits(pd.concat(rows, ignore_index=True))


def fit_split(
    patients: pd.DataFrame, cv: CvSettings, *, classes: Sequence[str] = (), required: Sequence[str] | None = None
) -> pd.DataFrame:
    """Divide all patients into train and validation, with no test fold: repeat 0, fold 0.

    Arguments and guarantees are those of ``make_splits``. Raises SplitError.
    """
    table = _Patients(patients, classes, required)
    table.check(2, "a training and a validation part", "add patients")
    everyone = np.ones(len(table.names), dtype=bool)
    validation = table.validation(everyone, cv.validation, seed=(cv.seed, 0, 0))
    role = np.where(validation, "val", "train")
    return sort_splits(pd.DataFrame({"repeat": 0, "fold": 0, "role": role, "patient_id": table.names}))


def load_splits(
    patients: pd.DataFrame, cv: CvSettings, *, classes: Sequence[str] = (), required: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return the user's own splits where ``cv.splits`` names a file, and otherwise ``make_splits``.

    Raises SplitError with every rule that the user's file breaks.
    """
    if cv.splits is None:
        return make_splits(patients, cv, classes=classes, required=required)
    splits, problems = read_splits(cv.splits, patients, classes=classes, required=required)
    raise_problems(problems, SplitError)
    return splits


def read_splits(
    path: Path,
    patients: pd.DataFrame,
    *,
    test: bool = True,
    classes: Sequence[str] = (),
    required: Sequence[str] | None = None,
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read a split table and check it against the patients of the cohort.

    Columns repeat, fold, role, patient_id; ``test`` says whether every fold needs a test part. Returns the table in
    canonical order (empty if it cannot be read at all) and every problem, notes among them. Raises nothing.
    """
    name = str(path)
    empty = pd.DataFrame({"repeat": [], "fold": [], "role": [], "patient_id": []})
    table, problems = read_text_table(path, dict.fromkeys(("repeat", "fold", "role", "patient_id"), "a split table"))
    if table is None:
        return sort_splits(empty), problems
    table = table.apply(lambda column: column.str.strip())
    for column in ("repeat", "fold"):
        wrong = table[~table[column].str.fullmatch(r"[0-9]{1,9}")]
        if len(wrong):
            found = f"column {column!r} holds {_values(wrong[column])}, first in line {wrong.index[0]}"
            problems.append(Problem(name, found, "whole numbers from 0"))
    wrong = table[~table["role"].isin(ROLES)]
    if len(wrong):
        found = f"column 'role' holds {_values(wrong['role'])}, first in line {wrong.index[0]}"
        problems.append(Problem(name, found, ", ".join(ROLES)))
    if problems:
        return sort_splits(empty), problems
    splits = sort_splits(table.astype({"repeat": np.int64, "fold": np.int64}))
    return splits, check_splits(splits, patients, name=name, test=test, classes=classes, required=required)


def check_splits(
    splits: pd.DataFrame,
    patients: pd.DataFrame,
    *,
    name: str = "splits",
    test: bool = True,
    classes: Sequence[str] = (),
    required: Sequence[str] | None = None,
) -> list[Problem]:
    """Return every rule of leak-free evaluation that a split table breaks, and what its user should know.

    Errors: patients that the cohort lacks, a patient or group in two roles of a fold, a fold without a train, val or
    (where ``test``) test part, a required class missing from train or val. Notes: cohort patients in no fold, patients
    tested more than once in a repeat (Monte-Carlo cross-validation), a required class missing from a test part.
    """
    unknown = sorted(set(splits["patient_id"]) - set(patients.index))
    problems = []
    if unknown:
        found = f"{len(unknown)} patients are not in the cohort: {summarise(unknown)}"
        problems.append(Problem(name, found, "labelled patients of the cohort table"))
    unused = sorted(set(patients.index) - set(splits["patient_id"]))
    if unused:
        found = f"{len(unused)} patients of the cohort are in no fold and left out: {summarise(unused)}"
        problems.append(Problem(name, found, severity="note"))
    if splits.empty:
        return [*problems, Problem(name, "no rows", "one row a repeat, fold and patient")]
    strata = _named(classes, patients["label"])
    needed = _places(strata, required)
    for (repeat, fold), part in splits.groupby(["repeat", "fold"], sort=True):
        problems += _fold_problems(f"{name}, repeat {repeat} fold {fold}", part, patients, test, strata, needed)
    tested = splits[splits["role"] == "test"]
    again = tested[tested.duplicated(["repeat", "patient_id"])]
    if len(again):
        names = sorted(set(again["patient_id"]))
        found = f"{len(names)} patients are tested in several folds of a repeat: {summarise(names)}"
        problems.append(Problem(name, found, severity="note"))
    return problems


def _fold_problems(
    name: str, part: pd.DataFrame, patients: pd.DataFrame, test: bool, classes: Sequence[str], needed: Sequence[int]
) -> list[Problem]:
    problems = []
    twice = sorted(set(part.loc[part["patient_id"].duplicated(), "patient_id"]))
    if twice:
        problems.append(
            Problem(name, f"patients listed more than once: {summarise(twice)}", "one role a patient and fold")
        )
    known = part[part["patient_id"].isin(patients.index)]
    group = patients["group"].reindex(known["patient_id"]).to_numpy(dtype=object)
    roles_of = known.assign(group=group).dropna(subset="group").groupby("group")["role"].unique()
    straddling = [f"{one} ({', '.join(sorted(roles))})" for one, roles in roles_of.items() if len(roles) > 1]
    if straddling:
        found = f"groups in more than one role: {summarise(straddling)}"
        mend = "move them whole, or leave cohort.group out if groups may straddle"
        problems.append(Problem(name, found, "one role a group and fold", mend))
    labels = patients["label"].reindex(known["patient_id"]).to_numpy()
    for role in ROLES if test else ROLES[:2]:
        present = set(labels[(known["role"] == role).to_numpy()].tolist())
        absent = [classes[label] for label in needed if label not in present]
        if not present:
            problems.append(Problem(name, f"no {role} patient", f"a {role} part"))
        elif absent and role == "test":
            metric = "AUC" if len(needed) > 1 else "c-index"
            found = f"no test patient of {', '.join(absent)}: its {metric} cannot be computed"
            problems.append(Problem(name, found, severity="note"))
        elif absent:
            problems.append(Problem(name, f"no {role} patient of {', '.join(absent)}", _every(classes, needed)))
    return problems


def _named(classes: Sequence[str], labels: pd.Series) -> tuple[str, ...]:
    """Return a name for every label, made up where ``classes`` has none."""
    n = max(2, len(classes), int(labels.max()) + 1 if len(labels) else 0)
    return tuple(classes[label] if label < len(classes) else f"class {label}" for label in range(n))


def _places(names: Sequence[str], required: Sequence[str] | None) -> list[int]:
    return [label for label, name in enumerate(names) if required is None or name in required]


def _every(classes: Sequence[str], needed: Sequence[int]) -> str:
    if len(needed) == 1:
        return classes[needed[0]]
    return "both classes" if len(needed) == 2 else "every class"


def _values(column: pd.Series) -> str:
    return summarise([repr(value) for value in sorted(set(column))])


def write_splits(splits: pd.DataFrame, target: Path) -> None:
    """Write a split table as CSV, atomically and in canonical order; equal tables give equal bytes."""
    with atomic_path(target) as temporary:
        sort_splits(splits)[["repeat", "fold", "role", "patient_id"]].to_csv(
            temporary, index=False, lineterminator="\n"
        )


def sort_splits(splits: pd.DataFrame) -> pd.DataFrame:
    """Return a split table in its canonical order: repeat, fold, role (train, val, test), patient_id."""
    place = splits["role"].map({role: position for position, role in enumerate(ROLES)})
    table = splits.assign(place=place).sort_values(["repeat", "fold", "place", "patient_id"], kind="stable")
    table = table.drop(columns="place").reset_index(drop=True)
    return table.astype({"repeat": np.int64, "fold": np.int64, "role": object, "patient_id": object})


class _Patients:
    """Patients in canonical order, and how many of each class every group holds."""

    def __init__(self, patients: pd.DataFrame, classes: Sequence[str], required: Sequence[str] | None) -> None:
        ordered = patients.sort_index(kind="stable")
        if not ordered.index.is_unique:
            raise SplitError(f"patient {ordered.index[ordered.index.duplicated()][0]!r} is listed more than once")
        self.names = ordered.index.to_numpy(dtype=object)
        self.labels = ordered["label"].to_numpy(dtype=np.int64)
        self.classes = _named(classes, ordered["label"])
        self.n_classes = len(self.classes)
        self.needed = _places(self.classes, required)
        self.required = np.isin(np.arange(self.n_classes), self.needed)
        groups = ordered["group"]
        self.grouped = bool(groups.notna().any())
        if self.grouped and groups.isna().any():
            raise SplitError(f"patient {groups.index[groups.isna()][0]!r} has no group, and others have")
        text = groups.to_numpy(dtype=str) if self.grouped else self.names.astype(str)
        self.group = np.unique(text, return_inverse=True)[1].reshape(-1)

    def counts(self, of: NDArray[np.bool_] | None = None) -> Counts:
        """Return patients per group and class (groups, classes), counting only the patients in ``of``."""
        chosen = np.ones(len(self.names), dtype=bool) if of is None else of
        counts = np.zeros((int(self.group.max(initial=-1)) + 1, self.n_classes), dtype=np.int64)
        np.add.at(counts, (self.group[chosen], self.labels[chosen]), 1)
        return counts

    def check(self, needed: int, purpose: str, mend: str) -> None:
        """Raise SplitError naming every class with fewer than ``needed`` patients, or groups where there are any."""
        counts = self.counts()
        lines = []
        unit, ways = ("groups", f"{mend} or leave cohort.group out") if self.grouped else ("patients", mend)
        for label in self.needed:
            patients, groups = int(counts[:, label].sum()), int((counts[:, label] > 0).sum())
            if (groups if self.grouped else patients) < needed:
                of_groups = f" in {groups} groups" if self.grouped else ""
                lines.append(f"{self.classes[label]} has {patients} patients{of_groups}")
        expected = f"{needed} {unit} of each class" if len(self.needed) > 1 else f"{needed} {unit} with it"
        if not self.needed:
            # Nothing must be in every part; but each quarter of the values should be able to.
            least = needed if self.grouped else needed * self.n_classes
            found = int((counts.sum(axis=1) > 0).sum())
            lines = [f"there are {found} {unit}"] if found < least else []
            expected = f"{least} {unit}"
        if lines:
            raise SplitError(f"too few for {purpose}: {'; '.join(lines)}; expected {expected} → {ways}")

    def test_folds(self, folds: int, seed: tuple[int, ...]) -> Counts:
        """Return the test fold of every patient."""
        rng = np.random.default_rng(seed)
        if self.grouped:
            fold_of_group = assign_groups(self.counts(), folds, rng, self.required)
            if fold_of_group is None:
                raise SplitError(self._hopeless("every test fold", "lower cv.folds or leave cohort.group out"))
            return fold_of_group[self.group]
        splitter = StratifiedKFold(folds, shuffle=True, random_state=int(rng.integers(2**31)))
        fold_of = np.zeros(len(self.names), dtype=np.int64)
        with warnings.catch_warnings():
            # It warns of classes with fewer patients than folds: those that are required have been counted.
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            for fold, (_, test) in enumerate(splitter.split(self.labels, self.labels)):
                fold_of[test] = fold
        return fold_of

    def validation(self, training: NDArray[np.bool_], share: float, seed: tuple[int, ...]) -> NDArray[np.bool_]:
        """Choose the validation patients among the training patients: a mask over all patients."""
        rng = np.random.default_rng((*seed, 1))
        if self.grouped:
            chosen = validation_groups(self.counts(training), share, rng, self.required)
            if chosen is None:
                where = "the training and the validation part"
                raise SplitError(self._hopeless(where, "lower cv.folds, change cv.seed or leave cohort.group out"))
            return chosen[self.group] & training
        chosen = np.zeros(len(self.names), dtype=bool)
        for label in range(self.n_classes):
            members = rng.permutation(np.flatnonzero(training & (self.labels == label)))
            n = min(max(1, round(share * len(members))), len(members) - 1)
            chosen[members[: max(n, 0)]] = True
        return chosen

    def _hopeless(self, where: str, mend: str) -> str:
        counts = self.counts()
        listed = "; ".join(
            f"{name}: {counts[:, label].sum()} patients in {(counts[:, label] > 0).sum()} groups, "
            f"{counts[:, label].max()} of them in one"
            for label, name in enumerate(self.classes)
        )
        what = _every(self.classes, self.needed) if self.needed else "patients"
        return f"no division of the groups puts {what} into {where}: {listed} → {mend}"
