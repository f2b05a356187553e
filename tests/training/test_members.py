"""Cross-fitted members: everybody is left out once, and sites stay whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from momkd.cohort.dataset import CohortData, load_data
from momkd.experiment import load_experiment
from momkd.training.members import member_roles
from momkd.training.prepare import Roles


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory, make_cohort: Callable[..., Path]) -> CohortData:
    return load_data(load_experiment(make_cohort(tmp_path_factory.mktemp("members"), patients=72)))


def roles(cohort: CohortData) -> Roles:
    patients = [str(patient) for patient in cohort.cohort.patients.index]
    return Roles(tuple(patients[:50]), tuple(patients[50:60]), tuple(patients[60:]))


def test_every_patient_is_left_out_by_one_member_and_no_test_patient_is_seen(cohort: CohortData) -> None:
    whole = roles(cohort)
    members = member_roles(cohort, whole, 3, seed=0)
    known = set(whole.train + whole.val)
    assert len(members) == 3
    assert Counter(patient for own in members for patient in own.val) == Counter(known)
    for own in members:
        assert set(own.train) == known - set(own.val)
        assert own.test == ()
        assert {cohort.labels[patient] for patient in own.val} == {0, 1}


def test_sites_are_not_divided(cohort: CohortData) -> None:
    group = cohort.cohort.patients["group"]
    for own in member_roles(cohort, roles(cohort), 4, seed=1):
        assert not set(group.loc[list(own.train)]) & set(group.loc[list(own.val)])


def test_one_member_is_the_fold(cohort: CohortData) -> None:
    whole = roles(cohort)
    assert member_roles(cohort, whole, 1, seed=0) == [Roles(whole.train, whole.val)]


def test_the_seed_decides(cohort: CohortData) -> None:
    assert member_roles(cohort, roles(cohort), 3, seed=0) == member_roles(cohort, roles(cohort), 3, seed=0)
    assert member_roles(cohort, roles(cohort), 3, seed=0) != member_roles(cohort, roles(cohort), 3, seed=5)
