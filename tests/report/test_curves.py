"""Curves of a run: drawn for any predictions, the same bytes for the same run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from momkd.experiment import TaskSettings
from momkd.report import curves
from momkd.report.curves import draw_curves, draw_learning, draw_run

CLASSES = ("negative", "positive")


def predictions(one_class_fold: bool = False) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 60)
    fold = np.arange(60) % 3
    if one_class_fold:
        label[fold == 2] = 0
    prob = np.clip(0.3 * label + 0.7 * rng.random(60), 0, 1)
    return pd.DataFrame(
        {
            "repeat": 0,
            "fold": fold,
            "role": "test",
            "patient_id": [f"P{i}" for i in range(60)],
            "label": np.array(CLASSES)[label],
            "prob_negative": 1 - prob,
            "prob_positive": prob,
        }
    )


def test_a_run_gets_its_pictures(tmp_path: Path) -> None:
    predictions().to_csv(tmp_path / "predictions.csv", index=False)
    history = pd.DataFrame({"epoch": [1.0, 2.0], "loss_total": [1.0, 0.5], "val_auc": [0.6, 0.7]})
    (tmp_path / "fold-0-0").mkdir()
    history.to_csv(tmp_path / "fold-0-0" / "history.csv", index=False)
    drawn = draw_run(tmp_path, TaskSettings(label="HER2", classes=CLASSES))
    assert [path.name for path in drawn] == ["curves.png", "calibration.png", "learning.png"]
    first = [path.read_bytes() for path in drawn]
    assert all(picture.startswith(b"\x89PNG") for picture in first)
    assert [path.read_bytes() for path in draw_run(tmp_path, TaskSettings(label="HER2", classes=CLASSES))] == first


def test_a_fold_of_one_class_is_left_out_not_a_crash(tmp_path: Path) -> None:
    assert draw_curves(predictions(one_class_fold=True), CLASSES, "test", tmp_path / "c.png").is_file()
    only = predictions().query("label == 'negative'")
    assert draw_curves(only, CLASSES, "test", tmp_path / "d.png").is_file()


@pytest.mark.parametrize("kind", ["classification", "ordinal", "continuous", "survival"])
def test_every_task_has_its_picture(
    tmp_path: Path, kind: str, predicted: Callable[..., tuple[TaskSettings, pd.DataFrame]]
) -> None:
    task, frame = predicted(kind)
    frame.to_csv(tmp_path / "predictions.csv", index=False)
    history = pd.DataFrame({"epoch": [1.0, 2.0], "loss_total": [1.0, 0.5], "val_c_index": [0.6, 0.7]})
    (tmp_path / "fold-0-0").mkdir()
    history.to_csv(tmp_path / "fold-0-0" / "history.csv", index=False)
    first = [path.read_bytes() for path in draw_run(tmp_path, task)]
    assert all(picture.startswith(b"\x89PNG") for picture in first)
    assert [path.read_bytes() for path in draw_run(tmp_path, task)] == first


@pytest.mark.parametrize("kind", ["classification", "ordinal", "continuous", "survival"])
def test_few_patients_of_one_kind_are_drawn(
    tmp_path: Path, kind: str, predicted: Callable[..., tuple[TaskSettings, pd.DataFrame]]
) -> None:
    task, frame = predicted(kind)
    few = frame.iloc[[0]].assign(event=0) if kind == "survival" else frame.iloc[[0]]
    few.to_csv(tmp_path / "predictions.csv", index=False)
    assert draw_run(tmp_path, task)[0].is_file()


def test_the_members_of_a_fold_are_lines_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Figure] = []
    monkeypatch.setattr(curves, "save", lambda figure, target: kept.append(figure) or target)
    history = pd.DataFrame({"member": [0, 0, 1, 1], "epoch": [1.0, 2.0, 1.0, 2.0], "loss_total": [4.0, 3.0, 2.0, 1.0]})
    draw_learning([history.assign(val_auc=[0.5, 0.6, 0.9, 0.7])], tmp_path / "learning.png")
    loss, area = kept[0].axes
    assert [list(line.get_ydata()) for line in loss.lines] == [[4.0, 3.0], [2.0, 1.0]]
    # Each line has a dot at its best epoch.
    assert [list(line.get_ydata()) for line in area.lines] == [[0.5, 0.6], [0.6], [0.9, 0.7], [0.9]]


def test_a_method_that_is_solved_has_no_learning_curve(tmp_path: Path) -> None:
    folder = tmp_path / "fold-0-0"
    folder.mkdir()
    pd.DataFrame({"member": [0, 1], "epoch": [1, 1], "val_auc": [0.7, 0.8]}).to_csv(folder / "history.csv", index=False)
    rows = [[0, 0, "test", f"P{i}", "ab"[i % 2], 1 - 0.1 * i, 0.1 * i] for i in range(8)]
    rows += [[0, 0, "val", f"V{i}", "ab"[i % 2], 1 - 0.1 * i, 0.1 * i] for i in range(8)]
    columns = ["repeat", "fold", "role", "patient_id", "label", "prob_a", "prob_b"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "predictions.csv", index=False)
    drawn = draw_run(tmp_path, TaskSettings(label="x", classes=("a", "b")))
    assert [path.name for path in drawn] == ["curves.png", "calibration.png"]
