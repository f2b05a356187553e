"""The demo, on a cohort small enough for a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from momkd.cli.demo import run_demo
from momkd.errors import RunError
from momkd.simulator import SimulationSettings

SMALL = SimulationSettings(patients=60, external_patients=20, patches=16, genes=60)


def test_whole_path_and_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    run_demo(out, 0, 1, SMALL)
    said = capsys.readouterr().out
    for words in ("simulate", "ok: this cohort can be trained on", "with RNA", "the control", "external", "AUC"):
        assert words in said
    for name in ("with-rna/curves.png", "with-rna/learning.png", "without-rna/metrics.json", "external/curves.png"):
        assert (out / name).is_file()
    before = (out / "with-rna" / "predictions.csv").read_bytes()
    run_demo(out, 0, 1, SMALL)
    assert "already done" in capsys.readouterr().err
    assert (out / "with-rna" / "predictions.csv").read_bytes() == before
    with pytest.raises(RunError, match="demo of another seed"):
        run_demo(out, 1, 1, SMALL)


def test_a_folder_of_yours_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("mine")
    with pytest.raises(RunError, match="not a demo"):
        run_demo(tmp_path, 0, 1, SMALL)
