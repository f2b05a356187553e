"""Paired cohorts whose truth is known: hard in the ways real cohorts are hard, and as hard as asked for."""
