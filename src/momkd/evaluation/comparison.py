"""Methods against one of them, on the same folds: means, intervals, differences, p-values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from momkd.errors import RunError, summarise
from momkd.evaluation.columns import observed_columns
from momkd.evaluation.predictions import checked_predictions
from momkd.evaluation.scorers import main_scorer, primary_metric
from momkd.evaluation.statistics import (
    CorrectedT,
    Floats,
    PairedBootstrap,
    PairedDeLong,
    corrected_resampled_t,
    fold_ratio,
    fold_values,
    holm,
    paired_bootstrap,
    paired_delong,
)
from momkd.evaluation.verdict import verdict
from momkd.experiment import TaskSettings


@dataclass(frozen=True)
class PairComparison:
    """Two methods on the same folds, differences a − b of ``metric``, in three readings.

    ``corrected``: the corrected resampled t-test over folds, which contains the variation of training; None with fewer
    than two folds in a repeat or two defined values. ``bootstrap``: the pooled metric, averaged over repeats, patients
    resampled with their rows of all repeats; ``delong``: one a repeat, pooled predictions, two classes only. These two
    speak of other patients, given the trained models.
    """

    metric: str
    corrected: CorrectedT | None
    bootstrap: PairedBootstrap
    delong: tuple[PairedDeLong, ...]


def compare_two(
    a: pd.DataFrame,
    b: pd.DataFrame,
    task: TaskSettings,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    test_train_ratio: float | None = None,
) -> PairComparison:
    """Compare two runs' predictions.csv by the metric that stands for the task (``primary_metric``), test rows only.

    ``test_train_ratio``: n_test / n_train, by default 1 / (folds − 1). Raises RunError where the predictions are not
    usable, or the runs have other test patients, labels or folds.
    """
    first, second = _same_tests({"b": b, "a": a}, "b", task).values()
    ratio = _ratio(first, test_train_ratio)
    differences = fold_values(fold_metrics(second, task)) - fold_values(fold_metrics(first, task))
    known = differences[np.isfinite(differences)]
    tests = []
    if task.binary:
        column = f"prob_{task.classes[-1]}"
        for repeat, part in second.groupby("repeat", sort=True):
            y = (part["label"] == task.classes[-1]).to_numpy(dtype=np.int64)
            if y.min() != y.max():
                other = first.loc[first["repeat"] == repeat, column]
                tests.append(paired_delong(y, part[column].to_numpy(), other.to_numpy(), level))
    return PairComparison(
        metric=primary_metric(task),
        corrected=corrected_resampled_t(known, ratio, level) if len(known) > 1 and ratio is not None else None,
        bootstrap=_bootstrap(second, first, task, resamples=resamples, seed=seed, level=level),
        delong=tuple(tests),
    )


def compare_methods(
    predictions: Mapping[str, pd.DataFrame],
    reference: str,
    task: TaskSettings,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    test_train_ratio: float | None = None,
) -> pd.DataFrame:
    """Return one row a method, the reference first, from the runs' predictions.csv (test rows only).

    The columns are those of ``compare_values``: auc_mean, auc_sd, auc_ci_low, auc_ci_high, difference (method −
    reference), … for two classes; macro_auc, kappa, spearman or c_index take the place of auc for other tasks. With one
    fold in all there is no corrected t: the interval of the metric is then that of ``verdict``, and the difference's
    interval and p_value come from the paired bootstrap over patients. ``attrs`` of the table says which it is, under
    "interval", "difference" and "p_value", beside "metric", "reference", "level" and "p_delong".

    ``test_train_ratio``: n_test / n_train, by default 1 / (folds − 1); repeated single splits have none unless given.
    Raises RunError, naming all at once, for predictions that are not usable, and for methods with other test patients,
    labels or folds than the reference.
    """
    if reference not in predictions:
        raise RunError(f"no predictions of the reference {reference!r}; found {list(predictions)}")
    frames = _same_tests(predictions, reference, task)
    ratio = _ratio(frames[reference], test_train_ratio)
    values = {name: fold_metrics(frame, task) for name, frame in frames.items()}
    folds = int(frames[reference].groupby("repeat")["fold"].nunique().max())
    table = compare_values(values, frames, task, folds=folds, level=level, test_train_ratio=ratio)
    words = f"corrected resampled t over {len(values[reference])} folds"
    said = {"interval": words, "difference": words, "p_value": words}
    if ratio is None:
        none = "none: single splits without test_train_ratio"
        said = dict.fromkeys(said, none)
        if len(values[reference]) == 1:
            said = _one_fold(table, frames, task, resamples=resamples, seed=seed, level=level)
    table.attrs |= {"metric": primary_metric(task), "reference": reference, "level": level, **said}
    table.attrs["p_delong"] = "paired DeLong, pooled test predictions of the first repeat" if task.binary else "none"
    return table


def fold_metrics(frame: pd.DataFrame, task: TaskSettings) -> list[float | None]:
    """Return the metric that stands for the task in each (repeat, fold), sorted, None where undefined.

    ``frame``: checked test predictions (``checked_predictions``).
    """
    scorer, main = main_scorer(frame, task), primary_metric(task)
    number = frame.groupby(["repeat", "fold"], sort=True).ngroup().to_numpy()
    found = []
    for fold in range(int(number.max()) + 1):
        inside = number == fold
        value = float(scorer.score(inside, np.ones((1, int(inside.sum()))))[main][0])
        found.append(None if np.isnan(value) else value)
    return found


def compare_values(
    values: Mapping[str, Sequence[float | None]],
    predictions: Mapping[str, pd.DataFrame],
    task: TaskSettings,
    *,
    folds: int,
    level: float = 0.95,
    test_train_ratio: float | None = None,
) -> pd.DataFrame:
    """One row a method, in the order given; the first is the one that the others are compared with.

    ``values``: the main metric of each (repeat, fold), the same ones for every method, None where undefined;
    ``predictions``: the runs' predictions.csv; ``folds`` of one repeat. With m the name of ``primary_metric``, columns:

    - m_mean, m_sd (n − 1) over the folds, m_ci_low, m_ci_high: interval of the mean by the corrected resampled t;
    - difference (method − first), difference_ci_low, difference_ci_high, p_value: corrected resampled t-test of the
      paired folds (Nadeau and Bengio), n_test/n_train = 1/(folds − 1);
    - p_holm: p_value adjusted over the methods (Holm);
    - p_delong: paired DeLong test of the first repeat's pooled predictions, two classes only.

    A fold in which a metric is undefined for one of the two is left out of their differences. folds_used counts the
    folds of the mean, folds_compared those of the difference. What has no corrected t (one fold in all, or one fold a
    repeat and no ``test_train_ratio`` = n_test/n_train given) is NaN.
    Raises RunError where methods have different folds or patients.
    """
    names, main = list(values), primary_metric(task)
    ratio = test_train_ratio if test_train_ratio is not None or folds < 2 else fold_ratio(folds)
    if len({len(found) for found in values.values()}) > 1:
        raise RunError("methods have different numbers of folds and cannot be compared: " + ", ".join(names))
    first = fold_values(values[names[0]])
    rows: list[dict[str, Any]] = []
    for name in names:
        own = fold_values(values[name])
        row: dict[str, Any] = {"method": name, **_mean(own, main, ratio, level), **_nothing()}
        if name != names[0]:
            row |= _difference(own, first, ratio, level)
            if task.binary:
                row["p_delong"] = _delong(predictions[names[0]], predictions[name], task.classes[-1], names[0], name)
        rows.append(row)
    whole = ("method", "folds_used", "folds_compared")
    table = pd.DataFrame(rows).astype({name: np.float64 for name in rows[0] if name not in whole})
    _adjust(table)
    return table


def _adjust(table: pd.DataFrame) -> None:
    tested = table["p_value"].notna()
    table.loc[tested, "p_holm"] = holm(table.loc[tested, "p_value"].tolist())


def _nothing() -> dict[str, Any]:
    names = ("difference", "difference_ci_low", "difference_ci_high", "p_value", "p_holm", "p_delong")
    return {**dict.fromkeys(names), "folds_compared": 0}


def _mean(values: Floats, main: str, ratio: float | None, level: float) -> dict[str, Any]:
    known = values[np.isfinite(values)]
    row: dict[str, Any] = {f"{main}_{part}": None for part in ("mean", "sd", "ci_low", "ci_high")}
    row["folds_used"] = len(known)
    if len(known):
        row[f"{main}_mean"] = float(known.mean())
    if len(known) > 1:
        row[f"{main}_sd"] = float(known.std(ddof=1))
    if len(known) > 1 and ratio is not None:
        found = corrected_resampled_t(known, ratio, level)
        row |= {f"{main}_ci_low": found.low, f"{main}_ci_high": found.high}
    return row


def _difference(own: Floats, first: Floats, ratio: float | None, level: float) -> dict[str, Any]:
    both = own - first
    both = both[np.isfinite(both)]
    if len(both) == 0:
        return {}
    if len(both) == 1 or ratio is None:
        return {"difference": float(both.mean()), "folds_compared": len(both)}
    found = corrected_resampled_t(both, ratio, level)
    return {
        "difference": found.mean,
        "folds_compared": len(both),
        "difference_ci_low": found.low,
        "difference_ci_high": found.high,
        "p_value": found.p_value,
    }


def _delong(first: pd.DataFrame, other: pd.DataFrame, positive: str, first_name: str, name: str) -> float | None:
    """Paired DeLong on the pooled test predictions of the first repeat; None with patients of one class only."""
    a, b = (_pooled(frame) for frame in (first, other))
    if not a.index.equals(b.index):
        raise RunError(f"{first_name} and {name} have other test patients and cannot be compared")
    labels = (a["label"] == positive).to_numpy(dtype=np.int64)
    if labels.min() == labels.max():
        return None
    column = f"prob_{positive}"
    return paired_delong(labels, b[column].to_numpy(), a[column].to_numpy()).p_value


def _pooled(frame: pd.DataFrame) -> pd.DataFrame:
    own = frame[(frame["role"] == "test") & (frame["repeat"] == frame["repeat"].min())]
    pooled: pd.DataFrame = own.set_index("patient_id").sort_index()
    return pooled


def _same_tests(predictions: Mapping[str, pd.DataFrame], reference: str, task: TaskSettings) -> dict[str, pd.DataFrame]:
    """Return the checked test rows of each method, the reference first, one row order for all."""
    frames: dict[str, pd.DataFrame] = {}
    problems = []
    for name in [reference, *(name for name in predictions if name != reference)]:
        try:
            checked = checked_predictions(predictions[name], task)
            frames[name] = checked[checked["role"] == "test"].reset_index(drop=True)
        except RunError as error:
            problems.append(f"{name}: {error}")
    keys = ["repeat", "fold", "patient_id", *observed_columns(task)]
    for name, frame in frames.items():
        if frame.empty:
            problems.append(f"{name}: no test patient; expected predictions of the role test")
        elif reference in frames and not frame[keys].equals(frames[reference][keys]):
            rows = [set(table[keys].itertuples(index=False, name=None)) for table in (frame, frames[reference])]
            patients = sorted({str(row[2]) for row in rows[0] ^ rows[1]})
            problems.append(f"{name}: other test patients, folds or labels than {reference}: {summarise(patients)}")
    if problems:
        raise RunError("methods cannot be compared\n" + "\n".join(problems))
    return frames


def _ratio(frame: pd.DataFrame, given: float | None) -> float | None:
    folds = int(frame.groupby("repeat")["fold"].nunique().max())
    if given is not None:
        return given
    return fold_ratio(folds) if folds > 1 else None


def _bootstrap(
    a: pd.DataFrame, b: pd.DataFrame, task: TaskSettings, *, resamples: int, seed: int, level: float
) -> PairedBootstrap:
    scorer = main_scorer(a, task)
    if scorer.nothing:
        return PairedBootstrap(None, None, None, None, None, None, scorer.nothing)
    return paired_bootstrap(
        _pooled_metric(a, task),
        _pooled_metric(b, task),
        a["patient_id"].tolist(),
        needed=scorer.needed,
        resamples=resamples,
        seed=seed,
        level=level,
        cells=scorer.cells,
    )


def _pooled_metric(frame: pd.DataFrame, task: TaskSettings) -> Callable[[Floats], Floats]:
    """Return the function from weights (resamples, rows) to the mean over repeats of the pooled metric."""
    scorer, main = main_scorer(frame, task), primary_metric(task)
    repeat = frame["repeat"].to_numpy()
    masks: list[NDArray[np.bool_]] = [repeat == number for number in np.unique(repeat)]

    def score(weights: Floats) -> Floats:
        return np.asarray(np.mean([scorer.score(inside, weights[:, inside])[main] for inside in masks], axis=0))

    return score


def _one_fold(
    table: pd.DataFrame,
    frames: Mapping[str, pd.DataFrame],
    task: TaskSettings,
    *,
    resamples: int,
    seed: int,
    level: float,
) -> dict[str, str]:
    """Fill in what one fold allows, from patients alone, and return the methods' names."""
    names, main = list(frames), primary_metric(task)
    repeat, fold = (int(frames[names[0]][name].iloc[0]) for name in ("repeat", "fold"))
    said = {"interval": "", "difference": "none", "p_value": "none"}
    for row, name in enumerate(names):
        judged = verdict(frames[name], {(repeat, fold): 0.5}, task, seed=seed, resamples=resamples, level=level)
        metric = judged["test"][main]
        table.loc[row, [f"{main}_ci_low", f"{main}_ci_high"]] = metric["ci_low"], metric["ci_high"]
        said["interval"] = said["interval"] or metric["ci_method"]
        if row:
            found = _bootstrap(frames[name], frames[names[0]], task, resamples=resamples, seed=seed, level=level)
            table.loc[row, ["difference_ci_low", "difference_ci_high", "p_value"]] = (
                found.low,
                found.high,
                found.p_value,
            )
            if said["difference"].startswith("none"):
                said["difference"] = said["p_value"] = found.method
    _adjust(table)
    return said
