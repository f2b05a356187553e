"""The graph against brute force, by hand, and by its properties."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.neighbors import kneighbors_graph

from momkd.errors import FeatureFileError
from momkd.slides.graph import bag_edges, knn_edges

# Few distinct values: ties and duplicates everywhere.
crowded = st.integers(1, 40).flatmap(lambda n: arrays(np.int64, (n, 2), elements=st.integers(0, 5)))
wide = st.integers(1, 30).flatmap(lambda n: arrays(np.int64, (n, 2), elements=st.integers(0, 2**31 - 1)))
real = st.integers(1, 30).flatmap(
    lambda n: arrays(np.float64, (n, 2), elements=st.floats(0, 1e5, allow_nan=False, allow_subnormal=False))
)


def brute_force(coords: np.ndarray, k: int) -> np.ndarray:
    """Every pair compared with Python's unbounded integers (or floats), ties by row number."""
    columns = []
    points = coords.tolist()
    for i, (x, y) in enumerate(points):
        others = sorted(((x - u) ** 2 + (y - v) ** 2, j) for j, (u, v) in enumerate(points) if j != i)
        columns += [(i, j) for j in sorted(j for _, j in others[:k])]
    return np.array(columns, dtype=np.int64).reshape(-1, 2).T


@given(coords=st.one_of(crowded, wide), k=st.integers(1, 12))
@settings(max_examples=150, deadline=None)
def test_equals_brute_force_exactly_under_ties_duplicates_and_large_coordinates(coords: np.ndarray, k: int) -> None:
    np.testing.assert_array_equal(knn_edges(coords, k), brute_force(coords, k))


@given(coords=real, k=st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_real_coordinates_give_nearest_neighbours(coords: np.ndarray, k: int) -> None:
    edges, oracle = knn_edges(coords, k), brute_force(coords, k)
    assert edges.shape == oracle.shape
    if edges.size:
        np.testing.assert_allclose(distances(coords, edges), distances(coords, oracle), rtol=1e-9, atol=1e-9)


def distances(coords: np.ndarray, edges: np.ndarray) -> np.ndarray:
    between = np.linalg.norm(coords[edges[0]] - coords[edges[1]], axis=1)
    return np.sort(between.reshape(len(coords), -1), axis=1)


@given(coords=st.one_of(crowded, wide), k=st.integers(0, 12))
@settings(max_examples=80, deadline=None)
def test_shape_order_and_no_self_loops(coords: np.ndarray, k: int) -> None:
    edges, n = knn_edges(coords, k), len(coords)
    assert edges.dtype == np.int64
    assert edges.shape == (2, n * min(k, n - 1))
    assert (edges[0] != edges[1]).all()
    columns = list(zip(*edges.tolist(), strict=True))
    assert columns == sorted(set(columns))


@given(coords=crowded, k=st.integers(1, 8), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_moving_scaling_and_number_type_change_nothing(coords: np.ndarray, k: int, seed: int) -> None:
    edges = knn_edges(coords, k)
    np.testing.assert_array_equal(knn_edges(coords * 256 + seed, k), edges)
    np.testing.assert_array_equal(knn_edges(coords.astype(np.float64), k), edges)
    np.testing.assert_array_equal(knn_edges(coords.astype(np.int32), k), edges)


@given(coords=wide, k=st.integers(1, 8), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_renumbering_patches_renumbers_edges_where_there_is_no_tie(coords: np.ndarray, k: int, seed: int) -> None:
    squared = ((coords[:, None] - coords[None]) ** 2).sum(axis=2)
    if any(len(np.unique(row)) < len(row) for row in squared):
        return
    order = np.random.default_rng(seed).permutation(len(coords))
    place = np.argsort(order)
    moved = place[knn_edges(coords, k)]
    np.testing.assert_array_equal(knn_edges(coords[order], k), moved[:, np.lexsort(moved[::-1])])


def test_by_hand() -> None:
    #  0 1 .
    #  2 . 3      patch 0 is as far from 1 as from 2; patch 3 is √2 from 1, 2 from 2, √5 from 0
    coords = np.array([[0, 0], [1, 0], [0, 1], [2, 1]])
    np.testing.assert_array_equal(knn_edges(coords, 1), [[0, 1, 2, 3], [1, 0, 0, 1]])
    np.testing.assert_array_equal(knn_edges(coords, 2), [[0, 0, 1, 1, 2, 2, 3, 3], [1, 2, 0, 2, 0, 1, 1, 2]])


@pytest.mark.parametrize("k", [3, 4, 8])
def test_few_patches_give_the_complete_directed_graph(k: int) -> None:
    edges = knn_edges(np.zeros((4, 2), np.int64), k)
    assert set(zip(*edges.tolist(), strict=True)) == {(i, j) for i in range(4) for j in range(4) if i != j}


@pytest.mark.parametrize("n_patches", [0, 1])
def test_one_patch_has_no_neighbour(n_patches: int) -> None:
    assert knn_edges(np.zeros((n_patches, 2)), 8).shape == (2, 0)


def test_many_patches_at_one_place_cost_little_and_choose_the_first_rows() -> None:
    edges = knn_edges(np.full((20_000, 2), 7), 3)
    np.testing.assert_array_equal(
        edges[1].reshape(-1, 3)[[0, 1, 2, 3, 19_999]], [[1, 2, 3], [0, 2, 3], [0, 1, 3]] + [[0, 1, 2]] * 2
    )


def test_huge_coordinates_do_not_overflow() -> None:
    coords = np.array([[0, 0], [2**61, 0], [2**61, 2**40], [0, 2**40], [5, 5]])
    np.testing.assert_array_equal(knn_edges(coords, 1)[1], [4, 2, 1, 4, 0])


def test_agrees_with_scikit_learn_on_a_large_slide() -> None:
    rng = np.random.default_rng(0)
    coords = rng.choice(200_000, (3000, 2)).astype(np.int64)
    oracle = kneighbors_graph(coords.astype(np.float64), 8, mode="distance")
    edges = knn_edges(coords, 8)
    np.testing.assert_allclose(distances(coords, edges), np.sort(oracle.data.reshape(-1, 8), axis=1), rtol=1e-12)


def test_large_grid_equals_brute_force_by_rows() -> None:
    rng = np.random.default_rng(1)
    grid = np.stack(np.meshgrid(np.arange(90), np.arange(90)), axis=-1).reshape(-1, 2)
    coords = grid[rng.permutation(len(grid))[:5000]] * 224
    edges = knn_edges(coords, 8)[1].reshape(-1, 8)
    for row in range(0, 5000, 25):
        squared = ((coords - coords[row]) ** 2).sum(axis=1)
        order = np.lexsort((np.arange(5000), squared))
        np.testing.assert_array_equal(edges[row], np.sort(order[order != row][:8]))


@pytest.mark.parametrize(
    ("coords", "k", "message"),
    [
        (np.zeros((4, 2)), -1, "k is -1; expected 0 or more"),
        (np.zeros((4, 3)), 1, r"coords have shape \(4, 3\); expected \(patches, 2\)"),
        (np.full((4, 2), np.nan), 1, "not finite"),
    ],
)
def test_bad_input(coords: np.ndarray, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        knn_edges(coords, k)


# --- bag_edges --------------------------------------------------------------------------------------------------------

OWN = np.array([[0, 1, 2], [1, 2, 0]])
OTHER = np.array([[2], [1]])


def test_the_graph_of_the_file_wins(make_bag: Any) -> None:
    bag = make_bag(12, edges={8: OWN, 4: OTHER})
    np.testing.assert_array_equal(bag_edges(bag, 8), OWN)
    np.testing.assert_array_equal(bag_edges(bag, 4), OTHER)
    np.testing.assert_array_equal(bag_edges(make_bag(12, edges={5: OWN}), 8), OWN)
    np.testing.assert_array_equal(bag_edges(make_bag(12, edges={5: OWN}, coords=None), 8), OWN)


def test_without_one_it_is_made_from_coordinates(make_bag: Any) -> None:
    bag = make_bag(12)
    np.testing.assert_array_equal(bag_edges(bag, 3), knn_edges(bag.coords, 3))


def test_k_zero_and_one_patch_have_no_edges(make_bag: Any) -> None:
    assert bag_edges(make_bag(12, edges={8: OWN}), 0).shape == (2, 0)
    assert bag_edges(make_bag(1, coords=None), 8).shape == (2, 0)


def test_several_graphs_and_none_for_k_is_an_error(make_bag: Any) -> None:
    bag = make_bag(12, edges={16: OWN, 4: OTHER}, source=Path("dir/s.h5"))
    with pytest.raises(
        FeatureFileError, match=r"dir.s\.h5: graphs edge_index_k4, edge_index_k16, none for graph\.k 8.*4, 16"
    ):
        bag_edges(bag, 8)


def test_no_graph_and_no_coordinates_offers_k_zero(make_bag: Any) -> None:
    bag = make_bag(12, coords=None, source=Path("dir/s.h5"))
    with pytest.raises(FeatureFileError, match=r"dir.s\.h5: no coords and no graph for 12 patches.*set graph\.k: 0"):
        bag_edges(bag, 8)


def test_negative_k_is_refused(make_bag: Any) -> None:
    with pytest.raises(ValueError, match="k is -1"):
        bag_edges(make_bag(), -1)
