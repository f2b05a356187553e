"""A sweep on paper: what the table and its caption say, and which picture is drawn of which grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from momkd.experiment import SweepPlan, load_sweep
from momkd.report.sweep import caption, draw_sweep, sweep_table, write_sweep
from momkd.study.many import ManyResults
from momkd.study.sweep import ChoiceScore, Sweep

BASE = "cohort: {table: c.csv}\nfeatures: {dir: f}\ntask: {label: HER2, classes: [negative, positive]}\n"
Made = Callable[..., Sweep]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    def make(*grid: str, failed: int | None = None, choice: ChoiceScore | None = None) -> Sweep:
        file = tmp_path / "E.yaml"
        file.write_text(BASE, encoding="utf-8")
        return of(load_sweep(file, grid), tmp_path, failed, choice)

    return make


def of(plan: SweepPlan, folder: Path, failed: int | None, choice: ChoiceScore | None) -> Sweep:
    table = pd.DataFrame([dict(point.settings) for point in plan.points])
    mean = np.linspace(0.6, 0.8, len(table))
    if failed is not None:
        mean[failed] = np.nan
    table["val_auc_mean"], table["val_auc_sd"] = mean, np.where(np.isnan(mean), np.nan, 0.05)
    table["val_n"] = np.where(np.isnan(mean), 0, 5)
    if choice is not None:
        table["test_auc_mean"], table["test_auc_sd"], table["test_n"] = mean - 0.1, 0.02, 5
    table["rank"] = table["val_auc_mean"].rank(ascending=False, method="min").astype("Int64")
    table["run"] = [point.name for point in plan.points]
    best = None if np.isnan(mean).all() else str(table["run"][int(np.nanargmax(mean))])
    return Sweep(plan, "auc", table, best, choice, ManyResults(folder, {}, {}))


def test_the_table_hides_test_scores_marks_the_best_and_names_failures(made: Made) -> None:
    shown = sweep_table(made("model.memory.codes=8,16", "train.lr=1.0,0.5", failed=1))
    assert list(shown.columns) == ["codes", "lr", "validation AUC", "folds", "rank"]
    assert shown.to_numpy().tolist() == [
        ["8", "1", "0.600 ± 0.050", "5", "3"],
        ["8", "0.5", "–", "0", "failed"],
        ["16", "1", "0.733 ± 0.050", "5", "2"],
        ["16", "0.5", "0.800 ± 0.050", "5", "1 ★"],
    ]


def test_the_caption_names_the_rule(made: Made) -> None:
    hidden = caption(made("train.seed=1,2"))
    assert "ranked by the validation mean" in hidden
    assert "Test scores are hidden (--show-test)" in hidden
    found = made("train.seed=1,2", choice=ChoiceScore(0.61, 0.02, 5))
    assert list(sweep_table(found)["test AUC"]) == ["0.500 ± 0.020", "0.700 ± 0.020"]
    assert "not for choosing" in caption(found)
    assert "AUC 0.610 ± 0.020 (5 folds)" in caption(found)


@pytest.mark.parametrize(
    ("grid", "lines", "axis"),
    [
        (("model.memory.codes=8,16,32",), 1, "model.memory.codes"),
        (("model.memory.init=kmeans,random", "model.memory.codes=8,16,32"), 2, "model.memory.codes"),
        (("train.seed=1,2", "model.memory.codes=8,16,32", "graph.k=4,8"), 4, "model.memory.codes"),
        (("model.memory.init=kmeans,random",), 0, "validation AUC"),
        (("train.seed=1,2,3,4,5,6,7,8,9", "train.epochs=1,2,3,4,5,6,7,8,9"), 0, "validation AUC"),
    ],
)
def test_numbers_make_lines_and_words_make_rows(
    made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, grid: tuple[str, ...], lines: int, axis: str
) -> None:
    drawn = []
    monkeypatch.setattr("momkd.report.sweep.save", lambda figure, target: drawn.append(figure) or target)
    draw_sweep(made(*grid), tmp_path / "sweep.png")
    axes = drawn[0].axes[0]
    assert axes.get_xlabel().startswith(axis)
    if lines:
        assert len(axes.containers) == lines
        assert [text.get_text() for text in axes.get_xticklabels()] == ["8", "16", "32"]
    else:
        names = [text.get_text() for text in axes.get_yticklabels()]
        assert len(names) == len(made(*grid).plan.points)


@pytest.mark.filterwarnings("error")
def test_whatever_failed_there_is_a_picture_and_the_same_one_again(made: Made, tmp_path: Path) -> None:
    found = made("model.memory.codes=8,16,32", failed=0)
    files = write_sweep(found, tmp_path)
    before = [path.read_bytes() for path in files]
    assert [path.name for path in files] == ["sweep.md", "sweep.png"]
    write_sweep(found, tmp_path)
    assert [path.read_bytes() for path in files] == before
    write_sweep(made("train.seed=1", failed=0), tmp_path)
