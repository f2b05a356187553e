"""Gene selection, scaling and the two together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from momkd.errors import OmicsError
from momkd.experiment import OmicsSettings, SelectSettings
from momkd.omics.prepare import OmicsPreparer
from momkd.omics.scale import make_scaler
from momkd.omics.select import (
    AllGenes,
    GeneSelector,
    ListSelector,
    MADSelector,
    VarianceSelector,
    XGBoostSelector,
    make_selector,
)

N_PATIENTS, N_GENES = 120, 40
SELECTORS = [
    XGBoostSelector(10),
    VarianceSelector(10),
    MADSelector(10),
    ListSelector(["G07", "G03"]),
    AllGenes(),
]


def cohort(seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(N_PATIENTS, N_GENES)).astype(np.float32)
    values[:, 5] = 1.25
    values[:, 9] = values[:, 8]
    labels = (values[:, 3] + values[:, 7] + 0.3 * rng.normal(size=N_PATIENTS) > 0).astype(np.int64)
    patients = [f"P{i:03d}" for i in range(N_PATIENTS)]
    return (
        pd.DataFrame(values, index=patients, columns=[f"G{j:02d}" for j in range(N_GENES)]),
        pd.Series(labels, index=patients),
    )


def omics(method: str = "xgboost", scale: str = "standard", **select: object) -> OmicsSettings:
    return OmicsSettings.model_validate({"table": "x", "scale": scale, "select": {"method": method, **select}})


@pytest.mark.parametrize("selector", SELECTORS, ids=lambda s: type(s).__name__)
def test_permuting_patients_and_genes_changes_nothing(selector: GeneSelector) -> None:
    X, y = cohort()
    rng = np.random.default_rng(1)
    rows, columns = rng.permutation(N_PATIENTS), rng.permutation(N_GENES)
    first = clone(selector).fit(X, y)
    second = clone(selector).fit(X.iloc[rows, columns], y.iloc[rows])
    assert first.genes_ == second.genes_
    np.testing.assert_array_equal(first.scores_, second.scores_)
    assert [X.columns[columns[i]] for i in second.selected_] == second.genes_
    pd.testing.assert_frame_equal(first.transform(X), X[first.genes_])
    assert list(first.get_feature_names_out()) == first.genes_


@pytest.mark.parametrize("selector", SELECTORS, ids=lambda s: type(s).__name__)
def test_parameters_are_kept_and_input_is_not_changed(selector: GeneSelector) -> None:
    X, y = cohort()
    before = X.copy()
    copied = clone(selector).fit(X, y)
    assert copied.get_params() == selector.get_params()
    assert not hasattr(selector, "genes_")
    pd.testing.assert_frame_equal(X, before)


def test_xgboost_finds_the_informative_genes_and_fills_up_by_correlation() -> None:
    X, y = cohort()
    selector = XGBoostSelector(N_GENES).fit(X, y)
    assert set(selector.genes_[:2]) == {"G03", "G07"}
    used = int((selector.scores_ > 0).sum())
    assert 2 <= used < N_GENES
    filled = selector.genes_[used:]
    centred = y.to_numpy() - y.mean()
    values = X.to_numpy(dtype=np.float64)
    correlation = {
        gene: 0.0 if np.ptp(column) == 0 else abs(np.corrcoef(column, centred)[0, 1])
        for gene, column in zip(X.columns, values.T, strict=True)
    }
    assert filled[-1] == "G05"
    assert filled == sorted(filled, key=lambda gene: (-round(correlation[gene], 9), gene))


def test_xgboost_does_not_depend_on_threads() -> None:
    X, y = cohort(3)
    one, two = (XGBoostSelector(30, seed=4, n_jobs=jobs).fit(X, y) for jobs in (1, 2))
    assert one.genes_ == two.genes_
    np.testing.assert_array_equal(one.scores_, two.scores_)


def test_xgboost_serves_three_classes() -> None:
    X, _ = cohort()
    y = pd.Series(np.digitize(X["G03"], [-0.5, 0.5]), index=X.index)
    assert XGBoostSelector(5).fit(X, y).genes_[0] == "G03"


def test_equal_genes_come_in_the_order_of_their_names() -> None:
    X, y = cohort()
    same = pd.DataFrame(dict.fromkeys(("c", "a", "b"), X["G00"]))
    for selector in (VarianceSelector(2), MADSelector(2)):
        assert selector.fit(same, y).genes_ == ["a", "b"]
    ranked = XGBoostSelector(3).fit(same, y)
    assert ranked.genes_ == ["a", "b", "c"]


def test_variance_and_mad_by_hand() -> None:
    X = pd.DataFrame(
        {"flat": [1.0, 1, 1, 1], "outlier": [0.0, 0, 0, 100], "spread": [0.0, 2, 4, 6]}, index=list("pqrs")
    )
    variance, mad = VarianceSelector(2).fit(X), MADSelector(2).fit(X)
    assert variance.genes_ == ["outlier", "spread"]
    np.testing.assert_allclose(variance.scores_, [1875.0, 5.0])
    assert mad.genes_ == ["spread", "flat"]
    np.testing.assert_allclose(mad.scores_, [2.0, 0.0])


def test_asking_for_more_genes_than_there_are_keeps_all_and_says_so() -> None:
    X, y = cohort()
    selector = VarianceSelector(1000).fit(X, y)
    assert len(selector.genes_) == N_GENES
    assert selector.notes_ == ("all 40 genes are kept: 1000 were asked for",)
    assert VarianceSelector(10).fit(X, y).notes_ == ()


def test_a_list_keeps_its_order_and_names_what_is_wrong() -> None:
    X, _ = cohort()
    assert ListSelector(["G07", "G03"]).fit(X).genes_ == ["G07", "G03"]
    with pytest.raises(OmicsError, match=r"omics\.select\.genes: 1 of 2 genes are not in the omics table: ESR1"):
        ListSelector(["G07", "ESR1"]).fit(X)
    with pytest.raises(OmicsError, match="listed several times: G07"):
        ListSelector(["G07", "G07"]).fit(X)
    with pytest.raises(OmicsError, match="genes is empty"):
        ListSelector([]).fit(X)


def test_what_cannot_be_ranked_is_refused() -> None:
    X, y = cohort()
    with pytest.raises(OmicsError, match="all 120 training patients are of one class"):
        XGBoostSelector().fit(X, y * 0)
    with pytest.raises(ValueError, match="needs the labels"):
        XGBoostSelector().fit(X)
    with pytest.raises(ValueError, match="not those of X in the same order"):
        XGBoostSelector().fit(X, y.iloc[::-1])
    with pytest.raises(ValueError, match="expected 120 class numbers"):
        XGBoostSelector().fit(X, y.to_numpy()[:-1])
    with pytest.raises(OmicsError, match="repeated gene names a"):
        AllGenes().fit(pd.DataFrame([[1.0, 2.0]], index=["p"], columns=["a", "a"]))
    with pytest.raises(OmicsError, match="gene 'b', patient p: the value is not finite"):
        AllGenes().fit(pd.DataFrame([[1.0, np.nan]], index=["p"], columns=["a", "b"]))
    with pytest.raises(OmicsError, match="found 0 patients × 2 genes"):
        AllGenes().fit(pd.DataFrame(columns=["a", "b"], dtype=float))
    with pytest.raises(ValueError, match="at least 1 gene"):
        VarianceSelector(0).fit(X)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (SelectSettings(method="xgboost", n=5), XGBoostSelector),
        (SelectSettings(method="variance", n=5), VarianceSelector),
        (SelectSettings(method="mad", n=5), MADSelector),
        (SelectSettings(method="list", genes=("a",)), ListSelector),
        (SelectSettings(method="none"), AllGenes),
    ],
)
def test_settings_make_their_selector(settings: SelectSettings, kind: type[GeneSelector]) -> None:
    selector = make_selector(settings, 7)
    assert type(selector) is kind
    assert selector.get_params().get("n", 5) == 5
    assert selector.get_params().get("seed", 7) == 7


def test_scalers() -> None:
    values = np.array([[1.0, 5.0, 0.1], [3.0, 5.0, 0.1], [5.0, 5.0, 0.1]])
    scaled = make_scaler("standard").fit(values).transform(values)
    np.testing.assert_allclose(scaled, [[-1.2247449, 0, 0], [0, 0, 0], [1.2247449, 0, 0]], atol=1e-6)
    np.testing.assert_array_equal(make_scaler("none").fit(values).transform(values), values)
    with pytest.raises(ValueError, match="expected none, standard or winsor"):
        make_scaler("robust")  # type: ignore[arg-type]


def test_preparer_fits_on_training_patients_only() -> None:
    X, y = cohort()
    train, test = X.iloc[:80], X.iloc[80:]
    preparer = OmicsPreparer(omics(n=10), seed=0).fit(train, y.iloc[:80])
    prepared = preparer.transform(train)
    assert prepared.dtype == np.float32
    np.testing.assert_allclose(prepared.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(prepared.std(axis=0), 1, atol=1e-5)
    first = preparer.genes_[0]
    by_hand = (test[first].to_numpy(np.float64) - train[first].to_numpy(np.float64).mean()) / train[first].to_numpy(
        np.float64
    ).std()
    np.testing.assert_allclose(preparer.transform(test)[:, 0], by_hand, rtol=1e-5)
    changed = pd.concat([train, test * 50])
    again = OmicsPreparer(omics(n=10), seed=0).fit(changed.iloc[:80], y.iloc[:80])
    np.testing.assert_array_equal(again.transform(train), prepared)


def test_preparer_ignores_row_and_column_order_and_extra_genes() -> None:
    X, y = cohort()
    rng = np.random.default_rng(5)
    rows, columns = rng.permutation(N_PATIENTS), rng.permutation(N_GENES)
    first = OmicsPreparer(omics(n=10)).fit(X, y)
    second = clone(first).fit(X.iloc[rows, columns], y.iloc[rows])
    np.testing.assert_array_equal(first.transform(X), second.transform(X.iloc[:, columns].assign(extra=1.0)))
    pd.testing.assert_frame_equal(first.genes_table(), second.genes_table())
    assert list(first.genes_table().columns) == ["rank", "gene", "score"]
    assert first.genes_table()["rank"].tolist() == list(range(1, 11))
    with pytest.raises(OmicsError, match=f"1 of the 10 selected genes are absent: {first.genes_[0]}"):
        first.transform(X.drop(columns=first.genes_[0]))


def test_preparer_without_selection_or_scaling_is_the_table() -> None:
    X, y = cohort()
    preparer = OmicsPreparer(omics("none", scale="none")).fit(X, y)
    np.testing.assert_array_equal(preparer.transform(X), X.to_numpy())
    assert preparer.genes_ == tuple(X.columns)
