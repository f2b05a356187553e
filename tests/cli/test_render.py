"""The table of metrics, by task."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

from momkd.cli.render import show_metrics, show_table
from momkd.evaluation.verdict import verdict
from momkd.experiment import TaskSettings


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("classification", ["macro AUC", "balanced accuracy", "macro F1", "AUC low against the others"]),
        ("ordinal", ["quadratic weighted kappa", "Spearman", "mean class error"]),
        ("continuous", ["Pearson", "R²", "mean absolute error", "concordance"]),
        ("survival", ["c-index (Harrell)", "c-index (Uno)"]),
    ],
)
def test_each_task_shows_its_metrics(
    kind: str,
    names: list[str],
    predicted: Callable[..., tuple[TaskSettings, pd.DataFrame]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    task, frame = predicted(kind)
    found = verdict(frame, {}, task, resamples=50)
    show_metrics(found, "title")
    out = " ".join(capsys.readouterr().out.split())
    for name in names:
        assert name in out
    assert "AUPRC" not in out
    assert f"{found['test'][found['primary']]['pooled']:.3f}" in out
    assert "bootstrap 95 % (percentile, 50 resamples" in out


def test_large_errors_keep_few_digits(capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"mean": 1234.5678, "sd": 100.25, "values": [1, 2], "pooled": 1234.5678, "ci_low": 900.0, "ci_high": 99.5}
    show_metrics({"test": {"mae": {**entry, "ci_method": "x"}}}, "title")
    out = capsys.readouterr().out
    assert "1234.6 ± 100.25" in out
    assert "900 – 99.500" in out


def test_a_narrow_terminal_cuts_nothing_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    table = pd.DataFrame({"slide_id": ["TCGA-CR-7395-01A-01-TS1", "B2"], "p": [1.37244e-36, float("nan")]})
    table["a_long_name_of_a_column"] = [0.123456, 2.0]
    show_table(table, "title")
    out = capsys.readouterr().out
    assert "…" not in out
    assert "nan" not in out
    lines = [line.split("│")[1:-1] for line in out.splitlines() if "│" in line]
    cells = ["".join(column) for column in zip(*lines, strict=True)]
    assert "TCGA-CR-7395-01A-01-TS1" in cells[0].replace(" ", "")
    assert "1.372e-36" in cells[1].replace(" ", "")
    assert "–" in cells[1]
