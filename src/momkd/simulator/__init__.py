"""Paired cohorts whose truth is known: hard in the ways real cohorts are hard, and as hard as asked for."""

from momkd.simulator.settings import SimulationSettings
from momkd.simulator.simulate import SimulatedCohort, simulate
from momkd.simulator.truth import Truth, read_truth

__all__ = ["SimulatedCohort", "SimulationSettings", "Truth", "read_truth", "simulate"]
