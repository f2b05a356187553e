"""The table of metrics, by task."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

from momkd.cli.render import show_metrics
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
