"""What every method with omics in training has to do, whatever it adds to the task loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from momkd.experiment import ModelSettings, TaskSettings, TrainSettings
from momkd.models.graph import Graph
from momkd.models.lesson import Counts, Lesson, Privileged
from momkd.models.method import Method, PatientRows, SlideModel, TrainingSet
from momkd.models.outcome import Continuous, Nominal, Ordinal, Outcome, Survival
from momkd.models.packed import PackedBags
from momkd.models.registry import METHODS, make_method, make_student
from momkd.training.fit import FitResult, fit, score
from momkd.training.samples import BagCache, FitData, OmicsRows, PreparedBag, Rows, Sample
from momkd.training.seeds import derive_seed, generator

TRAINED = sorted(n for n, e in METHODS.items() if e.omics == "train" and not e.solved and n != "momkd")
ALL = [*TRAINED, "soft-labels-linear"]
TASK = TaskSettings(label="status", classes=("negative", "positive"))
TRAIN = TrainSettings(epochs=6, patience=6, lr=5e-3, batch_size=4, seed=3, threads=1, accelerator="cpu")
GENES = {"rna": 6}
OUTCOMES: list[Callable[[], Outcome]] = [
    lambda: Nominal(2),
    lambda: Nominal(3),
    lambda: Ordinal(3),
    lambda: Continuous(3),
    lambda: Survival(3),
]


def settings_of(name: str, **changed: Any) -> ModelSettings:
    return ModelSettings.model_validate(
        {"name": name, "baseline": {"dim": 16, "attention": 8}, "rna": {"hidden": 8, "dim": 6}, **changed}
    )


def packed(n_bags: int, patches: int, seed: int = 0) -> PackedBags:
    stream = torch.Generator().manual_seed(seed)
    edges = torch.empty(2, 0, dtype=torch.int64)
    bags = [torch.randn(patches, 5, generator=stream) for _ in range(n_bags)]
    return PackedBags.pack(bags, [Graph.from_edges(edges, patches) for _ in bags])


def lesson_of(outcome: Outcome, n: int, paired: list[bool], seed: int = 1) -> Lesson:
    stream = torch.Generator().manual_seed(seed)
    targets = torch.stack([torch.arange(n) % 2 + 0.0, torch.ones(n)], 1)
    rows, has = torch.randn(n, 6, generator=stream), torch.tensor(paired)
    # What stands in the rows of those who have no omics must not matter.
    rows[~has] = torch.nan
    soft = torch.randn(n, outcome.n_scores, generator=stream)
    classes = outcome.memory_class(targets)
    return Lesson(targets, classes, {"rna": Privileged(has, rows)}, soft, has, torch.arange(n))


def started(name: str, outcome: Outcome, n: int = 6, genes: dict[str, int] | None = None) -> Method:
    torch.manual_seed(0)
    method = make_method(5, outcome, settings_of(name), GENES if genes is None else genes)
    targets = torch.stack([torch.arange(n) % 2 + 0.0, torch.ones(n)], 1)
    outcome.start(targets)
    classes = outcome.memory_class(targets)
    values = torch.randn(n, 6, generator=torch.Generator().manual_seed(5))
    rows = {name: PatientRows(values, None, classes) for name in (GENES if genes is None else genes)}
    method.start(TrainingSet(targets, classes, rows, lambda *words: generator(0, *words)))
    return method.train()


def step(method: Method, bags: PackedBags, lesson: Lesson) -> dict[str, float]:
    method.zero_grad()
    losses = method(bags, lesson)
    losses.total.backward()
    method.after_step()
    return {key: float(value.detach()) for key, value in losses.named().items()}


def student_gradient(method: Method) -> float:
    return sum(float(p.grad.abs().sum()) for p in method.student.parameters() if p.grad is not None)


@pytest.mark.parametrize("make", OUTCOMES)
@pytest.mark.parametrize("name", TRAINED)
def test_any_step_of_any_task_works_in_both_stages(name: str, make: Callable[[], Outcome]) -> None:
    """All paired, one, none, a single bag; one and three patches: finite, the same names, a gradient."""
    method = started(name, make())
    names: set[tuple[str, ...]] = set()
    for epoch in (1, 10):
        method.begin_epoch(epoch, 10)
        method.train()
        for n, paired in ((6, [True] * 6), (6, [False, True] + [False] * 4), (6, [False] * 6), (1, [True])):
            for patches in (1, 3):
                # Twice: a memory of instances compares from the second draw on.
                for _ in range(2):
                    values = step(method, packed(n, patches), lesson_of(method.student.outcome, n, paired))
                    assert np.isfinite(list(values.values())).all(), (epoch, n, paired, values)
                    names.add(tuple(values))
                assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())
    assert len(names) == 1


# The stages of TANGLE do not add up, so it has no factor.
@pytest.mark.parametrize("name", [n for n in TRAINED if n != "tangle"])
def test_what_is_distilled_is_scaled_by_the_weight(name: str) -> None:
    bags, totals = packed(6, 3), []
    for weight in (0.0, 1.0, 2.0):
        torch.manual_seed(0)
        method = started(name, Nominal(2))
        other = make_method(
            5, Nominal(2), settings_of(name, baseline={"dim": 16, "attention": 8, "weight": weight}), GENES
        )
        other.start(TrainingSet(*_training(), lambda *words: generator(0, *words)))
        other.load_state_dict(method.state_dict())
        other.begin_epoch(10, 10)
        other.train()
        lesson = lesson_of(other.student.outcome, 6, [True] * 6)
        for _ in range(2):
            torch.manual_seed(1)
            values = step(other, bags, lesson)
        totals.append((values["total"], values["task"]))
    assert totals[0][0] == pytest.approx(totals[0][1], rel=1e-6)
    added = totals[1][0] - totals[1][1]
    assert totals[2][0] - totals[2][1] == pytest.approx(2.0 * added, rel=1e-4, abs=1e-6)
    if name != "tdc":  # whose gate may be shut
        assert added > 1e-6


def _training() -> tuple[torch.Tensor, torch.Tensor, dict[str, PatientRows]]:
    targets = torch.stack([torch.arange(6) % 2 + 0.0, torch.ones(6)], 1)
    values = torch.randn(6, 6, generator=torch.Generator().manual_seed(5))
    return targets, targets[:, 0].long(), {"rna": PatientRows(values, None, targets[:, 0].long())}


@pytest.mark.parametrize(
    "name", [n for n in TRAINED if n not in ("sp", "rkd", "cc", "infonce", "mkd", "tangle", "tdc")]
)
def test_parts_of_a_step_add_up_to_it(name: str) -> None:
    """Losses that are no property of a group: the same whether packed at once or in two parts."""
    method = started(name, Nominal(2)).eval()
    method.begin_epoch(10, 10)
    outcome, paired = method.student.outcome, [True, True, False, True, False, True]
    whole, bags = lesson_of(outcome, 6, paired), packed(6, 2)

    def part(rows: slice) -> tuple[PackedBags, Lesson]:
        table = whole.tables["rna"]
        edges = torch.empty(2, 0, dtype=torch.int64)
        own = list(torch.split(bags.features, 2))[rows]
        assert whole.soft is not None
        assert whole.has_soft is not None
        assert whole.index is not None
        lesson = Lesson(
            whole.targets[rows],
            whole.memory_class[rows],
            {"rna": Privileged(table.paired[rows], table.values[rows])},
            whole.soft[rows],
            whole.has_soft[rows],
            whole.index[rows],
            Counts.of([whole]),
        )
        return PackedBags.pack(own, [Graph.from_edges(edges, 2) for _ in own]), lesson

    if name == "crd":
        method.train()
        step(method, bags, whole)
        method.eval()
        method(bags, whole)  # estimates the normaliser
    expected = method(bags, whole).total
    found = sum(method(*part(rows)).total for rows in (slice(0, 2), slice(2, 6)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_without_omics_labels_alone_teach(name: str) -> None:
    method = started(name, Nominal(2), genes={})
    assert method.preparation(10) == 0
    method.begin_epoch(1, 10)
    lesson = replace(lesson_of(method.student.outcome, 6, [False] * 6), tables={}, soft=None, has_soft=None)
    values = step(method, packed(6, 3), lesson)
    assert values["total"] == pytest.approx(values["task"])
    assert student_gradient(method) > 0


@pytest.mark.parametrize("name", ALL)
def test_the_student_is_what_a_student_folder_makes_and_holds_no_omics_weight(name: str) -> None:
    method = started(name, Nominal(2))
    student = make_student(5, Nominal(2), settings_of(name), ())
    assert student.state_dict().keys() == method.student.state_dict().keys()
    sizes = {tuple(value.shape) for value in method.student.state_dict().values()}
    assert isinstance(method.student, SlideModel)
    with_more_genes = make_method(5, Nominal(2), settings_of(name), {"rna": 60})
    assert {tuple(value.shape) for value in with_more_genes.student.state_dict().values()} == sizes


def bag_of(slide_id: str, label: int) -> PreparedBag:
    rng = np.random.default_rng(derive_seed(0, slide_id) % 2**32)
    features = rng.normal(size=(3, 5)).astype(np.float32)
    features[1, 0] += 4.0 * label
    return PreparedBag(torch.from_numpy(features), Graph.from_edges(torch.tensor([[0, 1, 2], [1, 2, 0]]), 3))


@pytest.fixture
def data() -> FitData:
    """24 training patients, three of them without omics; some have two slides."""

    def cohort(prefix: str, n: int) -> list[Sample]:
        return [
            Sample(f"{prefix}{i:02d}", f"{prefix}{i:02d}-{s}", i % 2) for i in range(n) for s in range(1 + i % 3 // 2)
        ]

    train, val = cohort("t", 24), cohort("v", 12)
    label = {sample.slide_id: sample.label for sample in train + val}
    rng = np.random.default_rng(0)
    rna = {s.patient_id: (rng.normal(size=6) + 2.0 * s.label).astype(np.float32) for s in train[3:]}
    soft = {patient: values[:1].astype(np.float64) for patient, values in rna.items()}
    cache = BagCache(lambda slide_id: bag_of(slide_id, label[slide_id]))
    parts = {sample.patient_id: int(sample.patient_id[1:]) // 2 % 3 for sample in train}
    tables = {"rna": OmicsRows(tuple("abcdef"), Rows.of(rna))}
    return FitData(train, val, cache, TASK, 5, tables, Rows.of(soft), parts)


def same(a: FitResult, b: FitResult) -> bool:
    left, right = a.model.state_dict(), b.model.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


class _Killed(Exception):
    pass


@pytest.mark.parametrize("name", ALL)
def test_learns(name: str, data: FitData) -> None:
    result = fit(data, settings_of(name), TRAIN.model_copy(update={"epochs": 15, "patience": 15}))
    assert result.history[-1].get("val_auc", 0.0) > 0.8
    assert score(result.model, data.val, data, torch.device("cpu")).shape == (len(data.val), 1)


@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
@pytest.mark.parametrize("name", TRAINED)
def test_resumed_equals_uninterrupted(name: str, schedule: str, data: FitData, tmp_path: Path) -> None:
    """Memories, constants and stages too: everything in the state dict."""
    settings = TrainSettings.model_validate(TRAIN.model_dump() | {"schedule": schedule, "epochs": 5, "least_steps": 1})

    def killer(row: dict[str, float]) -> None:
        if row["epoch"] == 4:
            raise _Killed

    point = tmp_path / "state.safetensors"
    with pytest.raises(_Killed):
        fit(data, settings_of(name), settings, resume_file=point, save_every_seconds=0.0, on_epoch=killer)
    resumed, whole = fit(data, settings_of(name), settings, resume_file=point), fit(data, settings_of(name), settings)
    assert same(resumed, whole)
    assert resumed.history == whole.history


@pytest.mark.parametrize("name", TRAINED)
def test_the_omics_rows_of_training_matter(name: str, data: FitData) -> None:
    """Or the method would be a slide-only baseline under another name."""
    rng = np.random.default_rng(9)
    other = {p: rng.normal(size=6).astype(np.float32) for p in data.tables["rna"].rows.row}
    soft = {p: rng.normal(size=1) for p in other}
    changed = replace(data, tables={"rna": OmicsRows(tuple("abcdef"), Rows.of(other))}, soft=Rows.of(soft))
    own = fit(data, settings_of(name), TRAIN).model.student.state_dict()
    theirs = fit(changed, settings_of(name), TRAIN).model.student.state_dict()
    assert any(not torch.equal(own[key], theirs[key]) for key in own)
