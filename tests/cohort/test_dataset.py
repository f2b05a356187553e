"""The checked cohort: all problems or none, bags within a budget, an order that names do not decide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from momkd.cohort import dataset
from momkd.cohort.dataset import load_data
from momkd.errors import CohortError
from momkd.slides.readers import bag_digest, read_bag

ROWS = [[f"P{i:02d}", f"P{i:02d}-1", ["negative", "positive"][i % 2]] for i in range(6)]


def test_opens_a_cohort_too_small_for_folds(lab) -> None:
    lab.table(ROWS)
    lab.slides(ROWS)
    data = load_data(lab.experiment())
    assert (data.width, data.n_patches("P00-1"), data.omics) == (4, 5, {})
    assert data.cohort.patients.index.tolist() == [row[0] for row in ROWS]
    direct = read_bag(lab.folder / "features" / "P03-1.h5")
    np.testing.assert_array_equal(data.bag("P03-1").features, direct.features)


def test_raises_every_problem_at_once(lab) -> None:
    lab.table([*ROWS, ["P9", "none", "positive"]])
    lab.slides(ROWS)
    lab.slide("P01-1", width=7)
    with pytest.raises(CohortError, match=r"(?s)2 problems:.*none: no feature file.*feature width") as caught:
        load_data(lab.experiment())
    assert "cohort.exclude" in str(caught.value)


def test_slide_names_do_not_decide_their_order(lab) -> None:
    rows = [*ROWS, ["P00", "z", "negative"], ["P00", "a", "negative"]]
    lab.table(rows)
    lab.slides(rows)
    seeds = {"P00-1": 1, "z": 2, "a": 3}
    for slide, seed in seeds.items():
        lab.slide(slide, seed=seed)
    before = [seeds[slide] for slide in load_data(lab.experiment()).slides_of("P00")]
    renamed = {"P00-1": 3, "z": 1, "a": 2}
    for slide, seed in renamed.items():
        lab.slide(slide, seed=seed)
    data = load_data(lab.experiment())
    assert [renamed[slide] for slide in data.slides_of("P00")] == before
    digests = [bag_digest(data.bag(slide)) for slide in data.slides_of("P00")]
    assert digests == sorted(digests)
    assert data.slides_of("P01") == ("P01-1",)


def test_bags_are_kept_within_the_budget(lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.table(ROWS)
    lab.slides(ROWS)
    reads: list[str] = []

    def counting(path: Path, **options: float | None):  # type: ignore[no-untyped-def]
        reads.append(path.stem)
        return read_bag(path, **options)

    monkeypatch.setattr(dataset, "read_bag", counting)
    one = 5 * 4 * 2 + 5 * 2 * 8  # float16 features and int64 coordinates
    data = load_data(lab.experiment(), cache_bytes=2 * one)
    for slide in ("P00-1", "P01-1", "P00-1", "P02-1", "P00-1", "P01-1"):
        data.bag(slide)
    assert reads == ["P00-1", "P01-1", "P02-1", "P01-1"]
    reads.clear()
    nothing = load_data(lab.experiment(), cache_bytes=0)
    assert nothing.bag("P00-1").n_patches == 5
    nothing.bag("P00-1")
    assert reads == ["P00-1", "P00-1"]
