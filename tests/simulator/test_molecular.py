"""Patients and RNA: the ceilings are where the settings put them, and the knobs do what they say."""

from __future__ import annotations

from dataclasses import replace
from math import asin, pi

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from momkd.errors import ExperimentError
from momkd.simulator import SimulationSettings
from momkd.simulator.molecular import (
    auc_of_correlation,
    correlation_of_auc,
    simulate_patients,
    simulate_rna,
    visible_directions,
)

LARGE = SimulationSettings(patients=20_000)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.8, 0.99])
def test_auc_of_a_median_split_in_closed_form(correlation: float) -> None:
    # Positive t1, negative t0 and positive x1 − x0 are an orthant of three normals of correlations c/√2, c/√2 and 0:
    # P = 1/8 + asin(c/√2)/(2π), and the AUC is P divided by P(t1 > 0, t0 < 0) = 1/4.
    assert auc_of_correlation(correlation, 0.5) == pytest.approx(0.5 + 2 * asin(correlation / 2**0.5) / pi, abs=1e-6)


@pytest.mark.parametrize("prevalence", [0.1, 0.3, 0.8])
@pytest.mark.parametrize("auc", [0.5, 0.7, 0.95])
def test_correlation_is_the_inverse_of_auc(auc: float, prevalence: float) -> None:
    assert auc_of_correlation(correlation_of_auc(auc, prevalence), prevalence) == pytest.approx(auc, abs=1e-6)


def test_visible_directions_are_orthonormal() -> None:
    outcome, visible = visible_directions(SimulationSettings())
    np.testing.assert_allclose(visible @ visible.T, np.eye(3), atol=1e-12)
    assert np.linalg.norm(outcome) == pytest.approx(1.0)
    # Only the first bears on the outcome: the others are orthogonal to it.
    np.testing.assert_allclose(visible[1:] @ outcome, 0.0, atol=1e-12)
    assert 0.0 < visible[0] @ outcome < 1.0


@pytest.mark.parametrize(
    ("bayes", "visibility", "prevalence"), [(0.95, 0.80, 0.3), (0.9, 0.65, 0.5), (0.97, 0.9, 0.15)]
)
def test_ceilings_are_where_they_were_put(bayes: float, visibility: float, prevalence: float) -> None:
    patients = simulate_patients(replace(LARGE, bayes_auc=bayes, visibility=visibility, prevalence=prevalence))
    assert roc_auc_score(patients.label, patients.bayes_score) == pytest.approx(bayes, abs=0.01)
    assert roc_auc_score(patients.label, patients.visible_score) == pytest.approx(visibility, abs=0.01)
    assert patients.label.mean() == pytest.approx(prevalence, abs=1e-4)
    # No other mix of what is visible does better.
    fitted = LogisticRegression().fit(patients.visible, patients.label)
    assert roc_auc_score(patients.label, fitted.decision_function(patients.visible)) < visibility + 0.015


def test_state_is_standard_normal_in_every_cohort() -> None:
    for external in (False, True):
        z = simulate_patients(replace(LARGE, external_patients=20_000), external=external).z
        np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=0.03)
        np.testing.assert_allclose(np.cov(z.T), np.eye(6), atol=0.04)


def test_label_noise_flips_that_share() -> None:
    settings = SimulationSettings(patients=200, label_noise=0.1)
    patients = simulate_patients(settings)
    assert (patients.label != patients.clean_label).sum() == 20
    assert patients.clean_label.tolist() == simulate_patients(replace(settings, label_noise=0.0)).label.tolist()


def test_sites_are_uneven_and_confounding_is_a_knob() -> None:
    sizes = np.bincount(simulate_patients(replace(LARGE, site_confounding=0.0)).site, minlength=8)
    assert (np.diff(sizes) < 0).all()
    assert sizes[0] > 3 * sizes[-1]

    def rates(confounding: float) -> float:
        patients = simulate_patients(replace(LARGE, site_confounding=confounding))
        return float(np.ptp([patients.label[patients.site == site].mean() for site in range(8)]))

    assert rates(0.0) < 0.05 < 0.15 < rates(0.3) < rates(1.0)


def test_external_patients_are_others() -> None:
    settings = SimulationSettings()
    own, other = simulate_patients(settings), simulate_patients(settings, external=True)
    assert not set(own.patient_id) & set(other.patient_id)
    assert len(other.patient_id) == 80
    assert set(other.site.tolist()) <= {0, 1, 2}
    assert not np.isin(other.z, own.z).any()


def test_rna_is_overdispersed_counts_and_some_genes_load() -> None:
    settings = SimulationSettings(patients=600, genes=400, site_strength=0.0)
    patients = simulate_patients(settings)
    genes, counts = simulate_rna(settings, patients)
    assert genes[:2] == ("GENE0001", "GENE0002")
    assert counts.dtype == np.int64
    assert counts.min() >= 0
    mean, variance = counts.mean(axis=0), counts.var(axis=0)
    assert (variance > 1.1 * mean)[mean > 20].all()
    correlation = np.corrcoef(np.log1p(counts).T, patients.z.T)[:400, 400:]
    loading = np.abs(correlation).max(axis=1) > 0.3
    assert 0.10 < loading.mean() < 0.16
    none = simulate_rna(replace(settings, gene_share=0.0), patients)[1]
    assert np.abs(np.corrcoef(np.log1p(none).T, patients.z.T)[:400, 400:]).max() < 0.25


def test_rna_knows_the_label_nearly_as_well_as_the_state_does() -> None:
    settings = SimulationSettings(patients=300, genes=600, seed=2)
    patients = simulate_patients(settings)
    values = np.log2(simulate_rna(settings, patients)[1] + 1.0)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    score = cross_val_predict(model, values, patients.label, cv=folds, method="decision_function")
    assert roc_auc_score(patients.label, score) > 0.89


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prevalence": 1.5}, "prevalence is 1.5, expected 0.02 … 0.98"),
        ({"patients": 2.5}, "patients is 2.5, expected a whole number"),
        ({"patients": True}, "patients is True"),
        ({"visibility": 0.97}, "visibility 0.97 is not below bayes_auc 0.95"),
        ({"mpp": float("nan")}, "mpp is nan"),
        ({"seed": -1, "genes": 1}, "genes is 1, expected 10 … inf; seed is -1"),
    ],
)
def test_settings_out_of_range(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ExperimentError, match="simulation: ") as caught:
        SimulationSettings(**changes)  # type: ignore[arg-type]
    assert message in str(caught.value)
