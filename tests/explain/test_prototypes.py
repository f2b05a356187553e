"""A fold's prototypes: who uses which, and genes against SciPy; only of folds that have a memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr

from momkd.errors import ExplainError, RunError
from momkd.experiment import load_experiment
from momkd.explain.codes import code_names
from momkd.explain.prototypes import explain_prototypes, gene_correlations
from momkd.study.crossval import crossval
from momkd.study.fold_memory import FILE, read_memory

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CohortMaker = Callable[..., Path]
BOTH = ["model.programmes.dim=4", "model.programmes.codes=2", "model.loss.rna=0.05", "model.loss.slide=0.2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, make_cohort: CohortMaker) -> Path:
    """A run whose shared memory and programme memory are both taught."""
    folder = tmp_path_factory.mktemp("run")
    experiment = load_experiment(make_cohort(folder, patients=60), ["cv.folds=2", *BOTH, "model.loss.memory=0.1"])
    crossval(experiment, folder / "run", workers=1)
    return folder / "run"


def test_a_fold_keeps_what_its_first_members_rna_looks_like(run: Path) -> None:
    spaces = read_memory(run / "fold-0-0")
    assert set(spaces) == {"memory", "rna"}
    assert spaces["rna"].codes.shape == (2, 2, 4)
    assert spaces["memory"].codes.shape == (2, 2, 4)
    splits = pd.read_csv(run / "splits.csv", dtype={"patient_id": str}).query("fold == 0")
    seen = set(splits.loc[splits["role"] != "test", "patient_id"])
    for space in spaces.values():
        rows, patients = space.rna["rna"], space.patients["rna"]
        assert len(rows) == len(patients)
        assert set(patients) < seen  # a member leaves some out, and no test patient is in it
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    assert not list((run / "fold-0-0" / "student").glob("memory*"))


def test_usage_names_the_nearest_code_of_everybody(run: Path, tmp_path: Path) -> None:
    report = explain_prototypes(run, tmp_path / "out")
    space = read_memory(run / "fold-0-0")["rna"]
    own = report.usage.query("memory == 'rna' and by == 'rna'").set_index("patient_id")
    cosines = space.rna["rna"] @ space.codes.reshape(4, -1).T
    for patient, row in zip(space.patients["rna"], cosines, strict=True):
        assert own.loc[patient, "code"] == code_names(("negative", "positive"), 2)[row.argmax()]
        assert own.loc[patient, "cosine"] == pytest.approx(row.max(), abs=1e-6)
    slides = report.usage.query("memory == 'rna' and by == 'slide'")
    assert slides["patient_id"].is_unique
    assert set(slides["role"]) == {"train", "val", "test"}
    cohort = pd.read_csv(run.parent / "cohort.csv", dtype=str).drop_duplicates("patient_id").set_index("patient_id")
    assert (slides["label"].to_numpy() == cohort.loc[slides["patient_id"], "status"].to_numpy()).all()
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"usage.csv", "genes.csv", "index.html", "map-rna.png", "map-memory.png", "usage-rna.png"} <= names


def test_genes_are_correlated_as_scipy_does_and_q_is_benjamini_hochberg() -> None:
    rng = np.random.default_rng(0)
    rna = rng.normal(size=(30, 3))
    rna /= np.linalg.norm(rna, axis=1, keepdims=True)
    codes = rng.normal(size=(2, 2, 3))
    values = pd.DataFrame(rng.normal(size=(30, 5)), columns=list("ABCDE"))
    values["A"] += 3 * rna @ codes[1, 0]
    values["E"] = 1.0
    found = gene_correlations(values, rna, codes, ("low", "high"))
    assert set(found["gene"]) == set("ABCD")  # a gene that does not vary has no correlation
    for row in found.itertuples():
        c, k = ("low", "high").index(row.code.split(" · ")[0]), int(row.code.split(" · ")[1]) - 1
        oracle = pearsonr(values[row.gene], rna @ codes[c, k])
        assert row.r == pytest.approx(oracle.statistic)
        assert row.p == pytest.approx(oracle.pvalue, rel=1e-9)
    order = found.sort_values("p", ascending=False)
    ranks = np.arange(len(order), 0, -1)
    expected = np.minimum.accumulate(order["p"].to_numpy() * len(order) / ranks).clip(max=1.0)
    np.testing.assert_allclose(order["q"], expected)


def test_the_page_is_drawn(run: Path, tmp_path: Path, browser: Browser) -> None:
    explain_prototypes(run, tmp_path / "out", fold="fold-0-1")
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto((tmp_path / "out" / "index.html").as_uri())
    page.wait_for_function("[...document.images].every(i => i.complete && i.naturalWidth > 100 && i.alt)")
    assert said == []
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_what_cannot_be_explained_says_why(run: Path, tmp_path: Path, make_cohort: CohortMaker) -> None:
    with pytest.raises(ExplainError, match="no finished fold-9-9; finished: fold-0-0, fold-0-1"):
        explain_prototypes(run, tmp_path / "out", fold="fold-9-9")
    experiment = load_experiment(make_cohort(tmp_path / "c"), ["omics=null", "cv.folds=2", "train.epochs=1"])
    crossval(experiment, tmp_path / "none", workers=1)
    assert not (tmp_path / "none" / "fold-0-0" / FILE).exists()
    with pytest.raises(RunError, match="only folds of momkd with omics leave it"):
        explain_prototypes(tmp_path / "none", tmp_path / "out")
    (run / "fold-0-0" / FILE).rename(tmp_path / FILE)
    (run / "fold-0-0" / FILE).write_bytes(b"torn")
    with pytest.raises(RunError, match="not the memory of a fold"):
        read_memory(run / "fold-0-0")
    (tmp_path / FILE).rename(run / "fold-0-0" / FILE)
