"""Whole studies: cross-validation, the final fit, external evaluation, prediction; every verb as a function."""
