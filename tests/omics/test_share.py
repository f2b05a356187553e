"""The share of a table that is used: exact, nested, the same for tables of the same patients."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from momkd.omics.table import OmicsTable, keep_share

PATIENTS = [f"P{i:03d}" for i in range(60)]


def table(patients: list[str] = PATIENTS, columns: int = 3) -> OmicsTable:
    values = np.arange(len(patients) * columns, dtype=np.float32).reshape(len(patients), columns)
    return OmicsTable(pd.DataFrame(values, index=patients), (), Path("rna.csv"), ())


def kept(share: float, seed: int = 0, of: OmicsTable | None = None) -> set[str]:
    return set(keep_share(of or table(), share, seed).values.index)


@pytest.mark.parametrize(("share", "patients"), [(1.0, 60), (0.5, 30), (0.25, 15), (0.1, 6), (0.11, 7), (0.001, 1)])
def test_the_share_is_exact_and_rounded_up(share: float, patients: int) -> None:
    found = keep_share(table(), share, 0)
    assert (len(found.values), len(found.unused)) == (patients, 60 - patients)
    assert sorted([*found.values.index, *found.unused]) == PATIENTS
    pd.testing.assert_frame_equal(found.values, table().values.loc[found.values.index])


def test_a_smaller_share_is_a_part_of_a_larger_one() -> None:
    for seed in range(5):
        parts = [kept(share, seed) for share in (0.1, 0.25, 0.5, 0.9, 1.0)]
        assert all(small < large for small, large in pairwise(parts))


def test_the_seed_decides_and_another_table_of_the_same_patients_does_not() -> None:
    assert kept(0.5, 0) != kept(0.5, 1)
    assert kept(0.5) == kept(0.5, of=table(columns=7)) == kept(0.5, of=table(PATIENTS[::-1]))


def test_the_whole_table_is_itself() -> None:
    whole = table()
    assert keep_share(whole, 1.0, 0) is whole
