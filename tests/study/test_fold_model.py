"""Cross-fitted members of a fold: who is left out by whom, and what the threshold is chosen on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from momkd.cohort.dataset import CohortData, load_data
from momkd.evaluation.threshold import MaxF1Threshold
from momkd.experiment import Experiment, load_experiment
from momkd.student import load_student
from momkd.study.fold import run_fold
from momkd.study.run_folder import FoldId, RunFolder
from momkd.training.members import member_roles
from momkd.training.prepare import Roles, fit_normalizer, samples_of
from momkd.training.seeds import derive_seed

CohortMaker = Callable[..., Path]
FOLD = FoldId(0, 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, make_cohort: CohortMaker) -> tuple[Experiment, CohortData, Roles]:
    """48 patients of nine sites: seven sites teach, one validates, one is tested; three members."""
    file = make_cohort(tmp_path_factory.mktemp("fold"), patients=48)
    overrides = ["train.members=3", "train.epochs=2", "train.least_steps=0", "features.normalize=standard"]
    experiment = load_experiment(file, overrides)
    cohort = load_data(experiment)
    site = cohort.cohort.patients["group"]
    of = {role: tuple(site.index[site.isin(names)]) for role, names in _SITES.items()}
    return experiment, cohort, Roles(of["train"], of["val"], of["test"])


_SITES = {"val": ["site-7"], "test": ["site-8"], "train": [f"site-{number}" for number in range(7)]}


@pytest.fixture(scope="module")
def run(made: tuple[Experiment, CohortData, Roles], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    experiment, cohort, roles = made
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    run_fold(cohort, experiment, folder, FOLD, roles, lambda event: None)
    return folder


def left_out(experiment: Experiment, cohort: CohortData, roles: Roles) -> list[tuple[str, ...]]:
    """The patients that each member of the fold does not see."""
    seed = derive_seed(experiment.train.seed, "fold", 0, 0) % (1 << 31)
    return [own.val for own in member_roles(cohort, roles, 3, seed)]


def test_each_known_patient_is_judged_by_the_member_that_left_it_out(
    made: tuple[Experiment, CohortData, Roles], run: RunFolder
) -> None:
    _, cohort, roles = made
    slides = pd.read_csv(run.fold(FOLD) / "slides.csv", dtype={"patient_id": str}).set_index("slide_id")
    student = load_student(run.fold(FOLD) / "student")
    assert len(student.members) == 3
    parts = left_out(*made)
    assert sorted(patient for part in parts for patient in part) == sorted(roles.train + roles.val)
    for number, part in enumerate(parts):
        alone = student.member(number)
        for sample in samples_of(cohort, part):
            row = slides.loc[sample.slide_id]
            assert row["role"] == "val"
            assert row["prob_positive"] == alone.predict(cohort.bag(sample.slide_id)).values[1]
    # Not one member, or the vote of all, could have been meant: their probabilities differ.
    first = slides.loc[samples_of(cohort, parts[0])[0].slide_id]
    others = [student.member(1), student.member(2), student]
    bag = cohort.bag(str(first.name))
    assert all(other.predict(bag).values[1] != first["prob_positive"] for other in others)


def test_test_patients_are_judged_by_all_members(made: tuple[Experiment, CohortData, Roles], run: RunFolder) -> None:
    _, cohort, roles = made
    slides = pd.read_csv(run.fold(FOLD) / "slides.csv").query("role == 'test'").set_index("slide_id")
    student = load_student(run.fold(FOLD) / "student")
    assert set(slides["patient_id"]) == set(roles.test)
    for slide_id, prob in slides["prob_positive"].items():
        votes = [student.member(number).predict(cohort.bag(str(slide_id))).values[1] for number in range(3)]
        assert prob == pytest.approx(np.mean(votes), rel=1e-6)


def test_the_threshold_is_chosen_on_who_was_left_out(
    made: tuple[Experiment, CohortData, Roles], run: RunFolder
) -> None:
    table = pd.read_csv(run.fold(FOLD) / "predictions.csv").query("role == 'val'")
    assert len(table) == len(made[2].train + made[2].val)
    positive = (table["label"] == "positive").to_numpy(dtype=np.int64)
    threshold = MaxF1Threshold().fit(positive, table["prob_positive"].to_numpy()).threshold_
    assert json.loads((run.fold(FOLD) / "fold.json").read_text())["threshold"] == threshold
    card = load_student(run.fold(FOLD) / "student").card
    assert card.threshold == threshold
    assert card.validation["patients"] == len(table)


def test_the_normaliser_knows_all_but_the_test_patients(
    made: tuple[Experiment, CohortData, Roles], run: RunFolder
) -> None:
    experiment, cohort, roles = made
    expected = fit_normalizer(cohort, roles.train + roles.val, experiment).arrays()
    found = load_student(run.fold(FOLD) / "student").normalizer.arrays()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
