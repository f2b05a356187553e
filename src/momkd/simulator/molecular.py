"""Patients without their slides: molecular state, outcome, site and RNA.

The state z ~ N(0, I) has six axes. The outcome's liability is t = ρ·ŵz + √(1−ρ²)·e, and the share ``prevalence`` of
patients with the largest t is positive; ρ is set so that ŵz has the asked Bayes AUC. Histology shows three directions
of z, of which the first, v₁ = r·ŵ + √(1−r²)·q with q ⟂ ŵ, is all that bears on the outcome; r is set so that v₁z has
the asked visible AUC. Every number comes from a stream of its own, so that one knob leaves the others' draws alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr

from momkd.simulator.settings import SimulationSettings

AXES = ("proliferation", "hormone", "her2", "immune", "stroma", "other")
N_VISIBLE = 3

# ŵ: what the outcome depends on, before it is given unit length.
_OUTCOME = (0.5, -0.4, 0.75, -0.15, 0.0, 0.0)

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Patients:
    """n simulated patients.

    ``z`` (n, 6); ``bayes_score`` ŵz and ``visible_score`` v₁z, standard normal; ``visible`` (n, 3), what foci show;
    ``clean_label`` before label noise and ``label`` after it, 0 or 1; ``site`` 0…sites-1.
    """

    patient_id: tuple[str, ...]
    z: Floats
    bayes_score: Floats
    visible_score: Floats
    visible: Floats
    clean_label: NDArray[np.int64]
    label: NDArray[np.int64]
    site: NDArray[np.int64]


def auc_of_correlation(correlation: float, prevalence: float) -> float:
    """Return the AUC of a score for a thresholded liability when the two are jointly normal with a correlation.

    With threshold θ on the liability, p(x) = P(positive | score x) = Φ((c·x − θ)/√(1−c²)), and the AUC is the double
    integral of p over positives above negatives, here by the trapezoid rule (error below 1e-6).
    """
    threshold = NormalDist().inv_cdf(1.0 - prevalence)
    x = np.linspace(-8.0, 8.0, 4001)
    density = np.exp(-0.5 * x**2)
    positive = density * ndtr((correlation * x - threshold) / np.sqrt(1.0 - correlation**2))
    negative = density - positive
    below = np.cumsum(negative) - 0.5 * negative
    return float((positive * below).sum() / (positive.sum() * negative.sum()))


def correlation_of_auc(auc: float, prevalence: float) -> float:
    """Return the correlation at which ``auc_of_correlation`` gives ``auc`` (0.5 … 0.999)."""
    if auc <= 0.5:
        return 0.0
    return float(brentq(lambda c: auc_of_correlation(c, prevalence) - auc, 0.0, 1.0 - 1e-9))


def visible_directions(settings: SimulationSettings) -> tuple[Floats, Floats]:
    """Return ŵ (6,) and the three orthonormal directions of z that histology shows (3, 6)."""
    outcome = np.array(_OUTCOME) / np.linalg.norm(_OUTCOME)
    # QR of [ŵ | axes] is a Gram–Schmidt that starts with ŵ: the columns after it are orthonormal and ⟂ ŵ.
    basis = np.linalg.qr(np.column_stack([outcome, np.eye(len(AXES))[:, 1:]]))[0]
    share = correlation_of_auc(settings.visibility, settings.prevalence) / correlation_of_auc(
        settings.bayes_auc, settings.prevalence
    )
    first = share * outcome + np.sqrt(1.0 - share**2) * basis[:, 1]
    return outcome, np.stack([first, *basis[:, 2 : 1 + N_VISIBLE].T])


def simulate_patients(settings: SimulationSettings, *, external: bool = False) -> Patients:
    """Draw the patients of the cohort, or of the external cohort."""
    n = settings.external_patients if external else settings.patients
    n_sites = settings.external_sites if external else settings.sites
    stream = 1 if external else 0
    z = np.random.default_rng([settings.seed, 10, stream]).normal(size=(n, len(AXES)))
    outcome, visible = visible_directions(settings)
    score = z @ outcome
    rho = correlation_of_auc(settings.bayes_auc, settings.prevalence)
    noise = np.random.default_rng([settings.seed, 11, stream]).normal(size=n)
    liability = rho * score + np.sqrt(1.0 - rho**2) * noise
    clean = np.zeros(n, dtype=np.int64)
    clean[np.argsort(-liability, kind="stable")[: round(settings.prevalence * n)]] = 1
    flip = np.random.default_rng([settings.seed, 12, stream]).permutation(n)[: round(settings.label_noise * n)]
    label = clean.copy()
    label[flip] = 1 - label[flip]
    prefix = "X" if external else "P"
    width = max(4, len(str(n)))
    names = tuple(f"{prefix}{number:0{width}d}" for number in range(1, n + 1))
    site = _sites(score, n_sites, settings.site_confounding, np.random.default_rng([settings.seed, 13, stream]))
    shown = z @ visible.T
    return Patients(names, z, score, shown[:, 0], shown, clean, label, site)


def _sites(score: Floats, n_sites: int, confounding: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Assign patients to sites of uneven size (∝ 1/rank^0.7), tilted by the outcome score."""
    size = 1.0 / np.arange(1, n_sites + 1) ** 0.7
    tilt = rng.permutation(np.linspace(-1.0, 1.0, n_sites)) if n_sites > 1 else np.zeros(1)
    weight = size * np.exp(confounding * score[:, None] * tilt)
    edges = np.cumsum(weight, axis=1) / weight.sum(axis=1, keepdims=True)
    return np.asarray((rng.uniform(size=(len(score), 1)) > edges[:, :-1]).sum(axis=1), dtype=np.int64)


def simulate_rna(settings: SimulationSettings, patients: Patients) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return gene names (G,) and negative binomial counts (patients, G).

    log-mean = baseline of the gene + Λz + site effect + sequencing depth + noise; ``gene_share`` of the genes load on
    z, each on one axis and weakly on a second. The variance is μ + 0.2·μ², as a gamma-mixed Poisson.
    """
    n_genes = settings.genes
    rng = np.random.default_rng([settings.seed, 20])
    baseline = rng.normal(np.log(60.0), 1.3, n_genes)
    loading = np.zeros((len(AXES), n_genes))
    loaded = rng.permutation(n_genes)[: round(settings.gene_share * n_genes)]
    for strength in (0.9, 0.3):
        axis = rng.integers(len(AXES), size=len(loaded))
        loading[axis, loaded] += rng.choice([-1.0, 1.0], len(loaded)) * rng.gamma(4.0, strength / 4.0, len(loaded))
    site_effect = rng.normal(0.0, 0.2 * settings.site_strength, (settings.sites, n_genes))
    n = len(patients.patient_id)
    draws = np.random.default_rng([settings.seed, 21])
    depth = draws.normal(0.0, 0.2, (n, 1))
    log_mean = baseline + patients.z @ loading + site_effect[patients.site] + depth
    log_mean += draws.normal(0.0, 0.25, (n, n_genes))
    mean = np.exp(np.clip(log_mean, -5.0, 14.0)) * draws.gamma(5.0, 1.0 / 5.0, (n, n_genes))
    width = max(4, len(str(n_genes)))
    names = tuple(f"GENE{number:0{width}d}" for number in range(1, n_genes + 1))
    return names, draws.poisson(mean)
