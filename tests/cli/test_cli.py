"""The command line as a user meets it: help at once, verbs that end in files, errors in plain words."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from momkd.cli.app import run
from momkd.experiment import load_experiment

CohortMaker = Callable[..., Path]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, make_cohort: CohortMaker) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    make_cohort(folder)
    make_cohort(folder / "external", patients=14, seed=5, prefix="X")
    arguments = ["crossval", str(folder / "experiment.yaml"), "--out", str(folder / "run"), "--workers", "1"]
    assert run(arguments) == 0
    return folder


def test_help_is_instant_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom momkd.cli.app import run\ncode = run(['--help'])\n"
        "bad = [m for m in ('torch', 'pandas', 'sklearn', 'numpy', 'h5py', 'pydantic') if m in sys.modules]\n"
        "sys.exit(str(bad) if bad else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for verb in (
        "demo",
        "init",
        "check",
        "import-features",
        "extract",
        "crossval",
        "sweep",
        "fit",
        "evaluate",
        "predict",
        "genes",
    ):
        assert verb in done.stdout


@pytest.mark.parametrize(
    "verb",
    [
        "demo",
        "init",
        "check",
        "import-features",
        "extract",
        "graph",
        "pack",
        "genes",
        "crossval",
        "fit",
        "evaluate",
        "predict",
    ],
)
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    assert f"momkd {verb}" in " ".join(capsys.readouterr().out.split()).replace("│ ", "")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("momkd 0.")


def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["crossvall"]) == 2
    assert run(["crossval", "E.yaml"]) == 2
    assert "--out" in capsys.readouterr().err


def test_init_then_check_speaks_of_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    assert run(["init", str(file)]) == 0
    experiment = load_experiment(file)
    assert experiment.omics is not None
    assert experiment.task.map == {}
    assert run(["check", str(file)]) == 1
    assert "cohort.csv" in capsys.readouterr().out
    assert run(["init", str(file)]) == 1
    assert "exists already" in capsys.readouterr().err


def test_crossval_prints_the_table_and_draws(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A finished run says again what it found, and trains nothing."""
    before = (home / "run" / "fold-0-0" / "student" / "student.safetensors").stat().st_mtime_ns
    assert run(["crossval", str(home / "experiment.yaml"), "--out", str(home / "run"), "--workers", "1"]) == 0
    out, err = capsys.readouterr()
    assert "AUC" in out
    assert "DeLong" in out
    assert "repeat 0 fold 2: already done" in err
    assert (home / "run" / "fold-0-0" / "student" / "student.safetensors").stat().st_mtime_ns == before
    for name in ("curves.png", "learning.png"):
        assert (home / "run" / name).read_bytes().startswith(b"\x89PNG")


def test_check_of_a_good_cohort(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(home / "experiment.yaml"), "--deep"]) == 0
    out = capsys.readouterr().out
    assert "negative 18, positive 18" in out
    assert "36 patients × 12 genes" in out


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, in one line."""
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("momkd", "trained with RNA; predicted from histology alone"),
        ("abmil", "trained without omics; predicted from histology alone"),
        ("rna-linear", "given RNA in training and test, an upper bound"),
    ],
)
def test_crossval_says_what_taught(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str, words: str
) -> None:
    quick = ["--set", "train.epochs=2", "--set", "train.members=1", "--set", "cv.folds=2", "--workers", "1"]
    arguments = [str(home / "experiment.yaml"), "--out", str(tmp_path / "run"), "--set", f"model.name={method}"]
    assert run(["crossval", *arguments, *quick]) == 0
    assert f"cross-validation, test patients · {words}" in told(capsys)


def test_evaluate_and_predict(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(home / "run"), str(home / "external" / "experiment.yaml"), "--out", str(tmp_path / "outside")]
    assert run(["evaluate", *arguments]) == 0
    assert (tmp_path / "outside" / "curves.png").is_file()
    # The run was taught with RNA, whatever the external cohort has.
    assert "external cohort, never seen · trained with RNA; predicted from histology alone" in told(capsys)
    scores = tmp_path / "scores.csv"
    external = home / "external"
    arguments = [
        str(home / "run"),
        str(external / "features"),
        "--out",
        str(scores),
        "--table",
        str(external / "cohort.csv"),
    ]
    assert run(["predict", *arguments]) == 0
    table = pd.read_csv(scores)
    assert list(table.columns) == ["slide_id", "patient_id", "prob_negative", "prob_positive", "predicted"]
    assert len(table) == 17
    assert len(pd.read_csv(tmp_path / "scores.patients.csv")) == 14
    evaluated = pd.read_csv(tmp_path / "outside" / "predictions.csv").set_index("patient_id")["prob_positive"]
    predicted = pd.read_csv(tmp_path / "scores.patients.csv").set_index("patient_id")["prob_positive"]
    pd.testing.assert_series_equal(evaluated.sort_index(), predicted.sort_index())


def test_evaluate_own_patients_is_refused_in_words(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", str(home / "run"), str(home / "experiment.yaml"), "--out", str(tmp_path / "o")]) == 1
    assert "took part" in capsys.readouterr().err


def test_fit_genes_and_graph(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", str(home / "experiment.yaml"), "--out", str(tmp_path / "final")]) == 0
    assert "optimistic" in " ".join(capsys.readouterr().out.split())
    assert run(["genes", str(home / "experiment.yaml"), "--out", str(tmp_path / "genes")]) == 0
    assert {"genes.csv", "folds.csv", "stability.csv"} == {path.name for path in (tmp_path / "genes").iterdir()}
    assert "RNA alone predicts status" in capsys.readouterr().out
    imported = tmp_path / "imported"
    assert run(["import-features", str(home / "external" / "features"), "--out", str(imported)]) == 0
    assert run(["import-features", str(home / "external" / "features"), "--out", str(imported)]) == 0
    assert "17 already complete" in capsys.readouterr().out
    assert run(["graph", str(imported), "--k", "3"]) == 0


def test_import_checkpoint(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    with np.load(shared / "reference" / "public_small.npz") as arrays:
        state = {k[6:]: torch.from_numpy(np.array(arrays[k])) for k in arrays.files if k.startswith("final/")}
    torch.save(state, tmp_path / "best.pt")
    arguments = [str(tmp_path / "best.pt"), "--out", str(tmp_path / "student"), "--classes", "low, high"]
    assert run(["import-checkpoint", *arguments]) == 0
    assert json.loads((tmp_path / "student" / "student.json").read_text())["task"]["classes"] == ["low", "high"]


def test_interruption_says_how_to_go_on(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("momkd.cli.runs.crossval", interrupted)
    assert run(["crossval", str(home / "experiment.yaml"), "--out", str(tmp_path / "r")]) == 130
    assert "run the same command again to go on" in capsys.readouterr().err


def test_errors_are_words_not_tracebacks(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["crossval", str(tmp_path / "none.yaml"), "--out", str(tmp_path / "r")]) == 1
    assert "no such experiment file" in capsys.readouterr().err
    bad = ["crossval", str(home / "experiment.yaml"), "--out", str(tmp_path / "r"), "--set", "train.lr=fast"]
    assert run(bad) == 1
    assert "train.lr" in capsys.readouterr().err
    assert run(["predict", str(tmp_path), str(home / "features"), "--out", str(tmp_path / "p.csv")]) == 1
    err = capsys.readouterr().err
    assert "neither a run" in err
    assert "Traceback" not in err
