"""Methods by their predictions.csv: every task, one fold or many, and what cannot be compared."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from momkd.errors import RunError
from momkd.evaluation.comparison import compare_methods, compare_two, fold_metrics
from momkd.evaluation.metrics import binary_metrics
from momkd.evaluation.scorers import primary_metric
from momkd.evaluation.statistics import holm, paired_auc_bootstrap, paired_delong
from momkd.evaluation.verdict import verdict
from momkd.experiment import TaskSettings

TASK = TaskSettings(label="HER2", classes=("neg", "pos"))
KINDS = ("classification", "ordinal", "continuous", "survival")
Maker = Callable[..., tuple[TaskSettings, pd.DataFrame]]


def run(seed: int, signal: float = 1.0, n: int = 60, repeats: int = 2, folds: int = 3) -> pd.DataFrame:
    """What a cross-validation leaves: the same folds for every seed, other predictions."""
    labels = np.arange(n) % 2
    parts = []
    for repeat in range(repeats):
        prob = 1 / (1 + np.exp(-signal * labels - np.random.default_rng((seed, repeat)).normal(size=n)))
        fold = np.random.default_rng(repeat).permutation(n) % folds
        part = pd.DataFrame({"repeat": repeat, "fold": fold, "role": "test", "patient_id": [f"P{i}" for i in range(n)]})
        part["label"], part["prob_neg"], part["prob_pos"] = np.where(labels, "pos", "neg"), 1 - prob, prob
        parts.append(part)
    return pd.concat(parts, ignore_index=True).sample(frac=1.0, random_state=seed)


def fold_aucs(frame: pd.DataFrame) -> np.ndarray:
    return np.array(
        [
            binary_metrics((part["label"] == "pos").astype(int), part["prob_pos"], 0.5)["auc"]
            for _, part in frame.groupby(["repeat", "fold"])
        ],
        dtype=np.float64,
    )


def turned(frame: pd.DataFrame) -> pd.DataFrame:
    """The same run with predictions that say the opposite."""
    frame = frame.copy()
    for name in ("predicted", "risk"):
        if name in frame:
            frame[name] = -frame[name]
    columns = [name for name in frame.columns if name.startswith("prob_")]
    frame[columns] = frame[columns].to_numpy()[:, ::-1]
    return frame


def test_every_number_of_the_table_by_its_definition() -> None:
    runs = {"a": run(0), "b": run(1, 0.3), "c": run(2, 1.5)}
    table = compare_methods(runs, "b", TASK)
    assert table["method"].tolist() == ["b", "a", "c"]
    table = table.set_index("method")
    reference = fold_aucs(runs["b"])
    quantile = stats.t.ppf(0.975, 5)
    for name in ("a", "c"):
        own = fold_aucs(runs[name])
        error = own.std(ddof=1) * np.sqrt(1 / 6 + 1 / 2)
        row = table.loc[name]
        assert row["auc_mean"] == pytest.approx(own.mean())
        assert row["auc_sd"] == pytest.approx(own.std(ddof=1))
        assert (row["auc_ci_low"], row["auc_ci_high"]) == pytest.approx(
            (own.mean() - quantile * error, own.mean() + quantile * error)
        )
        difference = own - reference
        error = difference.std(ddof=1) * np.sqrt(1 / 6 + 1 / 2)
        assert row["difference"] == pytest.approx(difference.mean())
        assert row["difference_ci_high"] == pytest.approx(difference.mean() + quantile * error)
        assert row["p_value"] == pytest.approx(2 * stats.t.sf(abs(difference.mean()) / error, 5))
        first, second = (
            runs[key][runs[key]["repeat"] == 0].set_index("patient_id").sort_index() for key in (name, "b")
        )
        y = (first["label"] == "pos").astype(int)
        assert row["p_delong"] == pytest.approx(paired_delong(y, first["prob_pos"], second["prob_pos"]).p_value)
        assert (row["folds_used"], row["folds_compared"]) == (6, 6)
    assert table.loc[["a", "c"], "p_holm"].tolist() == pytest.approx(holm(table.loc[["a", "c"], "p_value"].tolist()))
    assert table.loc["b", ["difference", "p_value", "p_holm", "p_delong"]].isna().all()
    assert table.attrs == {
        "metric": "auc",
        "reference": "b",
        "level": 0.95,
        "interval": "corrected resampled t over 6 folds",
        "difference": "corrected resampled t over 6 folds",
        "p_value": "corrected resampled t over 6 folds",
        "p_delong": "paired DeLong, pooled test predictions of the first repeat",
    }


def test_one_fold_has_the_intervals_of_its_patients() -> None:
    runs = {"a": run(0, 0.2, repeats=1, folds=1), "b": run(1, 2.5, repeats=1, folds=1), "c": run(3, repeats=1, folds=1)}
    table = compare_methods(runs, "a", TASK, resamples=500).set_index("method")
    exact = verdict(runs["b"], {(0, 0): 0.5}, TASK)["test"]["auc"]
    assert (table.loc["b", "auc_ci_low"], table.loc["b", "auc_ci_high"]) == (exact["ci_low"], exact["ci_high"])
    assert table.attrs["interval"] == "DeLong 95 % (logit scale)"
    first, second = (runs[name].set_index("patient_id").sort_index() for name in ("b", "a"))
    y = (first["label"] == "pos").astype(int)
    found = paired_auc_bootstrap(y, first["prob_pos"], second["prob_pos"], first.index.tolist(), resamples=500)
    assert table.loc["b", "p_value"] == pytest.approx(found.p_value)
    assert table.loc["b", "difference_ci_low"] == pytest.approx(found.low)
    assert table.attrs["p_value"].startswith("paired bootstrap 95 % (normal, 500 resamples of 60 clusters")
    assert table["p_holm"].tolist()[1:] == pytest.approx(holm(table["p_value"].tolist()[1:]))


def test_repeated_single_splits_need_their_ratio() -> None:
    runs = {"a": run(0, folds=1, repeats=4), "b": run(1, folds=1, repeats=4)}
    without = compare_methods(runs, "a", TASK)
    assert without[["auc_ci_low", "p_value", "p_holm"]].isna().all(axis=None)
    assert without.attrs["p_value"] == "none: single splits without test_train_ratio"
    given = compare_methods(runs, "a", TASK, test_train_ratio=0.25)
    difference = fold_aucs(runs["b"]) - fold_aucs(runs["a"])
    error = difference.std(ddof=1) * np.sqrt(1 / 4 + 0.25)
    assert given["p_value"][1] == pytest.approx(2 * stats.t.sf(abs(difference.mean()) / error, 3))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("repeats", [1, 2])
def test_every_task_is_compared_by_its_metric(predicted: Maker, kind: str, repeats: int) -> None:
    task, frame = predicted(kind, repeats=repeats)
    runs = {"good": frame, "bad": turned(frame)}
    table = compare_methods(runs, "good", task)
    main = primary_metric(task)
    judged = {name: verdict(part, {}, task, resamples=2)["test"][main] for name, part in runs.items()}
    assert table[f"{main}_mean"].tolist() == pytest.approx([judged["good"]["mean"], judged["bad"]["mean"]])
    assert table["difference"][1] < 0
    assert 0 <= table["p_value"][1] <= 1
    assert np.isnan(table["p_delong"][1])
    assert table.attrs["metric"] == main
    pair = compare_two(frame, runs["bad"], task, resamples=200)
    assert (pair.metric, pair.delong) == (main, ())
    assert pair.corrected is not None
    assert pair.corrected.p_value == pytest.approx(table["p_value"][1])
    assert pair.bootstrap.a == pytest.approx(judged["good"]["pooled"])
    assert pair.bootstrap.b == pytest.approx(judged["bad"]["pooled"])
    assert pair.bootstrap.p_value is not None
    assert pair.bootstrap.p_value < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_every_task_has_an_interval_with_one_fold(predicted: Maker, kind: str) -> None:
    task, frame = predicted(kind, repeats=1, folds=1)
    frame = frame[frame["role"] == "test"]
    table = compare_methods({"good": frame, "bad": turned(frame)}, "good", task, resamples=100)
    main = table.attrs["metric"]
    assert (table[f"{main}_ci_low"] < table[f"{main}_mean"]).all()
    assert table["difference_ci_low"][1] < table["difference"][1] < table["difference_ci_high"][1]
    assert 0 <= table["p_holm"][1] == table["p_value"][1] <= 1


def test_two_runs_in_three_readings() -> None:
    a, b = run(0, 1.5), run(1, 0.3)
    found = compare_two(a, b, TASK, resamples=300)
    assert found.corrected is not None
    assert found.corrected.mean == pytest.approx((fold_aucs(a) - fold_aucs(b)).mean())
    assert len(found.delong) == 2
    assert found.bootstrap.difference == pytest.approx(np.mean([test.difference for test in found.delong]))
    back = compare_two(b, a, TASK, resamples=300)
    assert back.corrected is not None
    assert back.corrected.p_value == pytest.approx(found.corrected.p_value)
    assert back.bootstrap.p_value == pytest.approx(found.bootstrap.p_value)
    assert [test.difference for test in back.delong] == pytest.approx([-test.difference for test in found.delong])
    # Repeats of one run are no new patients: the interval stays as wide as that of one repeat.
    single = [frame[frame["repeat"] == 0] for frame in (a, b)]
    twice = [pd.concat([part, part.assign(repeat=1)]) for part in single]
    one, two = (compare_two(*pair, TASK, resamples=300).bootstrap for pair in (single, twice))
    assert (two.low, two.high) == (pytest.approx(one.low), pytest.approx(one.high))


def test_rows_in_any_order_give_the_same_table() -> None:
    runs = {"a": run(0), "b": run(1)}
    again = {name: frame.sample(frac=1.0, random_state=9)[frame.columns[::-1]] for name, frame in runs.items()}
    pd.testing.assert_frame_equal(compare_methods(again, "a", TASK), compare_methods(runs, "a", TASK))


# --- Bad input -------------------------------------------------------------------------------------------------------


def test_a_fold_of_one_class_is_left_out_and_counted() -> None:
    frames = {"a": run(0), "b": run(1)}
    gone = {
        name: frame[(frame["repeat"] > 0) | (frame["fold"] > 0) | (frame["label"] == "pos")]
        for name, frame in frames.items()
    }
    table = compare_methods(gone, "a", TASK)
    assert table["folds_used"].tolist() == [5, 5]
    assert table["folds_compared"].tolist() == [0, 5]
    assert np.isfinite(table["p_value"][1])
    everything = {name: frame[frame["label"] == "pos"] for name, frame in frames.items()}
    empty = compare_methods(everything, "a", TASK)
    assert empty["folds_used"].tolist() == [0, 0]
    assert empty[["auc_mean", "difference", "p_value", "p_holm", "p_delong"]].isna().all(axis=None)
    pair = compare_two(everything["a"], everything["b"], TASK)
    assert (pair.corrected, pair.delong, pair.bootstrap.p_value) == (None, (), None)
    assert pair.bootstrap.method == "none: the patients are of one class"


@pytest.mark.parametrize("folds", [1, 3])
def test_constant_and_identical_predictions_are_defined(folds: int) -> None:
    repeats = 1 if folds == 1 else 2
    good = run(0, repeats=repeats, folds=folds)
    constant = good.assign(prob_neg=0.5, prob_pos=0.5)
    table = compare_methods({"a": good, "same": good, "flat": constant}, "a", TASK, resamples=50).set_index("method")
    assert (table.loc["same", "difference"], table.loc["same", "p_value"], table.loc["same", "p_delong"]) == (0, 1, 1)
    assert table.loc["flat", "auc_mean"] == 0.5
    assert table.loc["flat", "difference"] == pytest.approx(0.5 - table.loc["a", "auc_mean"])
    assert table.loc["flat", "p_value"] < 1
    flat = compare_methods({"a": constant, "b": constant}, "a", TASK, resamples=50)
    assert (flat["p_value"][1], flat["p_holm"][1], flat["p_delong"][1]) == (1, 1, 1)
    assert flat[["auc_ci_low", "auc_ci_high"]].isna().all(axis=None)


def test_all_that_is_wrong_is_said_at_once(predicted: Maker) -> None:
    good = run(0)
    relabelled = good.assign(label=good["label"].where(good["patient_id"] != "P7", "neg"))
    refolded = good.assign(fold=good["fold"].where(good["patient_id"] != "P9", (good["fold"] + 1) % 3))
    broken = good.drop(columns="prob_pos")
    untested = good.assign(role="val")
    runs = {"ok": good, "l": relabelled, "f": refolded, "x": broken, "v": untested, "few": good[good["repeat"] == 0]}
    with pytest.raises(RunError) as caught:
        compare_methods(runs, "ok", TASK)
    message = str(caught.value)
    for expected in (
        "l: other test patients, folds or labels than ok: P7",
        "f: other test patients, folds or labels than ok: P9",
        "x: predictions: columns ['prob_pos'] are missing",
        "v: no test patient",
        "few: other test patients",
    ):
        assert expected in message
    with pytest.raises(RunError, match="no predictions of the reference 'momkd'"):
        compare_methods({"a": good}, "momkd", TASK)
    task, frame = predicted("survival")
    with pytest.raises(RunError, match="cannot be compared"):
        compare_two(frame, frame.assign(time=frame["time"] + 1), task)


def test_fold_metrics_are_in_the_order_of_the_folds() -> None:
    frame = run(0).sort_values(["repeat", "fold", "patient_id"])
    assert fold_metrics(frame, TASK) == pytest.approx(fold_aucs(frame).tolist())
