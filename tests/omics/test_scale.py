"""Scalers: fitted on training patients, deaf to wild tails."""

from __future__ import annotations

import numpy as np
import pytest

from momkd.omics.scale import WinsorScaler, make_scaler


def test_winsor_by_hand() -> None:
    values = np.array([[0.0], [1.0], [2.0], [3.0], [1000.0]])
    scaler = WinsorScaler(tail=0.25).fit(values)
    assert (scaler.low_[0], scaler.high_[0]) == (1.0, 3.0)
    clipped = np.array([1.0, 1.0, 2.0, 3.0, 3.0])
    np.testing.assert_allclose(scaler.transform(values)[:, 0], (clipped - 2.0) / clipped.std())
    # Whoever comes later is clipped to what training patients showed.
    np.testing.assert_allclose(
        scaler.transform([[-50.0], [2.0], [9e9]])[:, 0], [-1.0 / clipped.std(), 0, 1 / clipped.std()]
    )


def test_one_wild_patient_does_not_decide_a_gene() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 1))
    wild = values.copy()
    wild[0] = 36_893.0
    shift = WinsorScaler().fit(wild).transform(values) - WinsorScaler().fit(values).transform(values)
    assert np.abs(shift).max() < 0.3
    assert np.abs(make_scaler("standard").fit(wild).transform(values)).max() < 0.1  # all others become one value


@pytest.mark.parametrize("kind", ["standard", "winsor"])
def test_constant_genes_are_zero(kind: str) -> None:
    values = np.column_stack([np.full(20, 0.1 + 0.2), np.arange(20.0), np.zeros(20)])
    found = make_scaler(kind).fit(values).transform(values)  # type: ignore[arg-type]
    assert np.abs(found[:, [0, 2]]).max() < 1e-12
    np.testing.assert_allclose(found[:, 1].std(), 1.0)


def test_unknown_scales_are_refused() -> None:
    with pytest.raises(ValueError, match="expected none, standard or winsor"):
        make_scaler("robust")  # type: ignore[arg-type]
