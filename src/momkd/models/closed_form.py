"""Methods that are solved, not trained: linear models on the mean patch features of a slide."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from momkd.models.method import Method


@dataclass(frozen=True, eq=False)
class Known:
    """What a solution may use of the N training slides.

    In float64: ``features`` (N, D), mean over patches; ``targets`` (N, 2), as in ``models.outcome``; ``omics`` (N, G),
    all tables side by side, zero where a patient has none; ``soft`` (N, O), scores of the omics teacher. ``has_soft``
    (N,) bool; ``part`` (N,) int64, balanced inner parts of whole groups, for choosing a penalty.
    """

    features: Tensor
    targets: Tensor
    part: Tensor
    omics: Tensor | None = None
    soft: Tensor | None = None
    has_soft: Tensor | None = None


class ClosedForm(Method, ABC):
    """A method whose weights are computed at once."""

    @abstractmethod
    def solve(self, known: Known) -> None:
        """Write the solution into the student."""
