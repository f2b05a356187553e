"""What every method promises, whatever its mathematics: tiny bags, packing, permutation, students without omics."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from momkd.experiment import ModelSettings, TaskSettings
from momkd.models.closed_form import ClosedForm, Known
from momkd.models.graph import Graph
from momkd.models.lesson import Counts, Lesson, Privileged
from momkd.models.method import Method, PairedModel, PatientRows, TrainingSet
from momkd.models.outcome import make_outcome
from momkd.models.packed import PackedBags
from momkd.models.registry import METHODS, make_method, make_student

D, G = 5, 29
SETTINGS = {
    "baseline": {"dim": 16, "attention": 8, "dropout": 0.25},
    "rna": {"hidden": 8, "dim": 6},
    "encoder": {"dim": 8},
    "memory": {"codes": 2, "dim": 4},
    "classifier": {"hidden": 6},
}
TASKS = {
    "binary": TaskSettings(label="y", classes=("a", "b")),
    "classes": TaskSettings(label="y", classes=("a", "b", "c")),
    "ordinal": TaskSettings(type="ordinal", label="y", classes=("a", "b", "c")),
    "continuous": TaskSettings(type="continuous", label="y"),
    "survival": TaskSettings(type="survival", label="t", event="e"),
}
# The order of patches is part of these: a square filled in order; pseudo-bags dealt in order.
ORDERED = ("transmil", "dtfd")
EVERY = sorted(METHODS)


def settings_of(name: str) -> ModelSettings:
    return ModelSettings.model_validate({"name": name, **SETTINGS})


def ring(n: int) -> Graph:
    nodes = torch.arange(n)
    return Graph.from_edges(torch.stack([nodes, (nodes + 1) % n]), n)


def two_neighbours(n: int) -> Graph:
    """A softmax over one neighbour teaches no temperature."""
    nodes = torch.arange(n)
    return Graph.from_edges(torch.cat([torch.stack([nodes, (nodes + step) % n]) for step in (1, 2)], dim=1), n)


def bags_of(sizes: list[int], seed: int = 0) -> list[tuple[Tensor, Graph]]:
    stream = torch.Generator().manual_seed(seed)
    return [(torch.randn(n, D, generator=stream), ring(n)) for n in sizes]


def pack(bags: list[tuple[Tensor, Graph]]) -> PackedBags:
    return PackedBags.pack([x for x, _ in bags], [graph for _, graph in bags])


def method_of(name: str, task: str = "binary") -> Method:
    torch.manual_seed(0)
    settings = settings_of(name)
    genes = {"rna": G} if METHODS[name].omics != "none" else {}
    method = make_method(D, make_outcome(TASKS[task]), settings, genes)
    targets = targets_of(12, task)
    method.student.outcome.start(targets)
    memory_class = method.student.outcome.memory_class(targets)
    rows = PatientRows(torch.randn(12, G), None, memory_class)
    tables = {"rna": rows} if genes else {}
    method.start(TrainingSet(targets, memory_class, tables, lambda *names: torch.Generator().manual_seed(len(names))))
    if isinstance(method, ClosedForm):
        x = torch.randn(12, D, dtype=torch.float64)
        omics = torch.randn(12, G, dtype=torch.float64) if genes else None
        soft = torch.randn(12, method.student.outcome.n_scores, dtype=torch.float64)
        part = torch.arange(12) % 2 if task != "survival" else torch.arange(12) // 6
        method.solve(Known(x, targets.double(), part, omics, soft, torch.ones(12, dtype=torch.bool)))
    return method


def targets_of(n: int, task: str) -> Tensor:
    numbers = torch.arange(n)
    if task == "continuous":
        return torch.stack([numbers.float(), torch.zeros(n)], 1)
    if task == "survival":
        return torch.stack([1.0 + numbers, (numbers % 3 > 0).float()], 1)
    return torch.stack([(numbers // 2 % len(TASKS[task].classes)).float(), torch.zeros(n)], 1)


def lesson_of(method: Method, n: int, task: str = "binary", paired: list[bool] | None = None) -> Lesson:
    targets = targets_of(12, task)[:n]
    has = torch.tensor(paired if paired is not None else [True] * n)
    stream = torch.Generator().manual_seed(3)
    tables = {"rna": Privileged(has, torch.randn(n, G, generator=stream) * has.unsqueeze(1))}
    outcome = method.student.outcome
    soft = torch.randn(n, outcome.n_scores, generator=stream)
    index = torch.arange(n)
    memory_class = outcome.memory_class(targets)
    return Lesson(targets, memory_class, tables, soft, has, index=index)


def scores_of(method: Method, bags: PackedBags) -> Tensor:
    student = method.student.eval()
    with torch.no_grad():
        if isinstance(student, PairedModel):
            return student(bags, torch.ones(bags.n_bags, G, device=bags.features.device)).scores
        return student(bags).scores


@pytest.mark.parametrize("name", EVERY)
def test_bags_of_any_size_packed_or_alone(name: str) -> None:
    method = method_of(name)
    bags = bags_of([1, 3, 20, 1, 2, 3])
    together = scores_of(method, pack(bags))
    alone = torch.cat([scores_of(method, pack([bag])) for bag in bags])
    assert together.shape == (6, 1)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in EVERY if name not in ORDERED])
def test_the_order_of_patches_does_not_matter(name: str) -> None:
    method = method_of(name)
    x, _ = bags_of([9])[0]
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    nodes = torch.arange(9)
    edges = torch.stack([nodes, (nodes + 1) % 9])
    back = torch.empty(9, dtype=torch.int64)
    back[order] = nodes
    straight = scores_of(method, pack([(x, Graph.from_edges(edges, 9))]))
    permuted = scores_of(method, pack([(x[order], Graph.from_edges(back[edges], 9))]))
    torch.testing.assert_close(straight, permuted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("task", sorted(TASKS))
@pytest.mark.parametrize("name", EVERY)
def test_every_task_can_be_taught(name: str, task: str) -> None:
    method = method_of(name, task)
    bags, lesson = pack(bags_of([1, 4, 2, 1, 3, 12])), lesson_of(method, 6, task)
    method.train()
    method.begin_epoch(max(1, method.preparation(10) + 1), 10)
    losses = method(bags, lesson)
    assert losses.total.isfinite()
    assert list(losses.named())[-1] == "total"
    assert scores_of(method, bags).shape == (6, method.student.outcome.n_scores)
    if not isinstance(method, ClosedForm):
        losses.total.backward()
        moved = [p for p in method.student.parameters() if p.grad is not None and p.grad.abs().sum() > 0]
        assert moved


@pytest.mark.parametrize("name", [name for name in EVERY if METHODS[name].omics == "train"])
@pytest.mark.parametrize("paired", [[False] * 4, [True, False, False, False], [False, True, True, False]])
def test_few_or_no_paired_slides_in_a_step(name: str, paired: list[bool]) -> None:
    method = method_of(name)
    method.train()
    for epoch in (1, 10):
        method.begin_epoch(epoch, 10)
        assert method(pack(bags_of([1, 2, 3, 4])), lesson_of(method, 4, paired=paired)).total.isfinite()


@pytest.mark.parametrize("name", [name for name in EVERY if METHODS[name].omics != "test"])
def test_a_student_is_made_again_from_its_weights_alone(name: str) -> None:
    method = method_of(name)
    programmes = tuple(getattr(method.student, "programmes", ()))
    again = make_student(D, make_outcome(TASKS["binary"]), settings_of(name), programmes)
    again.load_state_dict(method.student.state_dict())
    bags = pack(bags_of([1, 5]))
    assert torch.equal(again.eval()(bags).scores, scores_of(method, bags))
    assert all(G not in value.shape for value in method.student.state_dict().values())


@pytest.mark.parametrize("name", EVERY)
def test_half_precision_features_are_read(name: str) -> None:
    method = method_of(name)
    bags = [(x.half(), graph) for x, graph in bags_of([3, 1])]
    wide = [(x.float(), graph) for x, graph in bags]
    torch.testing.assert_close(scores_of(method, pack(bags)), scores_of(method, pack(wide)))


@pytest.mark.parametrize("name", EVERY)
def test_attention_sums_to_one_in_each_bag(name: str) -> None:
    method = method_of(name)
    bags = pack(bags_of([1, 3, 8]))
    student = method.student.eval()
    out = student(bags, torch.ones(3, G)) if isinstance(student, PairedModel) else student(bags)
    if out.attention is not None:
        sums = [float(part.sum()) for part in torch.split(out.attention.detach(), [1, 3, 8])]
        assert sums == pytest.approx([1.0, 1.0, 1.0], rel=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_under_bf16_only_products_of_patches_are_rounded(name: str) -> None:
    method = method_of(name)
    bags = pack(bags_of([2500, 3]))
    student = method.student.eval()
    given = (bags, torch.ones(2, G)) if isinstance(student, PairedModel) else (bags,)
    with torch.no_grad():
        exact = student(*given)
        with torch.autocast("cpu", torch.bfloat16):
            out = student(*given)
    assert out.scores.dtype == torch.float32
    torch.testing.assert_close(out.scores, exact.scores, rtol=0.02, atol=0.02)
    if out.attention is not None:
        sums = [float(part.sum()) for part in torch.split(out.attention, [2500, 3])]
        assert sums == pytest.approx([1.0, 1.0], rel=1e-4)


@pytest.mark.parametrize("name", [name for name in EVERY if METHODS[name].omics != "train"])
def test_losses_of_the_parts_of_a_step_add_up(name: str) -> None:
    method = method_of(name).eval()  # no dropout, no random division
    bags, lesson = bags_of([1, 5, 2, 18]), lesson_of(method, 4, paired=[True, False, False, True])
    whole = method(pack(bags), lesson).named()
    parts = [method(pack(bags[rows]), part_of(lesson, rows)).named() for rows in (slice(0, 1), slice(1, 4))]
    for key, value in whole.items():
        torch.testing.assert_close(parts[0][key] + parts[1][key], value, rtol=1e-5, atol=1e-6)


def part_of(lesson: Lesson, rows: slice) -> Lesson:
    tables = {name: Privileged(table.paired[rows], table.values[rows]) for name, table in lesson.tables.items()}
    counts = Counts.of([lesson])
    return Lesson(lesson.targets[rows], lesson.memory_class[rows], tables, index=lesson.index[rows], counts=counts)


@pytest.mark.parametrize("name", [n for n in EVERY if METHODS[n].omics != "train" and not METHODS[n].solved])
def test_gradients_reach_every_weight(name: str) -> None:
    method = method_of(name)
    torch.manual_seed(1)
    bags = [(x, two_neighbours(len(x))) for x, _ in bags_of([4, 5, 9, 18])]
    method(pack(bags), lesson_of(method, 4)).total.backward()
    still = [key for key, p in method.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []
