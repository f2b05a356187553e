"""A finished comparison of a tiny cohort, and a browser to look at its pages with."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from momkd.experiment import load_experiment
from momkd.study.compare import compare

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory, make_cohort: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    experiment = load_experiment(make_cohort(folder, patients=90), ["cv.folds=2", "train.epochs=2"])
    return compare(experiment, ("momkd", "linear", "rna-linear"), folder / "comparison", workers=1).path


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without these a Chromium that runs as root does not start, and one without a network keeps asking for it.
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        running = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield running
        running.close()
