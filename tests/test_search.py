"""The space of a search: what the user writes, and everything that can be wrong with it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tests.sweeps import write

from momkd.errors import ExperimentError
from momkd.experiment import load_search, load_sweep
from momkd.experiment.search import Choices, Range


def problems(folder: Path, section: Any = None, grid: tuple[str, ...] = (), overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(ExperimentError) as caught:
        load_search(write(folder, section), grid, overrides)
    return str(caught.value)


def test_the_file_and_the_command_line_mean_the_same(tmp_path: Path) -> None:
    section = {"model.memory.codes": [8, 16], "train.lr": {"from": "1e-4", "to": 1e-2, "log": True}}
    of_file = load_search(write(tmp_path, section))
    grid = ["model.memory.codes=8,16", "train.lr={from: 1e-4, to: 1.0e-2, log: true}"]
    of_words = load_search(write(tmp_path), grid)
    assert (
        of_file.axes == of_words.axes == {"model.memory.codes": Choices((8, 16)), "train.lr": Range(1e-4, 1e-2, True)}
    )
    assert of_file.digest == of_words.digest
    assert of_file.size == math.inf


def test_whole_numbers_stay_whole_and_are_counted(tmp_path: Path) -> None:
    space = load_search(write(tmp_path), ["model.memory.codes={from: 4, to: 8}", "model.memory.update=ema,gradient"])
    assert space.axes["model.memory.codes"] == Range(4, 8)
    assert space.size == 10


def test_a_point_is_the_experiment_with_its_settings(tmp_path: Path) -> None:
    space = load_search(write(tmp_path), ["model.memory.codes={from: 4, to: 8}"], ["train.epochs=7"])
    point = space.point("trial-000", {"model.memory.codes": 5})
    assert (point.experiment.model.memory.codes, point.experiment.train.epochs) == (5, 7)
    assert point.settings == {"model.memory.codes": 5}


def test_the_digest_knows_the_base_and_the_space(tmp_path: Path) -> None:
    grid = ["model.memory.codes={from: 4, to: 8}"]
    first = load_search(write(tmp_path), grid).digest
    assert load_search(write(tmp_path), grid, ["train.epochs=7"]).digest != first
    assert load_search(write(tmp_path), ["model.memory.codes={from: 4, to: 9}"]).digest != first


def test_three_digits_are_told_and_stay_inside() -> None:
    assert Range(1e-4, 1e-2, True).tidy(0.00123456) == 0.00123
    assert Range(0.1234, 0.5).tidy(0.12341) == 0.1234


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    section = {
        "model.memory.codes": {"from": 8, "to": 4},
        "train.lr": {"from": 0, "to": 1e-2, "log": True},
        "train.epochs": {"from": "few", "to": 3},
        "cohort.table": ["a.csv", "b.csv"],
        "model.memory.cods": [8],
        "points": [{}],
        "train.threads": 3,
    }
    found = problems(tmp_path, section)
    for word in (
        "model.memory.codes",
        "train.lr",
        "train.epochs",
        "cohort.table",
        "cods",
        "sweep.points",
        "train.threads",
    ):
        assert word in found
    assert "7 problems" in found


def test_both_ends_of_a_range_are_tried(tmp_path: Path) -> None:
    assert "dropout" in problems(tmp_path, grid=("model.encoder.dropout={from: 0.1, to: 7.5}",))


def test_a_key_twice_or_fixed_by_set(tmp_path: Path) -> None:
    assert "varied twice" in problems(tmp_path, grid=("train.lr=1e-3", "train.lr=1e-4"))
    assert "leave one out" in problems(tmp_path, grid=("train.lr=1e-3,1e-4",), overrides=("train.lr=1e-3",))
    assert "expected a section sweep" in problems(tmp_path)


def test_a_grid_says_that_a_range_is_for_a_search(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="--search"):
        load_sweep(write(tmp_path, {"train.lr": {"from": 1e-4, "to": 1e-2}}))
