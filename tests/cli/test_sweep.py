"""``momkd sweep`` as a user meets it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from momkd.cli.app import run
from momkd.errors import TrainingError
from momkd.study import many


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, make_cohort: Callable[..., Path]) -> Path:
    file = make_cohort(tmp_path_factory.mktemp("cli-sweep"))
    section = "\nsweep:\n  points: [{}, {model.memory.codes: 3, train.lr: 0.05}]\n"
    file.write_text(file.read_text(encoding="utf-8") + section, encoding="utf-8")
    return file


def words(file: Path, *more: str) -> list[str]:
    small = ["--set", "train.members=1", "--set", "train.epochs=1", "--set", "cv.folds=2"]
    return ["sweep", str(file), "--out", str(file.parent / "out"), "--workers", "1", *small, *more]


def said(text: str) -> str:
    return " ".join(text.split())


def test_a_sweep_of_the_file_leaves_table_picture_and_runs_that_predict(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words(file)) == 0
    shown = capsys.readouterr()
    out = file.parent / "out"
    assert "ranked by the validation mean" in said(shown.out)
    assert "Test scores are hidden (--show-test)" in said(shown.out)
    assert "test AUC" not in shown.out
    assert "codes=3,lr=0.05 · repeat 0 fold 1: done" in said(shown.err)
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")
    text = (out / "sweep.md").read_text(encoding="utf-8")
    assert text.startswith("| codes | lr | validation AUC | folds | rank |\n")
    assert "★" in text
    scores = tmp_path / "scores.csv"
    assert run(["predict", str(out / "base"), str(file.parent / "features"), "--out", str(scores)]) == 0
    assert scores.is_file()


def test_a_rerun_trains_nothing_changes_nothing_and_shows_test_scores_on_request(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(words(file))
    files = [file.parent / "out" / name for name in ("sweep.csv", "sweep.md", "sweep.png")]
    before = [path.read_bytes() for path in files]
    capsys.readouterr()
    assert run(words(file, "--show-test")) == 0
    shown = capsys.readouterr()
    assert shown.err.count("already done") == 4
    assert "test AUC" in shown.out
    assert "not for choosing" in said(shown.out)
    assert run(words(file)) == 0
    assert [path.read_bytes() for path in files] == before


def test_a_bad_grid_is_refused_before_anything_is_made(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ["--grid", "model.memory.codse=2,3", "--grid", "train.lr=fast"]
    assert run(["sweep", str(file), "--out", str(tmp_path / "o"), *grid]) == 1
    error = capsys.readouterr().err
    assert "2 problems of the sweep" in error
    assert "did you mean 'codes'?" in error
    assert "train.lr" in error
    assert not (tmp_path / "o").exists()


def test_a_failure_is_exit_code_1_after_the_table(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(context, fold, watch):  # type: ignore[no-untyped-def]
        raise TrainingError("the loss became nan")

    monkeypatch.setattr(many, "run_one_fold", broken)
    arguments = words(file, "--show-test")
    arguments[arguments.index("--out") + 1] = str(tmp_path / "o")
    assert run(arguments) == 1
    shown = capsys.readouterr()
    assert shown.out.count("failed") == 2
    assert "2 of 2 runs have a fold that failed" in shown.err
    assert (tmp_path / "o" / "sweep.png").is_file()


def test_what_changes_nothing_is_said_first(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = words(file, "--grid", "model.memory.update=ema")
    arguments[arguments.index("--out") + 1] = str(tmp_path / "o")
    assert run(arguments) == 0
    assert said(capsys.readouterr().out).startswith("note sweep: no loss uses the memory")


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sweep", "--help"]) == 0
    assert "momkd sweep E.yaml --grid model.memory.codes=8,16" in said(capsys.readouterr().out)
