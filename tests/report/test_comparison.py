"""Tables and pictures of a comparison."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from momkd.report.comparison import draw_forest, paper_table, write_tables


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "method": ["momkd", "clam_sb"],
            "omics": ["training", "none"],
            "auc_mean": [0.7512, 0.702],
            "auc_sd": [0.05, np.nan],
            "auc_ci_low": [0.7, np.nan],
            "auc_ci_high": [0.8, np.nan],
            "difference": [np.nan, -0.0492],
            "difference_ci_low": [np.nan, -0.08],
            "difference_ci_high": [np.nan, -0.01],
            "p_value": [np.nan, 0.00012],
            "p_holm": [np.nan, 0.00012],
            "f1_mean": [0.5, 0.4],
            "f1_sd": [0.1, 0.1],
            "parameters": [12345, 678],
            "seconds_per_epoch": [0.1234, 0.05],
            "inference_ms": [1.5, 0.25],
        }
    )


def test_numbers_as_a_paper_prints_them(table: pd.DataFrame) -> None:
    shown = paper_table(table, "auc")
    assert shown["AUC"].tolist() == ["0.751 ± 0.050", "0.702"]
    assert shown["95 % CI"].tolist() == ["0.700 – 0.800", "–"]
    assert shown["difference"].tolist() == ["–", "−0.049"]
    assert shown["p"].tolist() == ["–", "< 0.001"]
    assert shown["parameters"].tolist() == ["12 345", "678"]


def test_markdown_and_latex(table: pd.DataFrame, tmp_path: Path) -> None:
    markdown, latex = write_tables(table, "auc", "100 % of 5 folds", tmp_path)
    lines = markdown.read_text().splitlines()
    assert lines[0].startswith("| method | omics | AUC |")
    assert lines[1].count("---") == len(paper_table(table, "auc").columns)
    text = latex.read_text()
    assert r"\toprule" in text
    assert r"clam\_sb" in text
    assert r"100 \% of 5 folds" in text
    assert r"0.751 $\pm$ 0.050" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {row.count("&") for row in rows} == {len(paper_table(table, "auc").columns) - 1}


def test_forest(table: pd.DataFrame, tmp_path: Path) -> None:
    assert draw_forest(table, "auc", "HER2", tmp_path / "forest.png").read_bytes().startswith(b"\x89PNG")
