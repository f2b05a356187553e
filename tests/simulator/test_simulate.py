"""The cohort on disk: the same bytes again, an experiment that checks clean, a truth that fits, a fair difficulty."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from momkd.cohort.check import check
from momkd.cohort.dataset import load_data
from momkd.errors import CohortError
from momkd.experiment import load_experiment
from momkd.simulator import SimulatedCohort, SimulationSettings, read_truth, simulate
from momkd.slides.readers import inspect_bag, read_bag

SMALL = SimulationSettings(patients=30, external_patients=10, genes=60, features=16, patches=60, slides_missing=0.05)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> SimulatedCohort:
    return simulate(SMALL, tmp_path_factory.mktemp("cohort") / "new")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_same_seed_same_bytes(cohort: SimulatedCohort, tmp_path: Path) -> None:
    again = contents(simulate(SMALL, tmp_path / "a").folder)
    assert again == contents(cohort.folder)
    other = contents(simulate(replace(SMALL, seed=1), tmp_path / "b").folder)
    for name in ("cohort.csv", "rna.csv.gz", "truth.npz", "features/P0001-1.h5", "external/features/X0001-1.h5"):
        assert other[name] != again[name]


def test_what_it_leaves(cohort: SimulatedCohort) -> None:
    names = {path.relative_to(cohort.folder).as_posix() for path in cohort.folder.glob("*")}
    assert names == {
        "features",
        "external",
        "cohort.csv",
        "rna.csv.gz",
        "experiment.yaml",
        "truth.npz",
        "simulation.json",
    }
    outside = {path.name for path in cohort.external_experiment.parent.iterdir()}
    assert outside == {"features", "cohort.csv", "experiment.yaml", "truth.npz"}
    assert json.loads((cohort.folder / "simulation.json").read_text())["patients"] == 30
    info = inspect_bag(cohort.folder / "features" / "P0002-1.h5")
    assert (info.dtype, info.width, info.encoder) == ("float16", 16, "simulated")
    assert (info.patch_size_level0, info.mpp, info.layout) == (512.0, 0.25, "momkd")


def test_experiments_check_clean(cohort: SimulatedCohort) -> None:
    report = check(load_experiment(cohort.experiment, ["cv.folds=3"]), deep=True)
    assert report.ok, [str(problem) for problem in report.problems]
    assert report.counts["RNA"].endswith("× 60 genes")
    assert any("left out on purpose" in str(problem) for problem in report.problems)
    external = load_data(load_experiment(cohort.external_experiment))
    assert external.omics == {}
    # The one slide without a file is the only one of its patient.
    assert len(external.cohort.patients) == 9


def test_truth_fits_the_files(cohort: SimulatedCohort) -> None:
    truth = read_truth(cohort.truth)
    table = pd.read_csv(cohort.folder / "cohort.csv", dtype=str)
    assert truth.z.shape == (30, 6)
    assert truth.patient_id.tolist() == sorted(set(table["patient_id"]))
    labels = table.drop_duplicates("patient_id")["marker"]
    assert labels.tolist() == [("negative", "positive")[label] for label in truth.label]
    files = sorted(path.stem for path in (cohort.folder / "features").iterdir())
    assert sorted(truth.slide_id.tolist()) == files
    for slide in files:
        informative, tissue_type = truth.patches(slide)
        assert len(informative) == len(tissue_type) == read_bag(cohort.folder / "features" / f"{slide}.h5").n_patches
        assert not tissue_type[informative].any()
    with pytest.raises(CohortError, match="slide nobody: not among"):
        truth.patches("nobody")
    with pytest.raises(CohortError, match="only a simulated cohort has its truth"):
        read_truth(cohort.folder / "none.npz")
    with pytest.raises(CohortError, match="not the truth of a simulated cohort"):
        read_truth(cohort.folder / "simulation.json")


def test_coordinates_are_a_grid(cohort: SimulatedCohort) -> None:
    coords = read_bag(cohort.folder / "features" / "P0003-1.h5").coords
    assert coords is not None
    assert (coords >= 0).all()
    assert (np.diff(np.unique(coords[:, 0])) % 512 == 0).all()


def test_knobs_of_tables(tmp_path: Path) -> None:
    settings = replace(SMALL, patients=40, patches=8, slides_per_patient=1.5, rna_missing=0.25, slides_missing=0.1)
    made = simulate(settings, tmp_path / "c")
    table = pd.read_csv(made.folder / "cohort.csv", dtype=str)
    assert len(table) == 60
    assert table["patient_id"].nunique() == 40
    assert len(list((made.folder / "features").iterdir())) == 54
    assert len(load_experiment(made.experiment).cohort.exclude) == 6
    assert len(pd.read_csv(made.folder / "rna.csv.gz")) == 30
    assert (table["marker"] == "positive").groupby(table["patient_id"]).max().sum() == 12
    assert set(table["site"]) <= {f"S{i}" for i in range(1, 9)}
    none = simulate(replace(settings, rna_missing=0.0, slides_missing=0.0, patches_spread=0.0), tmp_path / "d")
    assert load_experiment(none.experiment).cohort.exclude == ()
    assert {inspect_bag(path).n_patches for path in (none.folder / "features").iterdir()} == {8}


def test_a_slide_does_not_depend_on_the_others(tmp_path: Path) -> None:
    few = simulate(replace(SMALL, slides_missing=0.0, slides_per_patient=1.0), tmp_path / "a")
    more = simulate(replace(SMALL, slides_missing=0.0, slides_per_patient=2.0, genes=20), tmp_path / "b")
    for name in ("P0001-1", "P0030-1"):
        first, second = (made.folder / "features" / f"{name}.h5" for made in (few, more))
        assert first.read_bytes() == second.read_bytes()


def test_rna_file_has_neither_name_nor_time(cohort: SimulatedCohort) -> None:
    raw = (cohort.folder / "rna.csv.gz").read_bytes()
    assert raw[3] == 0
    assert raw[4:8] == b"\0\0\0\0"
    assert gzip.decompress(raw).startswith(b"patient_id,GENE0001,GENE0002")


def test_refuses_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for target in (tmp_path, tmp_path / "file"):
        with pytest.raises(CohortError, match="expected no such folder or an empty one"):
            simulate(SMALL, target)
    (tmp_path / "empty").mkdir()
    assert simulate(replace(SMALL, patients=4, external_patients=4), tmp_path / "empty").experiment.is_file()


def test_the_default_difficulty(tmp_path: Path) -> None:
    """Finding the foci is worth a lot, RNA is worth more, and both stay below their ceilings."""
    made = simulate(SimulationSettings(external_patients=4, genes=20), tmp_path / "demo")
    truth = read_truth(made.truth)
    first = {slide[:-2]: slide for slide in reversed(truth.slide_id.tolist())}
    kept = [i for i, patient in enumerate(truth.patient_id.tolist()) if patient in first]
    y = truth.label[kept]
    means, foci = [], []
    for i in kept:
        slide = first[str(truth.patient_id[i])]
        features = read_bag(made.folder / "features" / f"{slide}.h5").features.astype(np.float64)
        means.append(features.mean(axis=0))
        foci.append(features[truth.patches(slide)[0]].mean(axis=0))

    def auc(values: list[np.ndarray]) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        return float(
            roc_auc_score(y, cross_val_predict(model, np.array(values), y, cv=folds, method="decision_function"))
        )

    assert roc_auc_score(y, truth.bayes_score[kept]) == pytest.approx(0.95, abs=0.05)
    assert roc_auc_score(y, truth.visible_score[kept]) == pytest.approx(0.80, abs=0.06)
    assert 0.60 < auc(means) < 0.73
    assert auc(foci) > auc(means) + 0.06
