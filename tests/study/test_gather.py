"""Folds put together, for tasks without a threshold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from momkd.experiment import TaskSettings
from momkd.files import read_json, write_json
from momkd.study.crossval import gather
from momkd.study.run_folder import FoldId, RunFolder, write_csv


@pytest.mark.parametrize("kind", ["classification", "ordinal", "continuous", "survival"])
def test_folds_are_gathered_and_judged(
    tmp_path: Path, kind: str, predicted: Callable[..., tuple[TaskSettings, pd.DataFrame]]
) -> None:
    task, frame = predicted(kind, n=30, repeats=1)
    run = RunFolder(tmp_path)
    folds = [FoldId(0, fold) for fold in range(3)]
    for fold in folds:
        part = frame[frame["fold"] == fold.fold]
        write_csv(run.fold(fold) / "predictions.csv", part)
        write_csv(run.fold(fold) / "slides.csv", part.assign(slide_id=part["patient_id"] + "-1"))
        write_json(run.fold(fold) / "fold.json", {"repeat": 0, "fold": fold.fold, "seconds": 1.5})
    metrics = gather(run, folds, task).metrics
    assert read_json(tmp_path / "metrics.json") == metrics
    assert (metrics["task"], metrics["seconds"]) == (kind, 4.5)
    assert metrics["test"][metrics["primary"]]["pooled"] is not None
    lines = [(run.fold(fold) / "predictions.csv").read_text().splitlines() for fold in folds]
    whole = (tmp_path / "predictions.csv").read_text().splitlines()
    observed = 5 if kind != "survival" else 6
    # What was observed is passed on as it was written.
    assert [line.split(",")[:observed] for line in whole] == [
        line.split(",")[:observed] for line in [lines[0][0], *(row for part in lines for row in part[1:])]
    ]
