"""Ridge on soft labels: against scikit-learn, its mixture, its penalty, every task."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from momkd.experiment import ModelSettings
from momkd.models.baselines.linear import best_penalty, label_scores
from momkd.models.baselines.soft_labels_linear import SoftLabelsLinear
from momkd.models.baselines.solvers import Axes, Map, ridge_path
from momkd.models.closed_form import Known
from momkd.models.graph import Graph
from momkd.models.outcome import Continuous, Nominal, Ordinal, Outcome, Survival
from momkd.models.packed import PackedBags
from momkd.models.registry import make_method

N, D = 40, 6
STREAM = torch.Generator().manual_seed(0)
FEATURES = torch.randn(N, D, generator=STREAM, dtype=torch.float64) * 3.0 + 1.0
PART = torch.arange(N) % 4
LABELS = (torch.arange(N) % 2).double()
TARGETS = torch.stack([LABELS, torch.zeros(N, dtype=torch.float64)], 1)
SOFT = FEATURES[:, :1] * 0.5 - FEATURES[:, 1:2] * 0.2


def ridge(features: torch.Tensor, goal: torch.Tensor, penalty: float) -> Map:
    return ridge_path(Axes(features), goal, (penalty,))[0]


def made(outcome: Outcome, weight: float = 0.0) -> SoftLabelsLinear:
    settings = ModelSettings.model_validate({"name": "soft-labels-linear", "teacher": {"weight": weight}})
    method = make_method(D, outcome, settings, {"rna": 3})
    assert isinstance(method, SoftLabelsLinear)
    return method


def scores(method: SoftLabelsLinear) -> torch.Tensor:
    graphs = [torch.empty(2, 0, dtype=torch.int64)] * N
    bags = PackedBags.pack(list(FEATURES.float().unsqueeze(1)), [Graph.from_edges(edges, 1) for edges in graphs])
    return method.student(bags).scores.detach().double()


def test_ridge_is_that_of_scikit_learn() -> None:
    one = ridge(FEATURES, SOFT, 0.7)
    standard = ((FEATURES - FEATURES.mean(0)) / FEATURES.std(0, unbiased=False)).numpy()
    alpha = 0.7 * (standard**2).sum() / N
    model = Ridge(alpha=alpha).fit(standard, SOFT.numpy()[:, 0])
    told = one(FEATURES)[:, 0].numpy()
    np.testing.assert_allclose(told, model.predict(standard), rtol=1e-8)


def test_soft_labels_alone_are_found() -> None:
    method = made(Nominal(2), 1.0)
    method.solve(Known(FEATURES, TARGETS, PART, soft=SOFT, has_soft=torch.ones(N, dtype=torch.bool)))
    torch.testing.assert_close(scores(method), SOFT, rtol=0.1, atol=0.1)


def test_half_by_default_and_labels_where_there_is_no_soft_label() -> None:
    has = torch.arange(N) < 30
    y = label_scores(Nominal(2), TARGETS, 1.5)
    goal = torch.where(has.unsqueeze(1), 0.5 * SOFT + 0.5 * y, y)
    one = ridge(FEATURES, goal, best_penalty(FEATURES, goal, PART))
    method = made(Nominal(2))
    method.solve(Known(FEATURES, TARGETS, PART, soft=SOFT, has_soft=has))
    torch.testing.assert_close(scores(method), one(FEATURES), rtol=1e-4, atol=1e-5)


def test_labels_alone_without_omics() -> None:
    method = made(Nominal(2))
    method.solve(Known(FEATURES, TARGETS, PART))
    assert scores(method).isfinite().all()


def test_noise_is_penalised_more_than_a_signal() -> None:
    noise = torch.randn(N, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert best_penalty(FEATURES, SOFT, PART) < best_penalty(FEATURES, noise, PART)


def test_a_column_that_does_not_vary_has_no_weight() -> None:
    features = torch.cat([FEATURES, torch.full((N, 1), 0.1, dtype=torch.float64)], 1)
    assert float(ridge(features, SOFT, 1.0).weight[0, -1]) == 0.0


@pytest.mark.parametrize(
    ("outcome", "targets"),
    [
        (Nominal(3), torch.stack([torch.arange(N) % 3, torch.zeros(N)], 1).double()),
        (Ordinal(3), torch.stack([torch.arange(N) % 3, torch.zeros(N)], 1).double()),
        (Continuous(4), torch.stack([FEATURES[:, 0] * 5.0 + 2.0, torch.zeros(N)], 1).double()),
        (Survival(3), torch.stack([torch.arange(N) + 1.0, (torch.arange(N) % 3 > 0).float()], 1).double()),
    ],
)
def test_labels_of_every_task_are_on_the_scale_of_the_scores(outcome: Outcome, targets: torch.Tensor) -> None:
    y = label_scores(outcome, targets, 1.5)
    assert y.shape == (N, outcome.n_scores)
    spread = 1.0 if isinstance(outcome, Continuous) else 1.5
    torch.testing.assert_close(y.std(0, unbiased=False), torch.full((outcome.n_scores,), spread, dtype=y.dtype))
    torch.testing.assert_close(y.mean(0), outcome.start(targets.float()).to(y.dtype), rtol=1e-5, atol=1e-6)
    if isinstance(outcome, Survival):
        died = targets[:, 1] > 0
        assert bool((y[died, 0].diff() < 0).all())  # an earlier event is a higher score
