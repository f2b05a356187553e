"""Deletion and insertion by hand, and localisation against scikit-learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel
from sklearn.metrics import roc_auc_score

from momkd.explain.faithful import SHARES, curves, highest_first, localisation_auc, paired_p, some_of
from momkd.explain.run import summarise_faithfulness
from momkd.slides.bag import Bag


def bag_of(values: np.ndarray, *, edges: dict[int, np.ndarray] | None = None) -> Bag:
    coords = np.arange(len(values))[:, None] * np.array([[10, 20]])
    return Bag("A1", values[:, None].astype(np.float32), coords, 10.0, 0.5, None, edges or {})


def total(bag: Bag) -> float:
    return float(bag.features.sum())


def test_curves_of_a_sum_by_hand() -> None:
    values = np.arange(20.0)
    found = curves(bag_of(values), highest_first(values), total)
    gone = [min(round(share * 20), 19) for share in SHARES]
    np.testing.assert_allclose(found.deletion, [sum(range(20 - n)) for n in gone])
    come = [max(round(share * 20), 1) for share in SHARES]
    np.testing.assert_allclose(found.insertion, [sum(range(20 - n, 20)) for n in come])
    worst = curves(bag_of(values), highest_first(-values), total)
    assert found.means[0] < worst.means[0]
    assert found.means[1] > worst.means[1]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_tiny_bags_keep_a_patch(n: int) -> None:
    sizes: list[int] = []
    curves(bag_of(np.arange(float(n))), np.arange(n), lambda bag: float(sizes.append(bag.n_patches) or 0))
    assert min(sizes) == 1
    assert max(sizes) == n


def test_a_part_of_a_bag_keeps_places_and_the_edges_among_its_own() -> None:
    edges = {2: np.array([[0, 1, 2, 3, 0], [1, 0, 3, 2, 3]])}
    part = some_of(bag_of(np.arange(4.0), edges=edges), np.array([3, 0]))
    np.testing.assert_array_equal(part.features[:, 0], [0, 3])
    np.testing.assert_array_equal(part.coords, [[0, 0], [30, 60]])
    np.testing.assert_array_equal(part.edges[2], [[0], [1]])


def test_localisation_is_scikit_learns_auc() -> None:
    rng = np.random.default_rng(0)
    values, informative = rng.integers(0, 5, 60).astype(float), rng.random(60) < 0.3
    assert localisation_auc(values, informative) == pytest.approx(roc_auc_score(informative, values))
    assert np.isnan(localisation_auc(values, np.zeros(60, bool)))


def test_the_summary_compares_orders_on_the_same_slides() -> None:
    rng = np.random.default_rng(1)
    rows = []
    for slide in ("a", "b", "c", "d"):
        for order, drop in (("influence", 2.0), ("random", 0.1)):
            noise = rng.normal(0, 0.05)
            rows += [(slide, order, share, 1 - drop * share + noise, drop * share + noise) for share in SHARES]
    frame = pd.DataFrame(rows, columns=["slide_id", "order", "share", "deletion", "insertion"])
    found = summarise_faithfulness(frame).set_index("order")
    width = SHARES[-1]
    areas = {
        order: [np.trapezoid(own["deletion"], SHARES) / width for _, own in part.groupby("slide_id")]
        for order, part in frame.groupby("order")
    }
    assert found.loc["influence", "deletion"] == pytest.approx(np.mean(areas["influence"]))
    assert found.loc["influence", "deletion_p"] == pytest.approx(ttest_rel(areas["influence"], areas["random"]).pvalue)
    assert found.loc["influence", "insertion_minus_random"] > 0
    assert np.isnan(found.loc["random", "deletion_p"])


def test_equal_curves_differ_with_p_one() -> None:
    assert paired_p([1.0, 2.0], [1.0, 2.0]) == 1.0
