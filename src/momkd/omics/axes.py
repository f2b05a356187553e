"""The axes of few patients among many genes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Directions of less than this share of the largest singular value are rounding.
_RELATIVE = 1e-7


def patient_axes(values: Floats) -> tuple[Floats, Floats, Floats]:
    """U (N, r), S (r,), V (r, G) with values (N, G) = U S V, singular values falling, float64.

    From the N × N Gram matrix: with fewer patients than genes that is many times faster than an SVD, and exact to half
    the digits of a float64, which is what standardised expression needs.
    """
    eigenvalues, left = np.linalg.eigh(values @ values.T)
    order = np.argsort(eigenvalues)[::-1]
    singular = np.sqrt(np.maximum(eigenvalues[order], 0.0))
    kept = singular > _RELATIVE * max(float(singular[0]), np.finfo(np.float64).tiny)
    left, singular = left[:, order][:, kept], singular[kept]
    return left, singular, (left.T @ values) / singular[:, None]
