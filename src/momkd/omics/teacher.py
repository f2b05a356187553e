"""What omics alone teaches before the first step: soft labels and profiles, from the training patients of a fit.

Soft labels (Lopez-Paz et al. 2015, "Unifying distillation and privileged information"): the score of each training
patient comes from a linear teacher that saw neither that patient nor anybody of its part (its sites), because a teacher
that knew the answer would only repeat the label.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge

from momkd.experiment import TaskSettings, TeacherSettings
from momkd.omics.axes import patient_axes
from momkd.omics.scale import WinsorScaler

Floats = NDArray[np.float64]
Choose = Callable[[NDArray[np.bool_]], NDArray[np.int64]]
# Patients in two tables from which a correlation is estimated.
_FEWEST_IN_BOTH = 3


def soft_scores(
    values: NDArray[np.floating],
    targets: Floats,
    part: NDArray[np.int64],
    task: TaskSettings,
    settings: TeacherSettings,
    choose: Choose | None = None,
) -> Floats:
    """Out-of-part teacher scores t of training patients: genes (N, G) unscaled, targets (N, 2), part (N,) → (N, O).

    ``choose``: which genes a teacher looks at, where labels decide it: of the patients outside its part (mask (N,)) →
    columns of ``values``. Chosen by all patients, the genes alone would tell a teacher the labels of its own part.

    Classes: logistic regression, its log-odds against the first class. Ordered classes, values: ridge regression on
    class number or value. Survival: ridge regression on the martingale residuals of the null model (event less the
    Nelson–Aalen hazard until the time), which is one step of Cox regression. Log-odds and risks are brought to the
    standard deviation ``settings.spread`` and the average of the labels, values to standard units of the targets, so
    that all cohorts teach on one scale.
    """
    n_scores = len(task.classes) - 1 if task.type == "classification" else 1
    raw = np.empty((len(values), n_scores))
    for number in np.unique(part):
        inside, outside = part == number, part != number
        seen = values if choose is None else values[:, choose(outside)]
        scaler = WinsorScaler().fit(seen[outside])
        # A ridge solution lies in the span of the patients: in their own axes it is the same and much smaller.
        known = scaler.transform(seen[outside])
        left, singular, axes = patient_axes(known)
        taught, asked = left * singular, scaler.transform(seen[inside]) @ axes.T
        raw[inside] = _teach(taught, targets[outside], asked, task, settings)
    if task.type == "continuous":
        return np.asarray((raw - targets[:, 0].mean()) / max(float(targets[:, 0].std()), 1e-12))
    spread = raw.std(axis=0)
    centred = settings.spread * (raw - raw.mean(axis=0)) / np.where(spread > 0, spread, np.inf)
    return np.asarray(centred + _average(targets, task), dtype=np.float64)


def _teach(taught: Floats, targets: Floats, asked: Floats, task: TaskSettings, settings: TeacherSettings) -> Floats:
    if task.type == "classification":
        labels = targets[:, 0].astype(np.int64)
        model = LogisticRegression(C=settings.c, max_iter=1000).fit(taught, labels)
        logits = np.asarray(model.decision_function(asked), dtype=np.float64)
        return logits[:, None] if logits.ndim == 1 else logits[:, 1:] - logits[:, :1]
    goal = martingale_residuals(targets[:, 0], targets[:, 1]) if task.type == "survival" else targets[:, 0]
    # The curvature of a logistic loss is at most ¼: α = 1 / 4C penalises as C does there.
    ridge = Ridge(alpha=0.25 / settings.c).fit(taught, goal)
    return np.asarray(ridge.predict(asked), dtype=np.float64)[:, None]


def joint_scores(scores: Floats, targets: Floats, task: TaskSettings, settings: TeacherSettings) -> Floats:
    """One teacher of several tables: ``soft_scores`` of T tables (T, N, O), NaN where a patient is not in a table, and
    targets (N, 2) → (N, O). Every patient is in one table or more.

    Each table has a teacher of its own, and their standardised scores z are averaged over the tables that a patient is
    in: no value has to be made up for a table that lacks a patient, and a table of many columns weighs no more than one
    of few. The average of k scores spreads less than one of them, so it is divided by the standard deviation that the
    correlations C of the tables' scores (among patients in both, at least 0) give it:

        z_i = Σ_t z_it / √(Σ_tu C_tu),  t and u over the tables of patient i

    which is Stouffer's combination of dependent scores (Strube 1985): patients of one table and of many are taught on
    one scale. Scores of values are in units of the target already, and their plain average is taken.
    """
    if task.type == "continuous":
        return np.asarray(np.nanmean(scores, axis=0))
    known = ~np.isnan(scores[:, :, 0])
    spread = np.nanstd(scores, axis=1, keepdims=True)
    z = (scores - np.nanmean(scores, axis=1, keepdims=True)) / np.where(spread > 0, spread, np.inf)
    z[~known] = 0.0
    joint = np.empty(scores.shape[1:])
    for output in range(scores.shape[2]):
        variance = np.einsum("ti,tu,ui->i", known, _correlations(z[:, :, output], known), known)
        joint[:, output] = z[:, :, output].sum(axis=0) / np.sqrt(variance)
    return np.asarray(settings.spread * joint + _average(targets, task))


def _correlations(z: Floats, known: NDArray[np.bool_]) -> Floats:
    """Correlations (T, T) of standardised scores (T, N) among the patients in both tables, those below 0 being 0."""
    result = np.eye(len(z))
    for t in range(len(z)):
        for u in range(t):
            a, b = z[t, known[t] & known[u]], z[u, known[t] & known[u]]
            if len(a) >= _FEWEST_IN_BOTH and a.std() > 0 and b.std() > 0:
                result[t, u] = result[u, t] = max(0.0, float(np.corrcoef(a, b)[0, 1]))
    return result


def _average(targets: Floats, task: TaskSettings) -> Floats | float:
    """The scores of an average patient, as ``Outcome.start`` has them."""
    if task.type != "classification":
        return 0.0
    counts = np.bincount(targets[:, 0].astype(np.int64), minlength=len(task.classes)).clip(min=0.5)
    return np.asarray(np.log(counts[1:] / counts[0]), dtype=np.float64)


def martingale_residuals(time: Floats, event: Floats) -> Floats:
    """event − Ĥ(time) of each patient, Ĥ the Nelson–Aalen cumulative hazard of all of them: (N,), (N,) → (N,)."""
    order = np.argsort(time, kind="stable")
    times, first = np.unique(time[order], return_index=True)
    events = np.add.reduceat(event[order], first)
    hazard = np.cumsum(events / (len(time) - first))
    return np.asarray(event - hazard[np.searchsorted(times, time)])


def unit_profiles(scaled: NDArray[np.floating], n: int) -> NDArray[np.float32]:
    """The profiles ρ of training patients: scaled genes (N, G) → (N, n) float32, unit rows.

    R − mean = U S Vᵀ; ρ_i = U_i[:n] / ‖U_i[:n]‖: the n leading principal components, whitened, on the sphere (fewer
    components than n: the others are 0). The sign of a component is arbitrary: its largest gene weight is positive.
    """
    centred = scaled.astype(np.float64) - scaled.mean(axis=0, dtype=np.float64)
    left, _, axes = patient_axes(centred)
    largest = np.abs(axes[:n]).argmax(axis=1)
    scores = np.zeros((len(scaled), n))
    kept = min(n, left.shape[1])
    scores[:, :kept] = left[:, :kept] * np.sign(axes[np.arange(kept), largest])
    length = np.linalg.norm(scores, axis=1, keepdims=True)
    return np.asarray(np.divide(scores, length, out=np.zeros_like(scores), where=length > 0), dtype=np.float32)
