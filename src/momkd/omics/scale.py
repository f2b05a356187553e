"""Scaling of gene values, fitted on the training patients of one fold."""

from __future__ import annotations

from typing import Literal

from sklearn.preprocessing import FunctionTransformer, StandardScaler


def make_scaler(kind: Literal["none", "standard"]) -> FunctionTransformer | StandardScaler:
    """Return the scaler that the experiment file asks for: the identity, or (x − mean) / population standard deviation.

    A gene that is constant among the patients of ``fit`` is divided by 1, so it is 0 for them. Raises ValueError for
    another ``kind``.
    """
    if kind == "standard":
        return StandardScaler()
    if kind == "none":
        return FunctionTransformer(feature_names_out="one-to-one")
    raise ValueError(f"found scale {kind!r}; expected none or standard")
