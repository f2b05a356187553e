"""On an accelerator everything is what it is on a CPU, within the rounding of other orders of summation."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tests.models.baselines.test_all import EVERY, bags_of, lesson_of, method_of, pack, scores_of

from momkd.experiment import load_experiment
from momkd.models.closed_form import ClosedForm
from momkd.models.lesson import Lesson
from momkd.models.method import Method
from momkd.models.packed import PackedBags
from momkd.study.crossval import crossval
from momkd.study.predict import predict

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.filterwarnings("ignore:.*deterministic"),
]
CohortMaker = Callable[..., Path]
GPU = torch.device("cuda")
NO_DROPOUT = [
    "model.encoder.dropout=0",
    "model.encoder.attention_dropout=0",
    "model.classifier.dropout=0",
    "model.rna.dropout=0",
]


def both(name: str) -> tuple[Method, Method, PackedBags, Lesson]:
    """A method on each device; in eval mode the losses have no dropout."""
    method = method_of(name).eval()
    there = copy.deepcopy(method).to(GPU)
    return method, there, pack(bags_of([1, 3, 20, 4])), lesson_of(method, 4)


@pytest.mark.parametrize("name", EVERY)
def test_scores_are_those_of_a_cpu(name: str) -> None:
    here, there, bags, _ = both(name)
    found = scores_of(there, bags.to(GPU)).cpu()
    torch.testing.assert_close(found, scores_of(here, bags), rtol=1e-4, atol=1e-5)


# The pseudo-bags of DTFD-MIL are dealt by chance, from the random state of the device.
@pytest.mark.parametrize("name", [name for name in EVERY if name != "dtfd"])
def test_losses_and_gradients_are_those_of_a_cpu(name: str) -> None:
    here, there, bags, lesson = both(name)
    expected, found = here(bags, lesson), there(bags.to(GPU), lesson.to(GPU))
    for key, value in expected.named().items():
        torch.testing.assert_close(found.named()[key].cpu(), value, rtol=1e-3, atol=1e-5)
    if isinstance(here, ClosedForm):
        return
    expected.total.backward()
    found.total.backward()
    for (key, mine), theirs in zip(here.named_parameters(), there.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None), key
        if mine.grad is not None and theirs.grad is not None:
            np.testing.assert_allclose(theirs.grad.cpu().numpy(), mine.grad.numpy(), 1e-2, 1e-4, err_msg=key)


@pytest.mark.parametrize("rule", ["gradient", "ema", "queue"])
def test_a_run_is_that_of_a_cpu(make_cohort: CohortMaker, tmp_path: Path, rule: str) -> None:
    file = make_cohort(tmp_path / "cohort", patients=30)
    tables = []
    for accelerator in ("cpu", "gpu"):
        overrides = [f"train.accelerator={accelerator}", f"model.memory.update={rule}", *NO_DROPOUT, "cv.folds=2"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch names every operation whose order of summation may vary
            crossval(load_experiment(file, overrides), tmp_path / accelerator, workers=1)
        tables.append(pd.read_csv(tmp_path / accelerator / "predictions.csv"))
    scores = [table.select_dtypes("number").to_numpy() for table in tables]
    np.testing.assert_allclose(scores[1], scores[0], atol=5e-3)


def test_predictions_are_those_of_a_cpu(make_cohort: CohortMaker, tmp_path: Path) -> None:
    file = make_cohort(tmp_path / "cohort", patients=24)
    crossval(load_experiment(file, ["cv.folds=2"]), tmp_path / "run", workers=1)
    here, there = (predict(tmp_path / "run", [tmp_path / "cohort" / "features"], device=d)[0] for d in ("cpu", "cuda"))
    np.testing.assert_allclose(
        there.select_dtypes("number").to_numpy(), here.select_dtypes("number").to_numpy(), atol=1e-4
    )
