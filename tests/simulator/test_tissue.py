"""Tissue and features: coherent regions, contiguous foci, and a signal that sits where the truth says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import label

from momkd.simulator import SimulationSettings
from momkd.simulator.features import encode, simulate_encoder
from momkd.simulator.molecular import simulate_patients
from momkd.simulator.tissue import TYPES, Tissue, simulate_tissue

EIGHT = np.ones((3, 3))


def grid(tissue: Tissue, chosen: np.ndarray) -> np.ndarray:
    side = int(tissue.cells.max()) + 1
    field = np.zeros((side, side), dtype=bool)
    field[tissue.cells[chosen, 1], tissue.cells[chosen, 0]] = True
    return field


def slides(n: int = 400, foci: float = 0.15, seeds: int = 20) -> list[Tissue]:
    return [simulate_tissue(n, foci, np.random.default_rng(seed)) for seed in range(seeds)]


@pytest.mark.parametrize("n", [4, 50, 1000])
def test_exactly_as_many_cells_as_asked(n: int) -> None:
    for tissue in slides(n, seeds=5):
        assert tissue.cells.shape == (n, 2)
        assert len(np.unique(tissue.cells, axis=0)) == n
        assert tissue.cells.min() >= 0
        order = np.lexsort((tissue.cells[:, 0], tissue.cells[:, 1]))
        assert order.tolist() == list(range(n))


def test_some_slides_have_fragments_and_holes() -> None:
    everything = slides()
    whole = [grid(tissue, np.ones(400, dtype=bool)) for tissue in everything]
    assert max(label(mask, EIGHT)[1] for mask in whole) >= 2
    assert any(label(~np.pad(mask, 1))[1] >= 2 for mask in whole)


def test_types_are_coherent_regions() -> None:
    for tissue in slides(seeds=6):
        where = {tuple(cell): kind for cell, kind in zip(tissue.cells.tolist(), tissue.types.tolist(), strict=True)}
        pairs = [(kind, where[x + 1, y]) for (x, y), kind in where.items() if (x + 1, y) in where]
        agreement = np.mean([left == right for left, right in pairs])
        share = np.bincount(tissue.types, minlength=len(TYPES)) / 400
        assert agreement > (share**2).sum() + 0.2
        assert 0.24 < share[0] < 0.76


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5])
def test_foci_are_that_share_of_the_tumour_and_contiguous(share: float) -> None:
    pieces = []
    for tissue in slides(foci=share):
        tumour = tissue.types == 0
        assert not (tissue.informative & ~tumour).any()
        assert tissue.informative.sum() == max(1, round(share * tumour.sum()))
        pieces.append(label(grid(tissue, tissue.informative), EIGHT)[1] / tissue.informative.sum())
    assert np.mean(pieces) < 0.25


def test_no_foci_and_only_foci() -> None:
    assert not slides(foci=0.0, seeds=1)[0].informative.any()
    everything = slides(foci=1.0, seeds=1)[0]
    assert (everything.informative == (everything.types == 0)).all()


def test_foci_differ_from_other_tumour_by_the_signal_along_the_visible_state() -> None:
    settings = SimulationSettings(signal=3.0, patients=50)
    encoder, patients = simulate_encoder(settings), simulate_patients(settings)
    tissue = simulate_tissue(4000, 0.3, np.random.default_rng(0))
    visible = patients.visible[3]
    features = encode(encoder, tissue, visible, 0, np.random.default_rng(1))
    assert features.dtype == np.float32
    tumour = tissue.types == 0
    difference = features[tissue.informative].mean(axis=0) - features[tumour & ~tissue.informative].mean(axis=0)
    basis = encoder.visible / 3.0
    np.testing.assert_allclose(basis @ basis.T, np.eye(3), atol=1e-5)
    np.testing.assert_allclose(basis @ difference, 3.0 * visible, atol=0.15)
    assert np.linalg.norm(difference - basis.T @ (basis @ difference)) < 0.5


def test_features_have_unit_scale_and_correlated_noise() -> None:
    settings = SimulationSettings(signal=0.0)
    encoder = simulate_encoder(settings)
    bags = [encode(encoder, t, np.zeros(3), i % 8, np.random.default_rng(i)) for i, t in enumerate(slides())]
    assert 0.8 < np.concatenate(bags).std(axis=0).mean() < 1.25
    tissue = slides(seeds=1)[0]
    of_one_type = bags[0][tissue.types == 0]
    variance = np.linalg.eigvalsh(np.cov(of_one_type.T))[::-1]
    assert variance[:8].sum() > 0.3 * variance.sum()


def test_external_sites_have_a_stronger_stain_and_the_same_encoder() -> None:
    settings = SimulationSettings(sites=200, external_sites=200)
    own, other = simulate_encoder(settings), simulate_encoder(settings, external=True)
    np.testing.assert_array_equal(own.centroids, other.centroids)
    np.testing.assert_array_equal(own.visible, other.visible)
    assert other.site_stain.std() / own.site_stain.std() == pytest.approx(2.0, rel=0.15)
    assert not simulate_encoder(replace(settings, site_strength=0.0)).site_stain.any()
