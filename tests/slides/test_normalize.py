"""Normalisers against scikit-learn, by hand, and in every order of bags."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import QuantileTransformer, StandardScaler

from momkd.slides.normalize import (
    NoNormalizer,
    QuantileNormalizer,
    StandardNormalizer,
    load_normalizer,
    make_normalizer,
)
from momkd.slides.readers import read_bag

KINDS = ("none", "standard", "quantile")


def some_bags(n: int = 7, width: int = 6, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    scale, shift = np.logspace(-3, 3, width), np.linspace(-50, 1000, width)
    sizes = rng.integers(1, 400, n)
    return [(np.exp(rng.normal(size=(size, width))) * scale + shift).astype(np.float32) for size in sizes]


# --- standard ---------------------------------------------------------------------------------------------------------


def test_standard_equals_scikit_learn() -> None:
    bags = some_bags()
    ours, oracle = StandardNormalizer().fit(bags), StandardScaler().fit(np.concatenate(bags).astype(np.float64))
    np.testing.assert_allclose(ours.mean_, oracle.mean_, rtol=1e-12)
    np.testing.assert_allclose(ours.scale_, oracle.scale_, rtol=1e-9)
    np.testing.assert_allclose(
        ours.transform(bags[0]), oracle.transform(bags[0].astype(np.float64)), rtol=1e-5, atol=1e-6
    )


def test_standard_by_hand() -> None:
    ours = StandardNormalizer().fit(
        [np.array([[1.0, 5.0]], np.float32), np.array([[2.0, 5.0], [6.0, 5.0]], np.float32)]
    )
    np.testing.assert_allclose(ours.mean_, [3, 5])
    np.testing.assert_allclose(ours.scale_, [np.sqrt(14 / 3), np.inf])
    np.testing.assert_allclose(ours.transform(np.array([[3.0, 9.0]], np.float32)), [[0, 0]])


def test_standard_keeps_digits_far_from_zero() -> None:
    column = np.random.default_rng(0).normal(1e4, 0.5, (5000, 1)).astype(np.float32)
    scores = StandardNormalizer().fit(np.array_split(column, 9)).transform(column)
    assert scores.mean(dtype=np.float64) == pytest.approx(0, abs=1e-6)
    assert scores.std(dtype=np.float64) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 3e4, 1e-30])
def test_constant_columns_give_zero(value: float) -> None:
    bags = [np.full((n, 2), value, np.float32) for n in (3, 1, 700)]
    for kind in ("standard", "quantile"):
        fitted = make_normalizer(kind).fit(bags)  # type: ignore[arg-type]
        assert not fitted.transform(np.array([[value, value + 1]], np.float32)).any()


# --- quantile ---------------------------------------------------------------------------------------------------------


def oracle_of(bags: list[np.ndarray], n_quantiles: int) -> QuantileTransformer:
    rows = np.concatenate(bags).astype(np.float64)
    return QuantileTransformer(n_quantiles=n_quantiles, output_distribution="normal", subsample=None).fit(rows)


@pytest.mark.parametrize("n_quantiles", [2, 50, 256])
def test_quantile_equals_scikit_learn(n_quantiles: int) -> None:
    bags = some_bags()
    ours, oracle = QuantileNormalizer(n_quantiles).fit(bags), oracle_of(bags, n_quantiles)
    np.testing.assert_allclose(ours.quantiles_, oracle.quantiles_, rtol=1e-12)
    new = np.concatenate([*some_bags(2, seed=1), bags[0], -1e6 * np.ones((1, 6)), 1e6 * np.ones((1, 6))]).astype(
        np.float32
    )
    np.testing.assert_allclose(ours.transform(new), oracle.transform(new.astype(np.float64)), atol=1e-5)


def test_quantile_equals_scikit_learn_where_values_repeat() -> None:
    rng = np.random.default_rng(0)
    bags = [rng.choice([0, 0, 0, 1, 2, 3, 7], (n, 4)).astype(np.float32) for n in (50, 200, 3)]
    ours, oracle = QuantileNormalizer(100).fit(bags), oracle_of(bags, 100)
    new = np.array([-1, 0, 0.5, 1, 2, 2.5, 3, 5, 7, 8], np.float32)[:, None].repeat(4, axis=1)
    np.testing.assert_allclose(ours.transform(new), oracle.transform(new.astype(np.float64)), atol=1e-5)


def test_quantile_of_fewer_patches_than_quantiles() -> None:
    bags = [np.array([[3.0], [1.0]], np.float32), np.array([[2.0]], np.float32)]
    ours = QuantileNormalizer().fit(bags)
    np.testing.assert_array_equal(ours.quantiles_, [[1], [2], [3]])
    scores = ours.transform(np.array([[0], [1], [2], [3], [4]], np.float32))
    np.testing.assert_allclose(scores[:, 0], [-5.19934, -5.19934, 0, 5.19934, 5.19934], atol=1e-5)
    assert not QuantileNormalizer().fit([np.ones((1, 2), np.float32)]).transform(np.ones((3, 2), np.float32)).any()


def test_quantile_sees_features_of_small_scale() -> None:
    column = (np.random.default_rng(0).normal(size=(1000, 1)) * 1e-9).astype(np.float32)
    scores = QuantileNormalizer().fit([column]).transform(column)
    assert scores.std() == pytest.approx(1, abs=0.1)


def test_quantile_keeps_order_and_is_bounded() -> None:
    fitted = QuantileNormalizer().fit(some_bags())
    line = np.linspace(-2000, 5000, 3000, dtype=np.float32)[:, None].repeat(6, axis=1)
    scores = fitted.transform(line)
    assert scores.dtype == np.float32
    assert (np.diff(scores, axis=0) >= 0).all()
    assert np.abs(scores).max() < 5.2


def test_quantile_subsample_is_fair_and_bounded() -> None:
    rng = np.random.default_rng(0)
    # 60 bags of 500 patches, each bag at its own level: a fair sample has every level equally often.
    bags = [rng.normal(level, 0.01, (500, 3)).astype(np.float32) for level in range(60)]
    fitted = QuantileNormalizer(n_quantiles=61, max_rows=3000, rows_per_bag=200).fit(bags)
    np.testing.assert_allclose(fitted.quantiles_[1:-1, 0], np.arange(1, 60) - 0.5, atol=3.0)
    assert fitted.quantiles_[0, 0] < 0.1
    assert fitted.quantiles_[-1, 0] > 58.9


def test_fitting_memory_does_not_grow_with_the_cohort() -> None:
    def cohort(n: int) -> Any:
        rng = np.random.default_rng(0)
        return (rng.normal(size=(300, 16)).astype(np.float32) for _ in range(n))

    peaks = []
    for n in (30, 150):
        tracemalloc.start()
        QuantileNormalizer(max_rows=1000, rows_per_bag=100).fit(cohort(n))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


def test_tcga_compartments_against_scikit_learn(shared: Any) -> None:
    paths = sorted((shared / "data/tcga_brca/features").glob("*.h5"))[:150]
    bags = [read_bag(path).features for path in paths]
    ours, oracle = QuantileNormalizer().fit(bags), oracle_of(bags, 256)
    rows = np.concatenate(bags)
    theirs = oracle.transform(rows.astype(np.float64))
    varying = rows.min(axis=0) < rows.max(axis=0)
    np.testing.assert_allclose(ours.transform(rows)[:, varying], theirs[:, varying], atol=1e-5)
    assert not ours.transform(rows)[:, ~varying].any()


# --- all --------------------------------------------------------------------------------------------------------------


@given(order=st.permutations(range(9)))
@settings(max_examples=25, deadline=None)
def test_order_of_bags_changes_no_byte(order: list[int]) -> None:
    rng = np.random.default_rng(0)
    # Magnitudes far apart, so that plain sums round differently in every order; and more rows than are kept.
    sizes, powers = (50, 400, 3, 70, 90, 200, 10, 300, 60), (3, -2, 6, 1, -3, 5, 0, 2, 4)
    bags = [(rng.normal(size=(n, 4)) * 10.0**p).astype(np.float32) for n, p in zip(sizes, powers, strict=True)]
    for make in (StandardNormalizer, lambda: QuantileNormalizer(32, max_rows=150, rows_per_bag=40)):
        first, second = make().fit(bags).arrays(), make().fit(bags[i] for i in order).arrays()
        for name, values in first.items():
            assert values.tobytes() == second[name].tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_arrays_restore_the_normaliser(kind: Any, dtype: type) -> None:
    bags = [bag.astype(dtype) for bag in some_bags()]
    fitted = make_normalizer(kind).fit(bags)
    restored = load_normalizer(kind, {name: values.copy() for name, values in fitted.arrays().items()})
    before = bags[0].copy()
    scores = fitted.transform(bags[0])
    assert scores.dtype == np.float32
    assert scores.shape == bags[0].shape
    assert scores.tobytes() == restored.transform(bags[0]).tobytes()
    assert bags[0].tobytes() == before.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_patch_gets_the_same_score_alone_and_in_its_bag(kind: Any) -> None:
    bags = some_bags()
    fitted = make_normalizer(kind).fit(bags)
    bag = max(bags, key=len)
    np.testing.assert_array_equal(fitted.transform(bag)[5:6], fitted.transform(bag[5:6]))


def test_none_only_changes_the_type() -> None:
    bag = some_bags()[0].astype(np.float16)
    np.testing.assert_array_equal(NoNormalizer().fit([]).transform(bag), bag.astype(np.float32))


def test_parameters_are_stored_unchanged() -> None:
    made = QuantileNormalizer(n_quantiles=5, max_rows=6, rows_per_bag=7)
    assert (made.n_quantiles, made.max_rows, made.rows_per_bag) == (5, 6, 7)


@pytest.mark.parametrize("kind", ["standard", "quantile"])
def test_wrong_input_is_named(kind: Any) -> None:
    with pytest.raises(ValueError, match="fitted on no patches"):
        make_normalizer(kind).fit([])
    with pytest.raises(ValueError, match=r"a bag has shape \(0, 3\)"):
        make_normalizer(kind).fit([np.zeros((0, 3), np.float32)])
    with pytest.raises(ValueError, match=r"shape \(2, 4\); the normaliser expects \(patches, 3\)"):
        make_normalizer(kind).fit([np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)])
    fitted = make_normalizer(kind).fit([np.eye(3, dtype=np.float32)])
    with pytest.raises(ValueError, match=r"shape \(2, 4\); the normaliser expects \(patches, 3\)"):
        fitted.transform(np.ones((2, 4), np.float32))
    with pytest.raises(ValueError, match=r"normaliser arrays hold nothing; expected"):
        load_normalizer(kind, {})


@pytest.mark.parametrize(
    ("kind", "arrays"),
    [
        ("standard", {"mean": np.zeros(3), "scale": np.zeros(3)}),
        ("standard", {"mean": np.zeros(3), "scale": np.ones(4)}),
        ("quantile", {"quantiles": np.ones((1, 3))}),
        ("quantile", {"quantiles": np.array([[1.0], [0.0]])}),
    ],
)
def test_damaged_arrays_are_refused(kind: Any, arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="are not those of a"):
        load_normalizer(kind, arrays)


@pytest.mark.parametrize("wrong", [{"n_quantiles": 1}, {"max_rows": 1}, {"rows_per_bag": 0}])
def test_senseless_parameters_are_refused_in_fit(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected at least 2, 2 and 1"):
        QuantileNormalizer(**wrong).fit(some_bags())


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match=r"features\.normalize is 'zscore'; expected one of none, standard, quantile"):
        make_normalizer("zscore")  # type: ignore[arg-type]


def test_quantile_scores_a_patch_alike_in_a_bag_of_any_size() -> None:
    """A few rows are computed across columns, many rows across rows; ties, repeats and tails included."""
    rng = np.random.default_rng(3)
    bags = [rng.normal(size=(90, 7)).round(1) for _ in range(9)]
    for bag in bags:
        bag[:, 0], bag[:, 1] = 3.0, bag[:, 1].round(0)
    normalizer = QuantileNormalizer().fit([bag.astype(np.float32) for bag in bags])
    probe = np.concatenate([bags[0], 5 * rng.normal(size=(60, 7)).round(2)]).astype(np.float32)
    together = normalizer.transform(probe)
    for size in (1, 3, 50):
        parts = [normalizer.transform(probe[start : start + size]) for start in range(0, len(probe), size)]
        np.testing.assert_allclose(np.concatenate(parts), together, rtol=1e-6, atol=1e-7)


def test_float16_is_widened_exactly_whoever_may_write_to_it() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)].reshape(1, -1)
    locked = finite.copy()
    locked.flags.writeable = False
    for features in (finite, locked, np.asfortranarray(np.repeat(finite, 3, axis=0)).T):
        found = make_normalizer("none").transform(features)
        assert found.dtype == np.float32
        assert np.array_equal(found, features.astype(np.float32))
