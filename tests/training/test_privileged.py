"""Several omics tables in one fit: each fitted on its own training patients, all of them teaching."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from momkd.cohort.dataset import CohortData, load_data
from momkd.errors import OmicsError
from momkd.experiment import Experiment, load_experiment
from momkd.models.momkd import MoMKD
from momkd.models.outcome import make_outcome
from momkd.training.batches import training_steps
from momkd.training.fit import FitResult, fit
from momkd.training.prepare import Roles, fit_normalizer, prepare_bags, prepare_fit
from momkd.training.samples import FitData

CohortMaker = Callable[..., Path]
PUBLISHED = ("model.preset=published", "model.programmes.dim=3", "model.teacher.weight=.5", "train.batch_size=8")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, make_cohort: CohortMaker) -> Path:
    return make_cohort(tmp_path_factory.mktemp("several"))


@pytest.fixture(scope="module")
def tables(home: Path, add_cnv: Callable[[Path], list[str]]) -> list[str]:
    return add_cnv(home)


def opened(file: Path, *overrides: str) -> tuple[Experiment, CohortData, Roles]:
    experiment = load_experiment(file, overrides)
    data = load_data(experiment)
    patients = list(data.cohort.patients.index)
    train = [patient for number, patient in enumerate(patients) if number % 3]
    rest = [patient for number, patient in enumerate(patients) if number % 3 == 0]
    return experiment, data, Roles(tuple(train), tuple(rest[:6]), tuple(rest[6:]))


def prepared(experiment: Experiment, data: CohortData, roles: Roles) -> tuple[FitData, pd.DataFrame]:
    bags = prepare_bags(data, fit_normalizer(data, roles.train, experiment), experiment)
    fold, genes = prepare_fit(data, roles, experiment, bags, 0)
    assert genes is not None
    return fold, genes


def test_each_table_has_the_training_patients_that_are_in_it(home: Path, tables: list[str]) -> None:
    experiment, data, roles = opened(home, *tables)
    fold, genes = prepared(experiment, data, roles)
    assert fold.genes == {"cnv": 7, "rna": 8}
    for name, table in fold.tables.items():
        assert set(table.rows.row) == set(roles.train) & set(data.omics[name].values.index)
        assert table.profiles is not None
    assert "P001" not in fold.tables["cnv"].rows.row  # one of the first six: RNA only
    assert fold.soft is not None
    assert set(fold.soft.row) == set(roles.train)
    assert list(genes.columns) == ["table", "rank", "gene", "score"]
    assert genes.groupby("table").size().to_dict() == {"cnv": 7, "rna": 8}
    # standard for one table, winsor (of the preset) for the other, each by its own training patients
    np.testing.assert_allclose(fold.tables["cnv"].rows.values[:-1].std(0, unbiased=False), 1.0, atol=1e-5)


def test_tables_and_rows_of_patients_who_do_not_teach_do_not_matter(home: Path, tables: list[str]) -> None:
    """Validation and test patients' rows of either table may be anything: nothing that is fitted sees them."""
    experiment, data, roles = opened(home, *tables)
    before, genes = prepared(experiment, data, roles)
    for table in data.omics.values():
        others = [patient for patient in table.values.index if patient not in roles.train]
        assert len(others) > 5
        table.values.loc[others] = 1e6
    after, genes_after = prepared(experiment, data, roles)
    pd.testing.assert_frame_equal(genes, genes_after)
    assert before.soft is not None
    assert after.soft is not None
    assert torch.equal(before.soft.values, after.soft.values)
    for name in before.tables:
        one, two = before.tables[name], after.tables[name]
        assert torch.equal(one.rows.values, two.rows.values)
        assert one.profiles is not None
        assert two.profiles is not None
        assert torch.equal(one.profiles.values, two.profiles.values)


def test_one_of_several_tables_is_prepared_as_it_is_alone(home: Path, tables: list[str]) -> None:
    both, _ = prepared(*opened(home, *tables))
    alone, genes = prepared(*opened(home, *tables, "omics.cnv=null"))
    assert torch.equal(both.tables["rna"].rows.values, alone.tables["rna"].rows.values)
    assert list(genes.columns) == ["rank", "gene", "score"]


def test_the_named_tables_teach(home: Path, tables: list[str]) -> None:
    one, _ = prepared(*opened(home, *tables, "model.teacher.tables=[cnv]"))
    alone, _ = prepared(*opened(home, *tables, "omics.rna=null"))
    both, _ = prepared(*opened(home, *tables))
    assert one.soft is not None
    assert alone.soft is not None
    assert both.soft is not None
    assert torch.equal(one.soft.values, alone.soft.values)
    assert "P001" not in one.soft.row
    assert "P001" in both.soft.row
    assert not torch.equal(both.soft.take(both.train)[0], one.soft.take(both.train)[0])


def test_a_table_that_knows_nobody_of_a_fold_is_named(home: Path, tables: list[str]) -> None:
    experiment, data, _ = opened(home, *tables)
    patients = list(data.cohort.patients.index)
    with pytest.raises(OmicsError, match=r"cnv.csv: only 0 of the 6 .* have cnv; .* or leave omics.cnv out"):
        prepared(experiment, data, Roles(tuple(patients[:6]), tuple(patients[6:12])))


def test_every_branch_and_programme_memory_learns(home: Path, tables: list[str]) -> None:
    """Each has a gradient, and each loss is the mean over the tables."""
    experiment, data, roles = opened(home, *tables, *PUBLISHED)
    fold, _ = prepared(experiment, data, roles)
    outcome = make_outcome(experiment.task)
    torch.manual_seed(0)
    model = MoMKD(fold.width, outcome, experiment.model, fold.genes)
    assert set(model.branches) == set(model.student.programmes) == {"cnv", "rna"}
    model.begin_memory(warming=False)
    step = next(training_steps(fold.train[:8], fold, outcome, experiment.train, torch.device("cpu"), 1))
    (batch,) = step.batches
    model(batch.bags, batch.lesson).total.backward()
    for name in ("cnv", "rna"):
        for part in (model.branches[name].encoder, model.branches[name].projector, model.student.programmes[name]):
            assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters()), name
    model.eval()
    with torch.no_grad():
        errors, alignments = [], []
        for name, table in batch.lesson.tables.items():
            known = table.values[table.paired]
            projected, rebuilt = model.branches[name](known)
            errors.append(float((rebuilt - known).square().mean()))
            labels = batch.lesson.memory_class[table.paired]
            alignments.append(float(model.student.memory.alignment_loss(projected, labels, 0.0).mean()))
        losses = model(batch.bags, batch.lesson)
    assert float(losses.reconstruction) == pytest.approx(sum(errors) / 2, rel=1e-5)
    assert float(losses.rna) == pytest.approx(sum(alignments) / 2, rel=1e-5)


def fitted(file: Path, *overrides: str) -> FitResult:
    experiment, data, roles = opened(file, *overrides)
    fold, _ = prepared(experiment, data, roles)
    return fit(fold, experiment.model, experiment.train)


def test_a_fit_moves_both_branches_and_repeats(home: Path, tables: list[str]) -> None:
    result, again, short_fit = (fitted(home, *tables, *PUBLISHED, f"train.epochs={epochs}") for epochs in (2, 2, 1))
    state, other, short = (one.model.state_dict() for one in (result, again, short_fit))
    assert all(torch.equal(state[name], other[name]) for name in state)
    for name in ("branches.cnv.encoder.0.weight", "branches.rna.encoder.0.weight"):
        assert not torch.equal(state[name], short[name])
    codes = {name: memory.codes for name, memory in result.model.student.programme_memories().items()}
    assert all(torch.allclose(rows.norm(dim=-1), torch.tensor(1.0), atol=1e-5) for rows in codes.values())
    assert not torch.equal(codes["cnv"], codes["rna"])
    assert all(np.isfinite(row["loss_total"]) for row in result.history)
