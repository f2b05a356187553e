"""What an encoder would say of a patch: type, visible state, stain of the site, and noise.

feature = type centroid (+ the slide's own) + [in a focus] · signal · visible state · B + stain of site and slide
          + correlated noise + white noise

The slide's own centroids are what makes a mean over all patches a poor summary: one patient's stroma is not another's.
B, the centroids, the stain directions and the factors of the correlated noise belong to the encoder: one set a seed,
shared by the cohort and the external cohort. Each feature has about unit variance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from momkd.simulator.molecular import N_VISIBLE
from momkd.simulator.settings import SimulationSettings
from momkd.simulator.tissue import TYPES, Tissue

# Standard deviations, a feature: of the centroids, of a slide's own centroids around them, of the stain of a site and
# of a slide, and of the patch noise.
_CENTROID, _OWN, _SITE, _SLIDE, _CORRELATED, _WHITE = 0.5, 0.45, 0.3, 0.2, 0.4, 0.55
_N_STAINS, _N_FACTORS = 3, 8

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Encoder:
    """Directions in feature space (rows × D, float32) and the stain of every site (sites, 3)."""

    centroids: Floats
    visible: Floats
    stains: Floats
    factors: Floats
    site_stain: Floats


def simulate_encoder(settings: SimulationSettings, *, external: bool = False) -> Encoder:
    """Draw the encoder of a seed; the external cohort has the same encoder, other sites and a stronger stain."""
    width = settings.features
    rng = np.random.default_rng([settings.seed, 30])
    centroids = rng.normal(0.0, _CENTROID, (len(TYPES), width))
    visible = np.linalg.qr(rng.normal(size=(width, N_VISIBLE)))[0].T
    # Factors have unit length on average per feature, so that their sum adds the stated variance to each.
    stains = rng.normal(0.0, 1.0 / np.sqrt(_N_STAINS), (_N_STAINS, width))
    factors = rng.normal(0.0, 1.0 / np.sqrt(_N_FACTORS), (_N_FACTORS, width))
    strength = settings.site_strength * (settings.external_shift if external else 1.0)
    n_sites = settings.external_sites if external else settings.sites
    sites = np.random.default_rng([settings.seed, 31, int(external)]).normal(size=(n_sites, _N_STAINS))
    arrays = (centroids, settings.signal * visible, stains, factors, _SITE * strength * sites)
    return Encoder(*(array.astype(np.float32) for array in arrays))


def encode(
    encoder: Encoder, tissue: Tissue, visible: NDArray[np.float64], site: int, rng: np.random.Generator
) -> Floats:
    """Return the features (P, D) float32 of a slide whose patient shows ``visible`` (3,) in the foci."""
    n = len(tissue.types)
    white = rng.standard_normal((n, encoder.centroids.shape[1]), dtype=np.float32)
    coefficients = rng.standard_normal((n, _N_FACTORS), dtype=np.float32)
    stain = encoder.site_stain[site] + np.float32(_SLIDE) * rng.standard_normal(_N_STAINS, dtype=np.float32)
    shown = visible.astype(np.float32) @ encoder.visible
    own = np.float32(_OWN) * rng.standard_normal(encoder.centroids.shape, dtype=np.float32)
    features = (encoder.centroids + own)[tissue.types] + tissue.informative[:, None] * shown + stain @ encoder.stains
    features += np.float32(_CORRELATED) * (coefficients @ encoder.factors)
    features += np.float32(_WHITE) * white
    return np.asarray(features)
