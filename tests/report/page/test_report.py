"""Reports of runs and comparisons: what they say is what the run's files say."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from momkd.cli.app import run as momkd
from momkd.errors import RunError
from momkd.experiment import load_experiment
from momkd.files import read_json
from momkd.report.page import write_report
from momkd.study.crossval import fit_final
from momkd.study.external import evaluate


def _text(html: Path) -> str:
    """What a reader reads, in one line."""
    body = re.sub(r"<style>.*?</style>", "", html.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body)))


def _sections(html: Path) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", html.read_text(encoding="utf-8"))


def test_a_run_tells_its_metrics_cohort_sites_splits_and_settings(compared: Path, tmp_path: Path) -> None:
    run = compared / "momkd"
    page = write_report(run, tmp_path / "run.html")
    assert _sections(page) == [
        "Metrics",
        "Curves",
        "Cohort",
        "Sites",
        "Splits",
        "Learning and memory",
        "Settings and versions",
    ]
    text = _text(page)
    auc = read_json(run / "metrics.json")["test"]["auc"]
    assert f"{auc['mean']:.3f} ± {auc['sd']:.3f}" in text
    assert f"{auc['ci_low']:.3f} – {auc['ci_high']:.3f}" in text
    patients = pd.read_csv(run / "patients.csv")
    assert f"patients {len(patients)}" in text
    assert f"slides {patients['slides'].sum()} " in text
    assert "status positive 45 (50.0%)" in text
    assert "RNA 90 patients; 0 without" in text
    assert "all smaller (9 sites)" in text
    assert read_json(run / "environment.json")["packages"]["torch"] in text
    assert "batch_size: 8" in text
    assert "computed from the omics" not in text


def test_patients_csv_counts_what_is_there(compared: Path) -> None:
    patients = pd.read_csv(compared / "momkd" / "patients.csv", index_col="patient_id")
    slides = pd.read_csv(compared / "momkd" / "slides.csv")
    tested = slides[slides["role"] == "test"].groupby("patient_id").size()
    assert patients["slides"].to_dict() == tested.to_dict()
    assert set(patients["omics_rna"]) == {"yes"}
    assert patients.loc["P003", "group"] == "site-3"
    assert "omics_rna" not in pd.read_csv(compared / "linear" / "patients.csv")


def test_a_comparison_tells_its_table(compared: Path, tmp_path: Path) -> None:
    page = write_report(compared, tmp_path / "comparison.html")
    assert _sections(page)[:2] == ["Comparison", "Other metrics and costs"]
    text = _text(page)
    table = pd.read_csv(compared / "table.csv")
    for row in table.itertuples():
        assert f"{row.method} {row.omics} {row.auc_mean:.3f} ± {row.auc_sd:.3f}" in text
    # An upper bound is never the best that predicts from histology alone.
    best = table[table["omics"] != "training and test"].sort_values("auc_mean").iloc[-1]
    assert f"the best from histology alone, {best['auc_mean']:.3f} {best['method']}" in text


def test_the_same_run_gives_the_same_bytes(compared: Path, tmp_path: Path) -> None:
    pages = [write_report(compared / "linear", tmp_path / f"{name}.html").read_bytes() for name in "ab"]
    assert pages[0] == pages[1]


def test_labels_from_omics_carry_a_warning(compared: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(compared / "momkd", copy)
    settings = copy / "experiment.yaml"
    settings.write_text(settings.read_text().replace("from_omics: false", "from_omics: true"))
    assert "close to circular" in _text(write_report(copy))


def test_a_run_of_an_earlier_version_says_what_is_not_known(compared: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(compared / "momkd", copy)
    (copy / "patients.csv").unlink()
    page = write_report(copy)
    assert page == copy / "report.html"
    assert "patients.csv is missing" in _text(page)
    assert "Sites" not in _sections(page)


def test_a_final_fit_says_that_nobody_was_tested(compared: Path, tmp_path: Path) -> None:
    experiment = load_experiment(compared.parent / "experiment.yaml", ["train.epochs=2", "train.members=1"])
    fit_final(experiment, tmp_path / "final")
    text = _text(write_report(tmp_path / "final"))
    assert "fitted on all patients" in text
    assert "optimistic" in text


def test_an_external_cohort(compared: Path, tmp_path: Path, make_cohort: Callable[..., Path]) -> None:
    other = load_experiment(make_cohort(tmp_path / "other", seed=5, prefix="Q"))
    other = other.model_copy(update={"omics": None})
    evaluate(compared / "momkd", other, tmp_path / "external")
    page = write_report(tmp_path / "external")
    assert "momkd, external cohort trained with RNA; predicted from histology alone" in _text(page)
    assert "Splits" not in _sections(page)
    assert "36 test patients" in _text(page) or "test patients 36" in _text(page)


def test_an_external_cohort_names_the_method_that_it_judges(
    compared: Path, tmp_path: Path, make_cohort: Callable[..., Path]
) -> None:
    other = load_experiment(make_cohort(tmp_path / "other", seed=5, prefix="Q"))
    evaluate(compared / "linear", other, tmp_path / "run")
    assert "linear, external cohort trained without omics; predicted" in _text(write_report(tmp_path / "run"))
    student = next((compared / "momkd").glob("fold-*")) / "student"
    evaluate(student, other, tmp_path / "student", allow_overlap=True)
    assert "momkd, external cohort predicted from histology alone" in _text(write_report(tmp_path / "student"))


@pytest.mark.parametrize("kind", ["classification", "ordinal", "continuous", "survival"])
def test_every_task(kind: str, predicted: Callable[..., Any], tmp_path: Path) -> None:
    from momkd.evaluation.verdict import verdict
    from momkd.files import write_json, write_text
    from momkd.study.run_folder import write_csv

    task, predictions = predicted(kind)
    write_csv(tmp_path / "predictions.csv", predictions)
    write_json(tmp_path / "metrics.json", verdict(predictions, {}, task, resamples=20))
    settings = {"cohort": {"table": "c.csv"}, "features": {"dir": "f"}, "task": json.loads(task.model_dump_json())}
    write_text(tmp_path / "experiment.yaml", json.dumps(settings))
    observed = ["time", "event"] if kind == "survival" else ["label"]
    patients = predictions.drop_duplicates("patient_id")[["patient_id", *observed]]
    write_csv(tmp_path / "patients.csv", patients.assign(slides=1, patches=4, group="A"))
    page = write_report(tmp_path)
    assert "Sites" in _sections(page)
    assert page.read_text().count("<img") == 1


def test_what_is_no_finished_run_is_refused(compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunError, match="neither a run nor a finished comparison"):
        write_report(tmp_path)
    copy = tmp_path / "run"
    shutil.copytree(compared / "linear", copy)
    (copy / "metrics.json").unlink()
    assert momkd(["report", str(copy)]) == 1
    assert "unfinished" in capsys.readouterr().err
    assert not (copy / "report.html").exists()
