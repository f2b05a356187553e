"""A run done again: the same bytes, and every way in which it may not be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from momkd.cli.app import run as momkd
from momkd.errors import RunError
from momkd.experiment import load_experiment
from momkd.files import read_json
from momkd.locks import claim
from momkd.study.crossval import crossval, fit_final
from momkd.study.reproduce import reproduce

CohortMaker = Callable[..., Path]
SMALL = ["cv.folds=2", "train.members=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, make_cohort: CohortMaker) -> Path:
    folder = tmp_path_factory.mktemp("reproduce")
    file = make_cohort(folder)
    crossval(load_experiment(file, SMALL), folder / "run", workers=1)
    return folder / "run"


def test_a_run_is_reproduced(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert momkd(["reproduce", str(run), "--out", str(tmp_path / "again"), "--workers", "1"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "identical: the same splits" in said
    assert "differ by at most 0 (tolerance 0.001); students of 2 of 2 folds are the same bytes" in said
    found = read_json(tmp_path / "again" / "reproduction.json")
    assert found["verdict"] == "identical"
    assert found["changed"] == {}


def changed(run: Path, target: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    """A copy of a run whose predictions were changed afterwards."""
    shutil.copytree(run, target)
    table = pd.read_csv(target / "predictions.csv", dtype={"patient_id": str})
    change(table).to_csv(target / "predictions.csv", index=False)
    return target


def test_small_and_large_differences(run: Path, tmp_path: Path) -> None:
    def shift(by: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
        def change(table: pd.DataFrame) -> pd.DataFrame:
            table.loc[3, "prob_positive"] += by
            return table

        return change

    small = reproduce(changed(run, tmp_path / "small", shift(1e-5)), tmp_path / "small again", workers=1)
    assert small.verdict == "equal within tolerance"
    assert small.largest == pytest.approx(1e-5, rel=1e-3)
    large = reproduce(changed(run, tmp_path / "large", shift(0.01)), tmp_path / "large again", workers=1)
    assert large.verdict == "different"


def test_a_patient_that_only_one_has(run: Path, tmp_path: Path) -> None:
    found = reproduce(changed(run, tmp_path / "run", lambda table: table.drop(index=2)), tmp_path / "again", workers=1)
    assert found.verdict == "different"
    json.dumps(found.largest)


def test_other_data_are_refused(tmp_path: Path, make_cohort: CohortMaker) -> None:
    file = make_cohort(tmp_path)
    crossval(load_experiment(file, SMALL), tmp_path / "run", workers=1)
    make_cohort(tmp_path, seed=1)
    with pytest.raises(RunError, match="cohort table|omics table|feature files"):
        reproduce(tmp_path / "run", tmp_path / "again", workers=1)


def test_a_changed_feature_file_is_noticed(tmp_path: Path, make_cohort: CohortMaker) -> None:
    file = make_cohort(tmp_path)
    crossval(load_experiment(file, SMALL), tmp_path / "run", workers=1)
    first, second = sorted((tmp_path / "features").glob("*.h5"))[:2]
    sizes = {first.stat().st_size, second.stat().st_size}
    second.write_bytes(first.read_bytes() + b" ")
    assert second.stat().st_size not in sizes
    with pytest.raises(RunError, match="feature files changed since this run began"):
        crossval(load_experiment(file, SMALL), tmp_path / "run", workers=1)


def test_the_run_itself_is_no_place(run: Path) -> None:
    with pytest.raises(RunError, match="is the run itself"):
        reproduce(run, run)


def test_a_final_fit_is_reproduced(tmp_path: Path, make_cohort: CohortMaker) -> None:
    fit_final(load_experiment(make_cohort(tmp_path), ["train.members=1"]), tmp_path / "run")
    assert reproduce(tmp_path / "run", tmp_path / "again").verdict == "identical"


def test_two_processes_on_one_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = run.parent / "experiment.yaml"
    sets = [word for one in SMALL for word in ("--set", one)]
    with claim(run / ".lock") as holder:
        assert holder is None
        assert momkd(["crossval", str(experiment), "--out", str(run), *sets]) == 1
    assert "works on it" in " ".join(capsys.readouterr().err.split())
    # Whose process has ended holds nothing, whatever it left.
    (run / ".lock").write_text("host, process 1\n")
    assert momkd(["crossval", str(experiment), "--out", str(run), *sets]) == 0
    assert not (run / ".lock").exists()
