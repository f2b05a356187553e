"""Metrics of a predicted risk, for one sample or thousands of weighted resamples at once; Kaplan–Meier, log-rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

from momkd.evaluation.metrics import Floats, first_of, ratio
from momkd.evaluation.pairs import ordered_pairs

SURVIVAL = ("c_index", "uno_c_index")


def survival_metrics(time: ArrayLike, event: ArrayLike, risk: ArrayLike) -> dict[str, float | None]:
    """Return the metrics named in ``SURVIVAL`` for times, events 0/1 and risks (higher = earlier), all (patients,).

    c_index (Harrell, JAMA 1982): of all pairs of which one patient is known to have the event before the other, the
    share in which it has the higher risk; equal risks count half. A patient censored at the time of another's event
    outlives it; two events at one time are no pair.
    uno_c_index (Uno, Statistics in Medicine 2011): the same, each pair weighted by 1/Ĝ(t)², t being the earlier time
    and Ĝ the Kaplan–Meier estimate, from these patients, of the probability to be uncensored just before t. It does not
    depend on the censoring of the cohort; late events among few patients weigh much. No time is cut off.
    Only the order of the risks counts, so nothing is said of calibration. Without any pair both are None. Raises
    ValueError for times that are not positive, other events, or risks that are not finite.
    """
    times, events, risks = check_survival(time, event, risk)
    one = np.zeros(len(times), dtype=np.int64)
    return first_of(weighted_survival(times, events, risks, one, np.ones((1, len(times)))))


def check_survival(time: ArrayLike, event: ArrayLike, risk: ArrayLike) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """Return time float64, event bool, risk float64, all (patients,); ValueError says what is wrong."""
    times, risks = np.asarray(time, dtype=np.float64), np.asarray(risk, dtype=np.float64)
    events = np.asarray(event)
    if times.ndim != 1 or not times.shape == events.shape == risks.shape or len(times) == 0:
        raise ValueError(f"found shapes {times.shape}, {events.shape} and {risks.shape}; expected (n,) three times")
    if not (np.isfinite(times).all() and (times > 0).all()):
        raise ValueError("found times that are not positive and finite")
    if not np.isin(events, (0, 1)).all():
        raise ValueError("found events that are neither 0 nor 1")
    if not np.isfinite(risks).all():
        raise ValueError("found risks that are not finite")
    return times, events.astype(bool), risks


def weighted_survival(
    time: Floats, event: NDArray[np.bool_], risk: Floats, model: NDArray[np.int64], weights: ArrayLike
) -> dict[str, Floats]:
    """Return each metric as float64 (resamples,), NaN where undefined.

    ``time``, ``event``, ``risk``, ``model`` (rows,); ``weights`` (resamples, rows), how often each row counts. Risks of
    two models have no common unit, so only rows of the same ``model`` are paired; Ĝ is that of all rows.
    """
    w = np.asarray(weights, dtype=np.float64)
    concordant, comparable = np.zeros(w.shape), np.zeros(w.shape)
    for number in np.unique(model):
        own = np.flatnonzero(model == number)
        concordant[:, own], comparable[:, own] = ordered_pairs(time[own], event[own], risk[own], w[:, own])
    uncensored = uncensored_before(time, event, w)
    # An event that counts has somebody at risk, so Ĝ > 0 there; the others have no pairs.
    trust = np.divide(w, uncensored**2, out=np.zeros_like(w), where=(uncensored > 0) & (w > 0))
    return {
        "c_index": ratio((w * concordant).sum(axis=1), (w * comparable).sum(axis=1)),
        "uno_c_index": ratio((trust * concordant).sum(axis=1), (trust * comparable).sum(axis=1)),
    }


def uncensored_before(time: Floats, event: NDArray[np.bool_], w: Floats) -> Floats:
    """Return Ĝ(t−), the Kaplan–Meier probability to be uncensored just before each row's time, (resamples, rows).

    At equal times events come before censorings, so those with the event are no longer at risk of being censored.
    """
    _, place = np.unique(time, return_inverse=True)
    n = int(place.max()) + 1
    held, lost = np.zeros((n, len(w))), np.zeros((n, len(w)))
    np.add.at(held, place, w.T)
    np.add.at(lost, place[~event], w[:, ~event].T)
    at_risk = np.cumsum(held[::-1], axis=0)[::-1] - (held - lost)
    stay = np.divide(at_risk - lost, at_risk, out=np.ones_like(held), where=at_risk > 0)
    before = np.vstack([np.ones((1, len(w))), np.cumprod(stay, axis=0)[:-1]])
    return np.asarray(before[place].T)


@dataclass(frozen=True, eq=False)
class KaplanMeier:
    """Survival at each distinct time, all (times,): it falls to ``survival`` at ``time``; ``at_risk`` just before."""

    time: Floats
    survival: Floats
    at_risk: NDArray[np.int64]


def kaplan_meier(time: ArrayLike, event: ArrayLike) -> KaplanMeier:
    """Return the product-limit estimate Π (1 − events / at risk) (Kaplan and Meier, JASA 1958); inputs (patients,)."""
    times, happened = np.asarray(time, dtype=np.float64), np.asarray(event, dtype=bool)
    distinct, place = np.unique(times, return_inverse=True)
    leaving = np.bincount(place, minlength=len(distinct))
    events = np.bincount(place[happened], minlength=len(distinct))
    at_risk = np.cumsum(leaving[::-1])[::-1]
    return KaplanMeier(distinct, np.cumprod(1 - events / at_risk, dtype=np.float64), at_risk)


def logrank(time: ArrayLike, event: ArrayLike, group: ArrayLike) -> float | None:
    """Return the p-value of the log-rank test (Mantel, Cancer Chemotherapy Reports 1966) of two groups, two-sided.

    ``time``, ``event`` 0/1 and ``group`` 0/1, all (patients,). None where it has no variance (no event with both groups
    at risk).
    """
    times, happened = np.asarray(time, dtype=np.float64), np.asarray(event, dtype=bool)
    first = np.asarray(group).astype(bool)
    distinct, place = np.unique(times, return_inverse=True)

    def each(mask: NDArray[np.bool_]) -> Floats:
        return np.bincount(place[mask], minlength=len(distinct)).astype(np.float64)

    everyone = np.ones(len(times), dtype=bool)
    at_risk = np.cumsum(each(everyone)[::-1])[::-1]
    own = np.cumsum(each(first)[::-1])[::-1]
    events = each(happened)
    share = own / at_risk
    excess = float((each(happened & first) - events * share).sum())
    spread = np.divide(at_risk - events, at_risk - 1, out=np.zeros_like(at_risk), where=at_risk > 1)
    variance = float((events * share * (1 - share) * spread).sum())
    return float(chi2.sf(excess**2 / variance, 1)) if variance > 0 else None
