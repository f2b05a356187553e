"""A finished comparison of a tiny cohort."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from momkd.experiment import load_experiment
from momkd.study.compare import compare


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory, make_cohort: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    experiment = load_experiment(make_cohort(folder, patients=90), ["cv.folds=2", "train.epochs=2"])
    return compare(experiment, ("momkd", "linear", "rna-linear"), folder / "comparison", workers=1).path
