"""Axes of few patients among many genes: an SVD, faster."""

from __future__ import annotations

import numpy as np
import pytest

from momkd.omics.axes import patient_axes
from momkd.omics.teacher import unit_profiles


@pytest.mark.parametrize("shape", [(7, 40), (40, 7), (5, 5)])
def test_it_is_an_svd(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    left, singular, axes = patient_axes(values)
    np.testing.assert_allclose(singular, np.linalg.svd(values, compute_uv=False), rtol=1e-8)
    np.testing.assert_allclose(left * singular @ axes, values, atol=1e-9)
    np.testing.assert_allclose(axes @ axes.T, np.eye(len(singular)), atol=1e-9)


def test_directions_that_are_not_there_are_left_out() -> None:
    rng = np.random.default_rng(0)
    left, singular, axes = patient_axes(rng.normal(size=(9, 2)) @ rng.normal(size=(2, 30)))
    assert len(singular) == 2
    assert (left.shape, axes.shape) == ((9, 2), (2, 30))


def test_profiles_are_whitened_and_of_unit_length() -> None:
    values = np.random.default_rng(0).normal(size=(30, 50)) * np.linspace(5, 1, 50)
    found = unit_profiles(values, 4)
    left, _, _ = np.linalg.svd(values - values.mean(0), full_matrices=False)
    expected = left[:, :4] / np.linalg.norm(left[:, :4], axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-6)
    # The sign of an axis is that of its largest gene, whatever the order of the patients.
    turned = unit_profiles(values[::-1].copy(), 4)
    np.testing.assert_allclose(turned[::-1], found, atol=1e-5)


def test_more_components_than_there_are_stay_zero() -> None:
    found = unit_profiles(np.random.default_rng(0).normal(size=(4, 20)), 6)
    assert not found[:, 3:].any()
