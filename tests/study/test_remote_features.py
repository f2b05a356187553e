"""A study whose features lie behind a URL ends in the bytes of one whose features lie here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from momkd.cli.app import run
from momkd.errors import RunError
from momkd.experiment import load_experiment
from momkd.parallel import Place
from momkd.study.crossval import crossval
from momkd.study.predict import predict


def test_crossval_and_predict_behind_a_url(store: Any, make_cohort: Any, tmp_path: Path) -> None:
    file = make_cohort(store.folder)
    url = f"{store.url}/features"
    here = crossval(load_experiment(file), tmp_path / "here", workers=1)
    far = load_experiment(file, [f"features.dir={url}"])
    assert far.features.dir == url
    there = crossval(far, tmp_path / "there", workers=2, place=Place())
    for name in ("predictions.csv", "slides.csv", "splits.csv"):
        assert (here.run / name).read_bytes() == (there.run / name).read_bytes()
    slides = sorted(path.name for path in (store.folder / "features").glob("*.h5"))
    assert all(store.fetched(f"features/{name}") == 1 for name in slides)
    crossval(load_experiment(there.run / "experiment.yaml"), there.run)  # the URL is read back as one
    local, _ = predict(here.run, [store.folder / "features"])
    remote, _ = predict(here.run, [url])
    pd.testing.assert_frame_equal(local, remote)


def test_a_run_refuses_to_go_on_when_a_remote_file_changed(store: Any, make_cohort: Any, tmp_path: Path) -> None:
    file = make_cohort(store.folder)
    experiment = load_experiment(file, [f"features.dir={store.url}/features", "train.members=1"])
    crossval(experiment, tmp_path / "run", workers=1)
    os.utime(store.folder / "features" / "P001-S0.h5", (2e9, 2e9))
    with pytest.raises(RunError, match="feature files changed"):
        crossval(experiment, tmp_path / "run", workers=1)


def test_the_command_line_takes_urls(store: Any, make_cohort: Any, tmp_path: Path, capsys: Any) -> None:
    file = make_cohort(store.folder, 12)
    url = f"{store.url}/features"
    assert run(["check", str(file), "--set", f"features.dir={url}", "--set", "cv.folds=2"]) == 0
    assert run(["inspect", f"{url}/P001-S0.h5"]) == 0
    assert run(["import-features", url, "--out", str(tmp_path / "imported")]) == 0
    assert len(list((tmp_path / "imported").glob("*.h5"))) == 15
    capsys.readouterr()
    assert run(["inspect", f"{store.url}/nothing"]) == 1
    assert "no such file or folder" in " ".join(capsys.readouterr().err.split())
