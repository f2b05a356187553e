"""What omics alone teaches before the first step: soft labels and profiles, from the training patients of a fit.

Soft labels (Lopez-Paz et al. 2015, "Unifying distillation and privileged information"): the score of each training
patient comes from a linear teacher that saw neither that patient nor anybody of its part (its sites), because a teacher
that knew the answer would only repeat the label.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge

from momkd.experiment import TaskSettings, TeacherSettings
from momkd.omics.axes import patient_axes
from momkd.omics.scale import WinsorScaler

Floats = NDArray[np.float64]


def soft_scores(
    values: NDArray[np.floating],
    targets: Floats,
    part: NDArray[np.int64],
    task: TaskSettings,
    settings: TeacherSettings,
) -> Floats:
    """Out-of-part teacher scores t of training patients: genes (N, G) unscaled, targets (N, 2), part (N,) → (N, O).

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
        scaler = WinsorScaler().fit(values[outside])
        # A ridge solution lies in the span of the patients: in their own axes it is the same and much smaller.
        known = scaler.transform(values[outside])
        left, singular, axes = patient_axes(known)
        taught, asked = left * singular, scaler.transform(values[inside]) @ axes.T
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
