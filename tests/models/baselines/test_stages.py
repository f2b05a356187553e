"""Who learns when: teachers first, then students; alignment first, then a probe. Feature regression by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from momkd.experiment import ModelSettings
from momkd.models.baselines.feature_regression import FeatureRegression
from momkd.models.baselines.tangle import TANGLE
from momkd.models.graph import Graph
from momkd.models.lesson import Lesson
from momkd.models.method import Method
from momkd.models.outcome import Nominal
from momkd.models.packed import PackedBags
from momkd.models.registry import make_method

LABELS = torch.tensor([0, 1, 0, 1, 1, 0])
STREAM = torch.Generator().manual_seed(0)
RNA, FEATURES = torch.randn(6, 4, generator=STREAM), torch.randn(6, 3, 5, generator=STREAM)
PAIRED = torch.tensor([True, True, True, True, False, True])


def bags() -> PackedBags:
    edges = torch.empty(2, 0, dtype=torch.int64)
    return PackedBags.pack(list(FEATURES), [Graph.from_edges(edges, 3) for _ in FEATURES])


def made(name: str, dropout: float = 0.5) -> Method:
    torch.manual_seed(0)
    settings = {"name": name, "baseline": {"dim": 8, "attention": 4, "dropout": dropout}}
    sizes = {"rna": {"hidden": 8, "dim": 6, "dropout": dropout}}
    return make_method(5, Nominal(2), ModelSettings.model_validate(settings | sizes), {"rna": 4})


def moved(method: Method, epoch: int, epochs: int = 10) -> set[str]:
    """The parameters that an optimiser step of an epoch moves, by their first two names."""
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    optimiser = torch.optim.AdamW(method.parameters(), lr=0.01, weight_decay=0.1)
    method.begin_epoch(epoch, epochs)
    method.train()
    lesson = Lesson.of_classes(LABELS, RNA, PAIRED)
    method(bags(), lesson).total.backward()
    optimiser.step()
    method.zero_grad()
    names = [name for name, p in method.named_parameters() if not torch.equal(p, before[name])]
    return {".".join(name.split(".")[:2]) for name in names}


@pytest.mark.parametrize("name", ["feature-regression", "sp", "rkd", "cc"])
def test_the_teacher_learns_in_the_first_fifth_and_then_stands_still(name: str) -> None:
    method = made(name)
    assert [method.preparation(n) for n in (1, 2, 10, 100)] == [0, 1, 2, 20]
    first, later = moved(method, 2), moved(method, 3)
    assert {"teacher.encoder", "teacher.head", "student.head", "student.embedding"} <= first
    assert not {place for place in later if place.startswith("teacher")}
    assert {"student.head", "student.embedding"} <= later


def test_a_teacher_that_teaches_has_no_dropout() -> None:
    method = made("feature-regression")
    method.begin_epoch(3, 10)
    method.train()
    assert method.student.training
    assert not [module for name, module in method.named_modules() if name.startswith("teacher") and module.training]
    method.begin_epoch(1, 10)
    method.train()
    assert [module for name, module in method.named_modules() if name.startswith("teacher") and module.training]


def test_feature_regression_by_hand() -> None:
    method = made("feature-regression", dropout=0.0)
    assert isinstance(method, FeatureRegression)
    assert method.teacher is not None
    method.begin_epoch(5, 10)
    method.train()
    found = method(bags(), Lesson.of_classes(LABELS, RNA, PAIRED)).parts["distillation"]
    embedding = method.student(bags()).embedding
    assert isinstance(embedding, Tensor)
    features = method.teacher(bags(), RNA, PAIRED)[0]
    errors = (method.map(embedding[PAIRED]) - features).square().mean(1)
    assert found.item() == pytest.approx(errors.sum().item() / 6, rel=1e-5)


def test_tangle_aligns_without_labels_and_probes_without_moving_the_encoder() -> None:
    method = made("tangle")
    assert isinstance(method, TANGLE)
    assert [method.preparation(n) for n in (1, 2, 9)] == [0, 1, 4]
    aligned, probed = moved(method, 5), moved(method, 6)
    assert {"student.embedding", "alignment.encoder", "alignment.from_slide"} <= aligned
    assert "student.head" not in aligned
    assert probed == {"student.head"}


def test_tangles_alignment_does_not_look_at_labels() -> None:
    method = made("tangle", dropout=0.0)
    method.begin_epoch(1, 10)
    method.train()
    losses = [method(bags(), Lesson.of_classes(y, RNA, PAIRED)).total.item() for y in (LABELS, 1 - LABELS)]
    assert losses[0] == losses[1] > 0.0


def test_tangles_probe_reads_the_student_as_it_will_be_used() -> None:
    method = made("tangle")
    method.begin_epoch(10, 10)
    method.train()
    lesson = Lesson.of_classes(LABELS, RNA, PAIRED)
    loss = method(bags(), lesson).total.item()
    method.eval()
    used = method.student(bags()).scores
    assert loss == pytest.approx(Nominal(2).loss(used, lesson.targets).mean().item(), rel=1e-6)
