"""Cross-validation with two omics tables: what it leaves, that it repeats, and that its data are watched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from momkd.cli.data import do_genes
from momkd.errors import RunError
from momkd.experiment import Experiment, load_experiment
from momkd.study.crossval import crossval
from momkd.study.many import NamedExperiment, try_many
from momkd.study.predict import predict

CohortMaker = Callable[..., Path]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, make_cohort: CohortMaker) -> Path:
    return make_cohort(tmp_path_factory.mktemp("several")).parent


@pytest.fixture(scope="module")
def tables(home: Path, add_cnv: Callable[[Path], list[str]]) -> list[str]:
    return add_cnv(home / "experiment.yaml")


@pytest.fixture(scope="module")
def run(home: Path, tables: list[str]) -> Path:
    return crossval(load(home, *tables), home / "run", workers=1).run


def load(home: Path, *overrides: str) -> Experiment:
    return load_experiment(home / "experiment.yaml", overrides)


def test_what_it_leaves(home: Path, run: Path) -> None:
    genes = pd.read_csv(run / "fold-0-0" / "genes.csv")
    assert list(genes.columns) == ["member", "table", "rank", "gene", "score"]
    assert genes.groupby(["member", "table"]).size().tolist() == [7, 8, 7, 8]
    card = json.loads((run / "fold-0-0" / "student" / "student.json").read_text())
    assert card["programmes"] == ["cnv", "rna"]
    of_all_members = len(genes[["table", "gene"]].drop_duplicates())
    assert f"taught by {of_all_members} genes" in card["source"]
    environment = json.loads((run / "environment.json").read_text())
    assert set(environment["data"]) == {"feature files", "cohort table", "omics table cnv", "omics table rna"}
    # The student needs histology alone.
    assert len(predict(run, [home / "features"])) > 0


def test_the_same_bytes_again_whatever_the_order_of_the_tables(home: Path, run: Path, tmp_path: Path) -> None:
    turned = "omics={cnv: {table: cnv.csv, scale: standard}, rna: {table: rna.csv, select: {method: variance, n: 8}}}"
    crossval(load(home, turned), tmp_path / "again", workers=1)
    assert (tmp_path / "again" / "predictions.csv").read_bytes() == (run / "predictions.csv").read_bytes()
    for student in run.glob("fold-*/student/student.safetensors"):
        assert (tmp_path / "again" / student.relative_to(run)).read_bytes() == student.read_bytes()


def test_a_run_notices_that_any_of_its_tables_changed(home: Path, run: Path, tables: list[str], tmp_path: Path) -> None:
    for name in ("cohort.csv", "rna.csv", "cnv.csv", "experiment.yaml"):
        shutil.copy(home / name, tmp_path / name)
    shutil.copytree(home / "features", tmp_path / "features")
    crossval(load(tmp_path, *tables), tmp_path / "run", workers=1)
    cnv = pd.read_csv(tmp_path / "cnv.csv", index_col=0)
    cnv.iloc[0, 0] += 1.0
    cnv.to_csv(tmp_path / "cnv.csv")
    with pytest.raises(RunError, match="omics table cnv changed since this run began"):
        crossval(load(tmp_path, *tables), tmp_path / "run", workers=1)


def test_both_tables_teach(home: Path, run: Path, tables: list[str], tmp_path: Path) -> None:
    """Without one of them the student is another one."""
    one = crossval(load(home, *tables, "omics.cnv=null"), tmp_path / "one", workers=1).run
    assert (one / "predictions.csv").read_bytes() != (run / "predictions.csv").read_bytes()
    assert list(pd.read_csv(one / "fold-0-0" / "genes.csv").columns) == ["member", "rank", "gene", "score"]


def test_a_share_is_drawn_by_the_seed_of_the_folds_in_shared_work_too(
    home: Path, tables: list[str], tmp_path: Path
) -> None:
    """Runs that share their processes share a cohort only where they use the same patients."""
    quick = ("omics={table: rna.csv, share: .6}", "train.epochs=1", "model.teacher.weight=0")
    alone = crossval(load(home, *quick, "cv.seed=4"), tmp_path / "alone", workers=1).run
    several = [NamedExperiment(f"seed-{seed}", load(home, *quick, f"cv.seed={seed}")) for seed in (0, 4)]
    try_many(several, tmp_path / "many", workers=1).raise_failures()
    together = tmp_path / "many" / "seed-4" / "predictions.csv"
    assert together.read_bytes() == (alone / "predictions.csv").read_bytes()


def test_genes_of_every_table(home: Path, tables: list[str], tmp_path: Path) -> None:
    do_genes(load(home, *tables), tmp_path / "genes")
    for name, columns in (("genes.csv", 5), ("folds.csv", 8), ("stability.csv", 4)):
        table = pd.read_csv(tmp_path / "genes" / name)
        assert table.columns[0] == "table"
        assert len(table.columns) == columns
        assert sorted(set(table["table"])) == ["cnv", "rna"]
