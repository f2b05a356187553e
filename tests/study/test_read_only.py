"""A folder that may not be written: a plain error, nothing changed, and the same bytes once it may."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="takes the right to write anywhere from root: Linux")
_DROP, _WRITE_ANYWHERE = 24, 1  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


def _as_anybody() -> None:
    """Runs in the child: root may write anywhere, and shall not."""
    if os.geteuid() == 0:
        ctypes.CDLL(None, use_errno=True).prctl(_DROP, _WRITE_ANYWHERE, 0, 0, 0)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that can be removed again."""
    yield tmp_path
    _allow(tmp_path, write=True)


def _allow(path: Path, *, write: bool) -> None:
    for one in (path, *path.rglob("*")):
        mode = stat.S_IMODE(one.stat().st_mode)
        one.chmod(mode | 0o222 if write else mode & ~0o222)


def _momkd(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "momkd", *words]
    environment = {**os.environ, "COLUMNS": "400"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, preexec_fn=_as_anybody)


def test_a_run_that_may_not_be_written(folder: Path, make_cohort: Any) -> None:
    file = make_cohort(folder / "data", 18)
    quick = ["--workers", "1", *("--set", "train.members=1"), *("--set", "cv.folds=2")]
    whole = ["crossval", str(file), "--out", str(folder / "alone"), *quick]
    assert _momkd(*whole).returncode == 0
    (folder / "locked").mkdir(mode=0o555)
    into = ["crossval", str(file), "--out", str(folder / "locked" / "run"), *quick]
    refused = _momkd(*into)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert "Permission denied" in refused.stderr
    assert str(folder / "locked") in refused.stderr

    (folder / "locked").chmod(0o777)
    assert _momkd(*into).returncode == 0
    run = folder / "locked" / "run"
    for path in (run / "fold-0-1").glob("*.*"):
        path.unlink()
    (run / "metrics.json").unlink()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    _allow(run, write=False)
    refused = _momkd(*into)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert str(run) in refused.stderr
    _allow(run, write=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before

    assert _momkd(*into).returncode == 0
    for name in ("predictions.csv", "splits.csv", "fold-0-1/predictions.csv"):
        assert (run / name).read_bytes() == (folder / "alone" / name).read_bytes()


def test_an_import_that_may_not_be_written(folder: Path, make_cohort: Any) -> None:
    features = make_cohort(folder / "data", 4).parent / "features"
    (folder / "out").mkdir(mode=0o555)
    refused = _momkd("import-features", str(features), "--out", str(folder / "out"))
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert "Permission denied" in refused.stderr + refused.stdout
    assert str(folder / "out") in refused.stderr + refused.stdout
