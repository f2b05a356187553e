"""The main job, end to end on a tiny cohort: what it leaves, that it does not leak, that it repeats and resumes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from momkd.errors import CohortError, RunError, StudentError
from momkd.experiment import Experiment, load_experiment
from momkd.study.crossval import crossval, fit_final
from momkd.study.events import Event
from momkd.study.external import evaluate
from momkd.study.predict import predict

CohortMaker = Callable[..., Path]
RESULTS = ("predictions.csv", "slides.csv", "metrics.json", "splits.csv")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, make_cohort: CohortMaker) -> Path:
    """A tiny cohort with a finished run in ``run`` and an external cohort in ``external``."""
    folder = tmp_path_factory.mktemp("home")
    experiment = load_experiment(make_cohort(folder))
    make_cohort(folder / "external", patients=14, seed=5, prefix="X")
    crossval(experiment, folder / "run", workers=1)
    return folder


def load(home: Path, *overrides: str) -> Experiment:
    return load_experiment(home / "experiment.yaml", list(overrides))


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"patient_id": str, "slide_id": str})


def students(run: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(run.glob("fold-*/student/student.*"))]


def without_seconds(run: Path) -> dict[str, object]:
    metrics = json.loads((run / "metrics.json").read_text())
    metrics.pop("seconds")
    return metrics


def test_what_a_run_leaves(home: Path) -> None:
    run = home / "run"
    names = {path.name for path in run.iterdir()}
    told = {"experiment.yaml", "environment.json", "log.txt", "patients.csv"}
    assert names == {*RESULTS, *told, "fold-0-0", "fold-0-1", "fold-0-2"}
    for fold in sorted(run.glob("fold-*")):
        left = {path.relative_to(fold).as_posix() for path in fold.rglob("*") if path.is_file()}
        student = {"student/student.json", "student/student.safetensors"}
        assert left == student | {
            "history.csv",
            "genes.csv",
            "memory.safetensors",
            "fold.json",
            "predictions.csv",
            "slides.csv",
        }
    predictions, slides = read(run / "predictions.csv"), read(run / "slides.csv")
    columns = ["repeat", "fold", "role", "patient_id", "label", "prob_negative", "prob_positive"]
    assert list(predictions.columns) == columns
    assert "slide_id" in slides.columns
    test = predictions[predictions["role"] == "test"]
    assert sorted(test["patient_id"]) == sorted(set(read(home / "cohort.csv")["patient_id"]))
    mean = slides.groupby(["fold", "role", "patient_id"])["prob_positive"].mean()
    own = predictions.set_index(["fold", "role", "patient_id"])["prob_positive"]
    pd.testing.assert_series_equal(own.sort_index(), mean.sort_index())
    assert (run / "log.txt").read_text().count("validation AUC") == 18  # folds × members × epochs


def test_metrics_have_means_pooled_values_and_intervals(home: Path) -> None:
    metrics = json.loads((home / "run" / "metrics.json").read_text())
    for role in ("test", "val"):
        for name in ("auc", "auprc", "f1", "balanced_accuracy", "sensitivity", "specificity", "brier"):
            entry = metrics[role][name]
            assert len(entry["values"]) == 3
            assert entry["mean"] == pytest.approx(np.mean(entry["values"]))
            assert entry["ci_low"] <= entry["pooled"] <= entry["ci_high"]
            assert entry["ci_method"]
    assert "DeLong" in metrics["test"]["auc"]["ci_method"]


def test_splits_keep_patients_and_sites_apart(home: Path) -> None:
    splits = read(home / "run" / "splits.csv")
    site = read(home / "cohort.csv").drop_duplicates("patient_id").set_index("patient_id")["site"]
    splits["site"] = splits["patient_id"].map(site)
    for key in ("patient_id", "site"):
        assert (splits.groupby(["fold", key])["role"].nunique() == 1).all()


def test_same_seed_same_bytes_on_any_number_of_workers(home: Path, tmp_path: Path) -> None:
    crossval(load(home), tmp_path / "again", workers=2)
    for name in ("predictions.csv", "slides.csv", "splits.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (home / "run" / name).read_bytes()
    assert students(tmp_path / "again") == students(home / "run")
    assert without_seconds(tmp_path / "again") == without_seconds(home / "run")


class _Stop(Exception):
    pass


def test_resume_equals_uninterrupted(home: Path, tmp_path: Path) -> None:
    def stop_in_second_fold(event: Event) -> None:
        if event.kind == "epoch" and event.fold == 1 and event.epoch == 2:
            raise _Stop

    run = tmp_path / "run"
    with pytest.raises(_Stop):
        crossval(load(home), run, workers=1, watch=stop_in_second_fold)
    assert not (run / "metrics.json").exists()
    with pytest.raises(RunError, match=r"unfinished, 2 of 3 folds are missing"):
        predict(run, [home / "features"])
    events: list[Event] = []
    crossval(load(home), run, workers=1, watch=events.append)
    assert [event.fold for event in events if event.kind == "skipped"] == [0]
    assert (run / "predictions.csv").read_bytes() == (home / "run" / "predictions.csv").read_bytes()
    assert students(run) == students(home / "run")


def test_what_a_killed_process_left_unfinished_goes(home: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(home / "run", run)
    before = sorted(run.rglob("*"))
    gone = [".metrics.12.0123abcd.tmp.json", "fold-0-1/.memory.12.0123abcd.tmp.safetensors"]
    stays = [".report.12.0123abcd.tmp.html", "fold-0-1/.mine.tmp.txt"]  # another process writes it; not ours
    for name in (*gone, *stays):
        (run / name).write_text("half a file")
    crossval(load(home), run, workers=1)
    assert sorted(run.rglob("*")) == sorted([*before, *(run / name for name in stays)])


def test_other_settings_or_data_are_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"other settings(.|\n)*train.lr: 0.005 then, 0.1 now"):
        crossval(load(home, "train.lr=0.1"), home / "run")
    (tmp_path / "thesis.doc").write_text("mine")
    with pytest.raises(RunError, match="not empty and is not a run"):
        crossval(load(home), tmp_path)
    assert (tmp_path / "thesis.doc").read_text() == "mine"


def test_changed_rna_is_refused(tmp_path: Path, make_cohort: CohortMaker) -> None:
    file = make_cohort(tmp_path / "cohort")
    crossval(load_experiment(file), tmp_path / "run", workers=1)
    rna = file.parent / "rna.csv"
    rna.write_text(rna.read_text().replace("G00", "GX0"))
    with pytest.raises(RunError, match="omics table changed since this run began"):
        crossval(load_experiment(file), tmp_path / "run", workers=1)


def _copy(home: Path, target: Path) -> Path:
    shutil.copytree(home, target, ignore=shutil.ignore_patterns("run", "external"))
    return target


def test_poisoned_test_patients_change_no_checkpoint(home: Path, tmp_path: Path) -> None:
    """Labels, RNA and features of the test patients of fold 0 become garbage; the student stays byte-identical."""
    poisoned = _copy(home, tmp_path / "poisoned")
    splits = read(home / "run" / "splits.csv")
    fold = splits[splits["fold"] == 0]
    fold.to_csv(poisoned / "splits.csv", index=False)
    victims = set(fold.loc[fold["role"] == "test", "patient_id"])

    cohort = read(poisoned / "cohort.csv")
    hit = cohort["patient_id"].isin(victims)
    cohort.loc[hit, "status"] = cohort.loc[hit, "status"].map({"negative": "positive", "positive": "negative"})
    cohort.to_csv(poisoned / "cohort.csv", index=False)
    rna = pd.read_csv(poisoned / "rna.csv", index_col=0)
    rna.loc[rna.index.isin(victims)] = 1e4
    rna.to_csv(poisoned / "rna.csv")
    for slide in cohort.loc[hit, "slide_id"]:
        with h5py.File(poisoned / "features" / f"{slide}.h5", "r+") as file:
            file["features"][...] = 1000.0

    options = ("cv.splits=splits.csv", "features.normalize=standard")
    crossval(load(poisoned, *options), tmp_path / "after", workers=1)
    clean = _copy(home, tmp_path / "clean")
    fold.to_csv(clean / "splits.csv", index=False)
    crossval(load(clean, *options), tmp_path / "before", workers=1)
    assert students(tmp_path / "after") == students(tmp_path / "before")
    assert (tmp_path / "after" / "fold-0-0" / "genes.csv").read_bytes() == (
        tmp_path / "before" / "fold-0-0" / "genes.csv"
    ).read_bytes()
    before, after = read(tmp_path / "before" / "predictions.csv"), read(tmp_path / "after" / "predictions.csv")
    is_val = before["role"] == "val"
    pd.testing.assert_frame_equal(before[is_val], after[is_val])
    assert not np.allclose(before.loc[~is_val, "prob_positive"], after.loc[~is_val, "prob_positive"])


def test_order_of_rows_and_names_of_slides_change_nothing(home: Path, tmp_path: Path) -> None:
    moved = _copy(home, tmp_path / "moved")
    rng = np.random.default_rng(1)
    cohort = read(moved / "cohort.csv").sample(frac=1.0, random_state=2)
    names = {
        old: f"slide-{number}" for old, number in zip(cohort["slide_id"], rng.permutation(len(cohort)), strict=True)
    }
    cohort["slide_id"] = cohort["slide_id"].map(names)
    cohort.to_csv(moved / "cohort.csv", index=False)
    for old, new in names.items():
        (moved / "features" / f"{old}.h5").rename(moved / "features" / f"{new}.h5")
    rna = pd.read_csv(moved / "rna.csv", index_col=0)
    rna.sample(frac=1.0, random_state=3).sample(frac=1.0, axis=1, random_state=4).to_csv(moved / "rna.csv")
    crossval(load(moved), tmp_path / "run", workers=1)
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == (home / "run" / "predictions.csv").read_bytes()


def test_predict_gives_the_test_predictions_of_a_fold(home: Path) -> None:
    table = read(home / "cohort.csv")
    patients = dict(zip(table["slide_id"], table["patient_id"], strict=True))
    slides, by_patient = predict(home / "run" / "fold-0-1", [home / "features"], patients=patients)
    assert len(slides) == len(table)
    own = read(home / "run" / "predictions.csv")
    own = own[(own["fold"] == 1) & (own["role"] == "test")].set_index("patient_id")["prob_positive"]
    found = by_patient.set_index("patient_id")["prob_positive"].loc[own.index]
    np.testing.assert_array_equal(found, own)
    threshold = json.loads((home / "run" / "fold-0-1" / "fold.json").read_text())["threshold"]
    assert ((by_patient["prob_positive"] >= threshold) == (by_patient["predicted"] == "positive")).all()


def test_predict_needs_no_rna_on_the_disk(home: Path, tmp_path: Path) -> None:
    bare = _copy(home, tmp_path / "bare")
    (bare / "rna.csv").unlink()
    before, _ = predict(home / "run", [home / "features"])
    after, _ = predict(home / "run", [bare / "features"])
    pd.testing.assert_frame_equal(before, after)


def test_evaluate_external_cohort_with_and_without_its_rna(home: Path, tmp_path: Path) -> None:
    external = load_experiment(home / "external" / "experiment.yaml")
    first = evaluate(home / "run", external, tmp_path / "first")
    (home / "external" / "rna.csv").rename(home / "external" / "rna.gone")
    evaluate(home / "run", external, tmp_path / "second")
    (home / "external" / "rna.gone").rename(home / "external" / "rna.csv")
    for name in ("predictions.csv", "slides.csv", "metrics.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    predictions = read(tmp_path / "first" / "predictions.csv")
    assert set(predictions["role"]) == {"test"}
    assert len(predictions) == 14
    assert first.metrics["test"]["auc"]["ci_method"]
    votes = [predict(home / "run" / f"fold-0-{i}", [home / "external" / "features"])[0] for i in range(3)]
    mean = np.mean([vote.set_index("slide_id")["prob_positive"].sort_index() for vote in votes], axis=0)
    together = read(tmp_path / "first" / "slides.csv").set_index("slide_id")["prob_positive"].sort_index()
    np.testing.assert_allclose(together, mean, rtol=1e-6)


def test_evaluate_refuses_patients_that_the_run_has_seen(home: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"36 patients of this cohort took part in .*--allow-overlap"):
        evaluate(home / "run", load(home), tmp_path / "out")
    evaluate(home / "run", load(home), tmp_path / "out", allow_overlap=True)
    with pytest.raises(RunError, match="not empty"):
        evaluate(home / "run", load(home), tmp_path / "out", allow_overlap=True)


def test_evaluate_refuses_other_classes(home: Path, tmp_path: Path) -> None:
    other = load(home, "task.classes=[low, high]")
    with pytest.raises(RunError, match=r"predicts status as \['negative', 'positive'\].*task.map"):
        evaluate(home / "run", other, tmp_path / "out")


def test_fit_leaves_a_run_of_one_fold_without_test(home: Path, tmp_path: Path) -> None:
    result = fit_final(load(home), tmp_path / "final")
    splits = read(tmp_path / "final" / "splits.csv")
    assert set(splits["role"]) == {"train", "val"}
    assert len(splits) == 36
    assert "test" not in result.metrics
    slides, _ = predict(tmp_path / "final", [home / "external" / "features"])
    assert len(slides) == 15 + 2
    with pytest.raises(RunError, match="holds the splits of `momkd crossval`"):
        fit_final(load(home), home / "run")


def test_without_rna(home: Path, tmp_path: Path) -> None:
    crossval(load(home, "omics=null"), tmp_path / "run", workers=1)
    assert not list((tmp_path / "run").glob("fold-*/genes.csv"))
    same = read(tmp_path / "run" / "splits.csv").equals(read(home / "run" / "splits.csv"))
    assert same, "the control must run on the same folds"


def test_patients_without_rna_are_welcome(home: Path, tmp_path: Path) -> None:
    partial = _copy(home, tmp_path / "partial")
    rna = pd.read_csv(partial / "rna.csv", index_col=0)
    rna.iloc[6:].to_csv(partial / "rna.csv")
    crossval(load(partial), tmp_path / "run", workers=1)
    assert len(read(tmp_path / "run" / "predictions.csv").query("role == 'test'")) == 36


def test_predict_reports_every_slide_that_it_cannot_score(home: Path, tmp_path: Path) -> None:
    bad = _copy(home, tmp_path / "bad") / "features"
    victims = sorted(bad.iterdir())[:2]
    with h5py.File(victims[0], "r+") as file:
        file["features"][0, 0] = np.nan
    victims[1].write_bytes(b"")
    with pytest.raises(
        Exception, match=f"2 of 44 slides cannot be scored(.|\n)*{victims[0].stem}(.|\n)*{victims[1].stem}"
    ):
        predict(home / "run", [bad])
    with pytest.raises(StudentError, match="neither a run, a fold nor a student"):
        predict(home / "features", [bad])


def test_all_problems_of_a_cohort_come_before_any_training(home: Path, tmp_path: Path) -> None:
    broken = _copy(home, tmp_path / "broken")
    (broken / "features" / "P001-S0.h5").unlink()
    (broken / "features" / "P002-S0.h5").write_bytes(b"x")
    with pytest.raises(CohortError, match=r"P001-S0(.|\n)*P002-S0"):
        crossval(load(broken), tmp_path / "run")
    assert not (tmp_path / "run").exists()
