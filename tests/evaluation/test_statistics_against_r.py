"""DeLong, Holm, isotonic regression, temperature against R: numbers of oracles/proc.R, run again where R has pROC."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from momkd.evaluation.calibration import IsotonicCalibration, TemperatureScaling
from momkd.evaluation.statistics import delong, holm, paired_auc_bootstrap, paired_delong

FOLDER = Path(__file__).resolve().parent / "oracles"
PAIRS = (("a", "b"), ("a", "a_tied"), ("a_tied", "b_tied"))
N = 130


def read(text: str) -> dict[str, float]:
    return {row["name"]: float(row["value"]) for row in csv.DictReader(io.StringIO(text))}


STORED = read((FOLDER / "proc.csv").read_text(encoding="utf-8"))


def minimal_standard(state: int) -> Iterator[int]:
    while True:
        state = 16807 * state % 2147483647
        yield state


def data() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The data set of proc.R."""
    stream = minimal_standard(20240229)
    label, common, of_a, of_b = (np.array([next(stream) for _ in range(N)]) for _ in range(4))
    y = (label % 5 < 2).astype(int)
    a = common % 600 + of_a % 400 + 260 * y
    b = common % 600 + of_b % 500 + 150 * y
    return y, {"a": a, "b": b, "a_tied": a // 250, "b_tied": b // 300}


def test_the_data_are_those_of_the_script() -> None:
    y, scores = data()
    assert y.sum() == STORED["n_positive"]
    assert {name: values.sum() for name, values in scores.items()} == {name: STORED[f"{name}_sum"] for name in scores}


@pytest.mark.parametrize("name", ["a", "b", "a_tied", "b_tied"])
def test_auc_and_variance_are_those_of_proc(name: str) -> None:
    y, scores = data()
    found = delong(y, scores[name])
    assert found.auc == pytest.approx(STORED[f"{name}_auc"], abs=1e-12)
    assert found.variance == pytest.approx(STORED[f"{name}_variance"], rel=1e-9)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_the_paired_test_is_that_of_proc(pair: tuple[str, str]) -> None:
    y, scores = data()
    found, key = paired_delong(y, scores[pair[0]], scores[pair[1]]), "_vs_".join(pair)
    assert found.z == pytest.approx(STORED[f"{key}_z"], rel=1e-9)
    assert found.p_value == pytest.approx(STORED[f"{key}_p"], rel=1e-9)
    assert (found.low, found.high) == pytest.approx((STORED[f"{key}_low"], STORED[f"{key}_high"]), abs=1e-9)
    both = delong(y, np.stack([scores[name] for name in pair]))
    variances = sum(STORED[f"{name}_variance"] for name in pair)
    assert both.variance == pytest.approx((variances + 2 * STORED[f"{key}_covariance"]) / 4, rel=1e-9)


def test_the_bootstrap_agrees_with_that_of_proc() -> None:
    y, scores = data()
    found = paired_auc_bootstrap(y, scores["a"], scores["b"], [str(i) for i in range(N)], resamples=20_000)
    assert found.difference is not None
    assert found.low is not None
    z = found.difference * 1.959963984540054 / (found.difference - found.low)
    assert z == pytest.approx(STORED["a_vs_b_bootstrap_z"], rel=0.02)


def test_holm_is_that_of_r() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005, 0.5, 0.03]) == pytest.approx([STORED[f"holm_{i}"] for i in range(1, 7)])


def test_calibrators_are_those_of_r() -> None:
    y, scores = data()
    a = scores["a"]
    rank = np.argsort(np.argsort(a * 1000 + np.arange(N))) / N
    fitted = IsotonicCalibration().fit(y, rank).transform(rank)
    for row in (1, 40, 80, 130):
        assert fitted[row - 1] == pytest.approx(STORED[f"isotonic_{row}"], abs=1e-12)
    scaling = TemperatureScaling().fit(y, (a + 1) / (a.max() + 2))
    assert 1 / scaling.temperature_ == pytest.approx(STORED["inverse_temperature"], rel=1e-9)


def test_the_script_still_says_what_is_stored() -> None:
    rscript = shutil.which("Rscript")
    if rscript is None or subprocess.run([rscript, "-e", "library(pROC)"], capture_output=True).returncode:
        pytest.skip("needs R with pROC (Debian: r-cran-proc); its numbers are stored and were compared")
    said = subprocess.run([rscript, str(FOLDER / "proc.R"), "quick"], capture_output=True, text=True, check=True)
    found = read(said.stdout)
    assert set(found) == set(STORED) - {"a_vs_b_bootstrap_z"}
    assert found == pytest.approx({name: STORED[name] for name in found}, rel=1e-9)
