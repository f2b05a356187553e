"""What ``auto`` becomes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from momkd.cohort.dataset import load_data
from momkd.experiment import TrainSettings, load_experiment
from momkd.slides.readers import read_bag
from momkd.slides.writer import write_bag
from momkd.training.resolve import resolve


def test_slides_a_step_follow_the_size_of_slides(tmp_path: Path, make_cohort: Callable[..., Path]) -> None:
    file = make_cohort(tmp_path)
    auto = TrainSettings(batch_size="auto", threads=1)
    assert resolve(auto, load_data(load_experiment(file)), 3).batch_size == 16
    for path in (tmp_path / "features").iterdir():
        bag = read_bag(path)
        one = type(bag)(bag.slide_id, bag.features[:1], None, None, None, "toy", {}, "momkd", path)
        write_bag(one, path, dtype="float32", producer="tests")
    vectors = load_data(load_experiment(file, ["graph.k=0"]))
    assert resolve(auto, vectors, 3).batch_size == 64
    assert resolve(TrainSettings(batch_size=5), vectors, 3).batch_size == 5


def test_a_fit_wants_a_number() -> None:
    with pytest.raises(ValueError, match="batch_size is auto"):
        _ = TrainSettings(batch_size="auto").slides_a_step


def test_the_default_preset_leaves_it_open(tmp_path: Path, make_cohort: Callable[..., Path]) -> None:
    text = make_cohort(tmp_path).read_text().replace("batch_size: 8", "seed: 0")
    (tmp_path / "open.yaml").write_text(text)
    assert load_experiment(tmp_path / "open.yaml").train.batch_size == "auto"
