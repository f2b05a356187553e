"""Every task from the table to an external verdict: crossval, predict, evaluate."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from momkd.cli.app import run as momkd
from momkd.errors import RunError, StudentError
from momkd.experiment import Experiment, load_experiment
from momkd.study.crossval import crossval
from momkd.study.external import evaluate
from momkd.study.predict import predict

CohortMaker = Callable[..., Path]
TASKS = {
    "classification": "{label: grade, classes: [low, medium, high]}",
    "ordinal": "{type: ordinal, label: grade, classes: [low, medium, high]}",
    "continuous": "{type: continuous, label: score}",
    "survival": "{type: survival, label: months, event: died}",
}
COLUMNS = {
    "classification": ["prob_low", "prob_medium", "prob_high", "predicted"],
    "ordinal": ["prob_low", "prob_medium", "prob_high", "predicted"],
    "continuous": ["predicted"],
    "survival": ["risk"],
}
OBSERVED = {kind: ["time", "event"] if kind == "survival" else ["label"] for kind in TASKS}
METRICS = {
    "classification": {"macro_auc", "accuracy", "balanced_accuracy", "macro_f1", "brier", "ece"}
    | {f"auc_{name}" for name in ("low", "medium", "high")},
    "ordinal": {"kappa", "spearman", "macro_auc", "accuracy", "class_error"},
    "continuous": {"spearman", "pearson", "r2", "mae", "rmse", "concordance"},
    "survival": {"c_index", "uno_c_index"},
}
MAIN = {"classification": "macro_auc", "ordinal": "kappa", "continuous": "spearman", "survival": "c_index"}


def _add_outcomes(folder: Path) -> None:
    """A value of each patient that its class decides up to some noise, and what can be made of it."""
    table = pd.read_csv(folder / "cohort.csv")
    rng = np.random.default_rng(1)
    ids = table["patient_id"].unique()
    positive = table.drop_duplicates("patient_id").set_index("patient_id")["status"] == "positive"
    value = pd.Series(positive.loc[ids].to_numpy() + 0.4 * rng.normal(size=len(ids)), ids)
    third = value.rank(pct=True)
    grade = third.map(lambda share: "low" if share < 0.34 else "medium" if share < 0.67 else "high")
    months, died = (np.exp(3 - value)).round(3), pd.Series(rng.random(len(ids)) < 0.7, ids)
    for name, column in {
        "score": 10 * value.round(4),
        "grade": grade,
        "months": months,
        "died": died.astype(int),
    }.items():
        table[name] = table["patient_id"].map(column)
    table.to_csv(folder / "cohort.csv", index=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, make_cohort: CohortMaker) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    make_cohort(folder, patients=36)
    make_cohort(folder / "external", patients=14, seed=7, prefix="X")
    for place in (folder, folder / "external"):
        _add_outcomes(place)
    for kind in TASKS:
        crossval(experiment(folder, kind), folder / kind, workers=1)
    return folder


def main_metric(kind: str, table: pd.DataFrame) -> float:
    """The main metric of a table of predictions, by other people's code or by pairs."""
    if kind == "survival":
        pairs = [
            (a.risk > b.risk) + 0.5 * (a.risk == b.risk)
            for a in table.itertuples()
            for b in table.itertuples()
            if a.event == 1 and (a.time < b.time or (a.time == b.time and b.event == 0))
        ]
        return float(np.mean(pairs))
    if kind == "continuous":
        return float(spearmanr(table["label"], table["predicted"]).statistic)
    names = ["low", "medium", "high"]
    prob = table[[f"prob_{name}" for name in names]].to_numpy()
    label = table["label"].map(names.index).to_numpy()
    if kind == "ordinal":
        return float(cohen_kappa_score(label, prob.argmax(1), weights="quadratic"))
    return float(np.mean([roc_auc_score(label == c, prob[:, c]) for c in range(3)]))


def experiment(folder: Path, kind: str, *overrides: str) -> Experiment:
    settings = ["cv.folds=2", "train.epochs=2", "cohort.group=null", f"task={TASKS[kind]}"]
    return load_experiment(folder / "experiment.yaml", [*settings, *overrides])


@pytest.mark.parametrize("kind", TASKS)
def test_the_whole_way(home: Path, kind: str, tmp_path: Path) -> None:
    columns = [
        "patient_id",
        *OBSERVED[kind],
        *(name for name in COLUMNS[kind] if name != "predicted" or kind == "continuous"),
    ]
    tested = pd.read_csv(home / kind / "predictions.csv").query("role == 'test'")
    assert list(tested.columns) == ["repeat", "fold", "role", *columns]
    assert sorted(tested["patient_id"]) == [f"P{i:03d}" for i in range(36)]
    owner = {file.stem: file.stem.split("-")[0] for file in (home / "external" / "features").iterdir()}
    slides, patients = predict(home / kind, [home / "external" / "features"], patients=owner)
    assert list(slides.columns) == ["patient_id", "slide_id", *COLUMNS[kind]]
    assert list(patients.columns) == ["patient_id", *COLUMNS[kind]]
    assert (len(slides), len(patients)) == (17, 14)
    if kind in ("classification", "ordinal"):
        prob = slides[["prob_low", "prob_medium", "prob_high"]]
        np.testing.assert_allclose(prob.sum(axis=1), 1.0, rtol=1e-6)
        assert (prob.idxmax(axis=1) == "prob_" + slides["predicted"]).all()
    result = evaluate(home / kind, experiment(home / "external", kind), tmp_path / "external")
    assert set(result.metrics["test"]) == METRICS[kind]
    assert result.metrics["primary"] == MAIN[kind]
    assert result.metrics["counts"]["test"]["patients"] == 14
    main = result.metrics["test"][MAIN[kind]]
    assert main["ci_low"] <= main["pooled"] <= main["ci_high"]
    outside = pd.read_csv(tmp_path / "external" / "predictions.csv")
    assert list(outside.columns) == ["repeat", "fold", "role", *columns]
    assert main["pooled"] == pytest.approx(main_metric(kind, outside))
    by_fold = [main_metric(kind, part) for _, part in tested.groupby("fold")]
    assert json.loads((home / kind / "metrics.json").read_text())["test"][MAIN[kind]]["values"] == pytest.approx(
        by_fold
    )
    # The vote of both folds' students, patient by patient.
    name = COLUMNS[kind][0]
    expected = patients.set_index("patient_id")[name]
    np.testing.assert_allclose(outside.set_index("patient_id")[name], expected.loc[outside["patient_id"]], rtol=1e-6)


@pytest.mark.parametrize("kind", TASKS)
def test_a_test_patient_s_outcome_changes_no_student(home: Path, kind: str, tmp_path: Path) -> None:
    splits = pd.read_csv(home / kind / "splits.csv")
    tested = splits.query("fold == 0 and role == 'test'")["patient_id"].tolist()
    table = pd.read_csv(home / "cohort.csv")
    inside = table["patient_id"].isin(tested)
    table.loc[inside, "score"] = 1000 - 7 * table.loc[inside, "score"]
    table.loc[inside, "months"] = 3 * table.loc[inside, "months"] + 1
    table.loc[inside, "died"] = 1 - table.loc[inside, "died"]
    table.loc[inside, "grade"] = table.loc[inside, "grade"].map({"low": "high", "high": "low", "medium": "medium"})
    table.to_csv(tmp_path / "cohort.csv", index=False)
    places = [f"cohort.table={tmp_path / 'cohort.csv'}", f"cv.splits={home / kind / 'splits.csv'}"]
    crossval(experiment(home, kind, *places), tmp_path / "run", workers=1)
    student = Path("fold-0-0") / "student" / "student.safetensors"
    assert (tmp_path / "run" / student).read_bytes() == (home / kind / student).read_bytes()
    other = Path("fold-0-1") / "student" / "student.safetensors"
    assert (tmp_path / "run" / other).read_bytes() != (home / kind / other).read_bytes()


def test_a_run_of_another_task_is_refused(home: Path, tmp_path: Path) -> None:
    """Before the cohort is read: its table is not even there."""

    def asked(kind: str, *overrides: str) -> Experiment:
        return experiment(home / "external", kind, "cohort.table=nowhere.csv", *overrides)

    refusals = {
        r"predicts grade, a task of type ordinal; expected a run for score, of type continuous": asked("continuous"),
        r"of type ordinal; expected .* of type classification.* → give task.type: ordinal": asked("classification"),
        r"as \['low', 'medium', 'high'\]; expected grade as \['high', 'medium', 'low'\].*in the run's order": asked(
            "ordinal", "task.classes=[high, medium, low]"
        ),
        r"expected grade as \['low', 'high'\]": asked("ordinal", "task.classes=[low, high]"),
        r"2 problems:\n.*as \['low', 'high'\].*\n.*task.label grade; expected stage": asked(
            "ordinal", "task.classes=[low, high]", "task.label=stage"
        ),
    }
    for words, settings in refusals.items():
        with pytest.raises(RunError, match=words):
            evaluate(home / "ordinal", settings, tmp_path / "out")
    with pytest.raises(RunError, match=r"task.event died; expected relapsed.*give task.event: died.*allow-other-label"):
        evaluate(home / "survival", asked("survival", "task.event=relapsed"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_name_of_the_column_has_to_be_allowed(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(home / "external" / "cohort.csv").rename(columns={"score": "recurrence"})
    table.to_csv(home / "external" / "renamed.csv", index=False)
    file = home / "external" / "experiment.yaml"
    settings = ["cohort.table=renamed.csv", "cohort.group=null", "task={type: continuous, label: recurrence}"]
    arguments = ["evaluate", str(home / "continuous"), str(file), "--out", str(tmp_path / "out")]
    arguments += [part for one in settings for part in ("--set", one)]
    assert momkd(arguments) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "was trained on task.label score; expected recurrence, as the experiment asks for" in said
    assert "give task.label: score, or another run; --allow-other-label if the two are the same" in said
    assert momkd([*arguments, "--allow-other-label"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "the run predicts score, and is judged by this cohort's column recurrence" in said
    evaluate(home / "continuous", experiment(home / "external", "continuous"), tmp_path / "same")
    same, renamed = ((tmp_path / name / "metrics.json").read_bytes() for name in ("same", "out"))
    assert same == renamed


def test_folds_of_two_tasks_do_not_vote(home: Path, tmp_path: Path) -> None:
    for fold, kind in (("fold-0-0", "classification"), ("fold-0-1", "ordinal")):
        shutil.copytree(home / kind / fold, tmp_path / "mixed" / fold)
    for name in ("experiment.yaml", "splits.csv"):
        shutil.copy(home / "ordinal" / name, tmp_path / "mixed")
    words = r"mixed: students of different tasks.*fold-0-0 predicts type classification.*fold-0-1 predicts type ordinal"
    with pytest.raises(StudentError, match=words):
        predict(tmp_path / "mixed", [home / "external" / "features"])
    with pytest.raises(StudentError, match=words):
        evaluate(tmp_path / "mixed", experiment(home / "external", "ordinal"), tmp_path / "out")


def test_a_fold_does_not_say_whom_it_has_seen(home: Path, tmp_path: Path) -> None:
    asked = experiment(home / "external", "continuous")
    for folder in (home / "continuous" / "fold-0-0", home / "continuous" / "fold-0-0" / "student"):
        with pytest.raises(RunError, match=r"no splits.csv.*give the run itself, or --allow-overlap"):
            evaluate(folder, asked, tmp_path / "out")
    evaluate(home / "continuous" / "fold-0-0", asked, tmp_path / "out", allow_overlap=True)
    told = pd.read_csv(tmp_path / "out" / "slides.csv").set_index("slide_id")["predicted"]
    slides, _ = predict(home / "continuous" / "fold-0-0" / "student", [home / "external" / "features"])
    np.testing.assert_array_equal(told, slides.set_index("slide_id")["predicted"].loc[told.index])


def test_a_seen_patient_may_be_called_na(home: Path, tmp_path: Path) -> None:
    """NA is a name here, not a missing one."""
    run = shutil.copytree(home / "continuous", tmp_path / "run")
    for file, name in ((run / "splits.csv", "P000"), (tmp_path / "cohort.csv", "X000")):
        source = home / "external" / "cohort.csv" if file.name == "cohort.csv" else file
        table = pd.read_csv(source, dtype=str)
        table["patient_id"] = table["patient_id"].replace(name, "NA")
        table.to_csv(file, index=False)
    with pytest.raises(RunError, match=r"1 patients of this cohort took part in .*: NA;"):
        evaluate(
            run,
            experiment(home / "external", "continuous", f"cohort.table={tmp_path / 'cohort.csv'}"),
            tmp_path / "out",
        )
