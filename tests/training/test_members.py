"""Cross-fitted members: everybody is left out once, and sites stay whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from momkd.cohort.dataset import CohortData, load_data
from momkd.cohort.values import quarters_of
from momkd.experiment import Experiment, load_experiment
from momkd.training.fit import fit
from momkd.training.members import member_roles
from momkd.training.prepare import Roles, fit_normalizer, prepare_bags, prepare_fit


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


TASKS = {
    "binary": "{label: status, classes: [negative, positive]}",
    "continuous": "{type: continuous, label: score}",
    "survival": "{type: survival, label: months, event: died}",
}


def opened(folder: Path, kind: str) -> tuple[Experiment, CohortData]:
    overrides = [
        f"task={TASKS[kind]}",
        "train.epochs=2",
        "train.least_steps=0",
        "train.schedule=cosine",
        "train.sampling=balanced",
    ]
    experiment = load_experiment(folder / "experiment.yaml", overrides)
    return experiment, load_data(experiment)


def weights(experiment: Experiment, data: CohortData, own: Roles) -> dict[str, torch.Tensor]:
    """One member, trained with soft labels and programmes."""
    bags = prepare_bags(data, fit_normalizer(data, own.train, experiment), experiment)
    fold, _ = prepare_fit(data, own, experiment, bags, 0)
    assert fold.soft is not None
    return fit(fold, experiment.model, experiment.train).model.state_dict()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, make_cohort: Callable[..., Path]) -> Path:
    """A cohort with a value and a time of survival besides its classes."""
    folder = tmp_path_factory.mktemp("outcomes")
    make_cohort(folder, patients=36)
    table = pd.read_csv(folder / "cohort.csv")
    number = table["patient_id"].str[1:].astype(int)
    table["score"], table["months"], table["died"] = (
        (7 * number) % 36,
        1 + (5 * number) % 36,
        (number % 3 > 0).astype(int),
    )
    table.to_csv(folder / "cohort.csv", index=False)
    return folder


@pytest.mark.parametrize("kind", TASKS)
def test_a_member_knows_nothing_of_whom_it_left_out(outcomes: Path, kind: str) -> None:
    """Outcomes and RNA of the patients left out become others; a training patient's outcome would have been noticed."""
    experiment, data = opened(outcomes, kind)
    patients = [str(patient) for patient in data.cohort.patients.index]
    own = member_roles(data, Roles(tuple(patients[:24]), tuple(patients[24:30]), tuple(patients[30:])), 2, seed=0)[1]
    clean = weights(experiment, data, own)
    strangers = [patient for patient in patients if patient not in own.train]
    assert len(strangers) > 15

    def poison(data: CohortData, victims: list[str]) -> None:
        table = data.cohort.patients
        table.loc[victims, "value"] = 1000 - 3 * table.loc[victims, "value"]
        if kind == "continuous":  # the quarters of the whole cohort are others then
            table["label"] = quarters_of(table["value"].to_numpy())
        else:
            table.loc[victims, "label"] = 1 - table.loc[victims, "label"]

    _, poisoned = opened(outcomes, kind)
    poison(poisoned, strangers)
    rna = poisoned.omics["rna"].values
    rna.loc[[patient for patient in strangers if patient in rna.index]] = 1e5
    after = weights(experiment, poisoned, own)
    assert all(torch.equal(clean[name], after[name]) for name in clean)

    _, noticed = opened(outcomes, kind)
    poison(noticed, [own.train[0]])
    other = weights(experiment, noticed, own)
    assert any(not torch.equal(clean[name], other[name]) for name in clean)
