"""The picture of calibration and decisions: drawn for any run, of test patients alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from momkd.experiment import TaskSettings
from momkd.report import reliability
from momkd.report.reliability import draw_reliability

TASK = TaskSettings(label="x", classes=("n", "p"))


def predictions(repeats: int = 1, val_classes: int = 2) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    labels = {"test": rng.integers(0, 2, 60), "val": rng.integers(0, val_classes, 20)}
    parts = []
    for repeat in range(repeats):
        for role, label in labels.items():
            n = len(label)
            # Too sure of itself: the true log-odds are half of what is said.
            logit = 4.0 * (label - 0.5) + 3.0 * rng.normal(size=n)
            prob = 1 / (1 + np.exp(-logit))
            ids = [f"{role}{i}" for i in range(n)]
            columns = {"role": role, "patient_id": ids, "label": np.array(["n", "p"])[label]}
            parts.append(pd.DataFrame({"repeat": repeat, "fold": 0, **columns, "prob_n": 1 - prob, "prob_p": prob}))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    figures: list[Figure] = []

    def keep(figure: Figure, target: Path) -> Path:
        figures.append(figure)
        return target

    monkeypatch.setattr(reliability, "save", keep)
    return figures


def lines(figure: Figure, axes: int) -> dict[str, Any]:
    return {str(line.get_label()): line for line in figure.axes[axes].get_lines()}


def test_both_curves_before_and_after(drawn: list[Figure], tmp_path: Path) -> None:
    draw_reliability(predictions(), TASK, "x", tmp_path / "c.png")
    names = [name for name in lines(drawn[0], 0) if not name.startswith("_")]
    assert [name.split(",")[0] for name in names] == ["as predicted", "temperature-scaled"]
    errors = [float(name.rpartition(" ")[2]) for name in names]
    assert errors[1] < errors[0]
    benefit = lines(drawn[0], 1)
    assert {"as predicted", "temperature-scaled", "treat all", "treat none"} <= set(benefit)
    prevalence = (predictions().query("role == 'test'")["label"] == "p").mean()
    assert benefit["treat all"].get_ydata()[0] == pytest.approx(prevalence, abs=0.01)
    # Limits are drawn where each patient is there once.
    assert len(drawn[0].axes[0].collections) == 2


def test_several_repeats_have_no_limits(drawn: list[Figure], tmp_path: Path) -> None:
    draw_reliability(predictions(repeats=2), TASK, "x", tmp_path / "c.png")
    assert not drawn[0].axes[0].collections


def test_without_a_temperature_it_says_so(drawn: list[Figure], tmp_path: Path) -> None:
    draw_reliability(predictions(val_classes=1), TASK, "x", tmp_path / "c.png")
    assert "temperature-scaled" not in lines(drawn[0], 1)
    assert "no temperature" in drawn[0].axes[0].get_title()


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_run_gives_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    files = [draw_reliability(predictions(), TASK, "x", tmp_path / f"{name}{suffix}") for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()
