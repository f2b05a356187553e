"""Influence against finite differences of patch weights; prototypes by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from momkd.experiment import ModelSettings, TaskSettings
from momkd.models.influence import MEMORY, reasons, report
from momkd.models.outcome import make_outcome
from momkd.models.packed import PackedBags
from momkd.models.student import Student

D = 5
TASKS = {
    "two": TaskSettings(label="x", classes=("a", "b")),
    "three": TaskSettings(label="x", classes=("a", "b", "c")),
    "ordinal": TaskSettings(type="ordinal", label="x", classes=("a", "b", "c")),
    "continuous": TaskSettings(type="continuous", label="x"),
    "survival": TaskSettings(type="survival", label="t", event="e"),
}


def settings(*, rich: bool) -> ModelSettings:
    programmes = {"dim": 4, "codes": 3} if rich else {"dim": 0}
    return ModelSettings.model_validate(
        {
            "encoder": {"dim": 8},
            "memory": {"codes": 3, "dim": 4},
            "classifier": {"hidden": 6},
            "wide": {"enabled": rich},
            "programmes": programmes,
        }
    )


def student_of(task: TaskSettings, *, rich: bool) -> Student:
    torch.manual_seed(3)
    student = Student(D, make_outcome(task), settings(rich=rich), ("rna",) if rich else ()).double().eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return student


def bags_of(*sizes: int, edges: bool = True) -> PackedBags:
    torch.manual_seed(7)
    features = [torch.randn(size, D, dtype=torch.float64) for size in sizes]
    graphs = [
        torch.tensor([[i, (i + 1) % size] for i in range(size)]).T if edges and size > 1 else torch.empty(2, 0).long()
        for size in sizes
    ]
    return PackedBags.pack(features, graphs)


def weighed(student: Student, features: Tensor, encoded: Tensor, attention: Tensor, weight: Tensor) -> Tensor:
    """The report of one bag whose patches have weights, in the attention and in the mean."""
    share = attention * weight
    pooled = ((share / share.sum()) @ encoded)[None]
    mean = ((weight / weight.sum()) @ features)[None] if student.reads_means else None
    return report(student, student.score(mean, pooled).scores)[0]


@pytest.mark.parametrize("rich", [True, False])
@pytest.mark.parametrize("task", TASKS)
def test_influence_is_the_slope_of_the_report_in_a_patchs_weight(task: str, rich: bool) -> None:
    student, bags = student_of(TASKS[task], rich=rich), bags_of(6, 1, 4)
    found = reasons(student, bags)
    encoded = student.encoder(bags).detach()
    for start, end in zip(bags.ptr[:-1].tolist(), bags.ptr[1:].tolist(), strict=True):
        own = (bags.features[start:end], encoded[start:end], found.output.attention[start:end].detach())
        for patch in range(end - start):
            step = torch.zeros(end - start, dtype=torch.float64)
            step[patch] = 1e-6
            with torch.no_grad():
                slope = (weighed(student, *own, 1 + step) - weighed(student, *own, 1 - step)) / 2e-6
            torch.testing.assert_close(found.influence[start + patch], slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_influences_of_a_bag_sum_to_zero(task: str) -> None:
    bags = bags_of(6, 1, 4)
    found = reasons(student_of(TASKS[task], rich=True), bags).influence
    for part in torch.split(found, bags.ptr.diff().tolist()):
        torch.testing.assert_close(part.sum(0), torch.zeros_like(part[0]), rtol=0, atol=1e-9)


def test_explaining_does_not_change_what_is_said() -> None:
    student, bags = student_of(TASKS["two"], rich=True), bags_of(6, 3)
    with torch.no_grad():
        torch.testing.assert_close(reasons(student, bags).output.scores, student(bags).scores, rtol=0, atol=0)


def test_half_precision_features_give_the_influences_of_widened_ones() -> None:
    student, bags = student_of(TASKS["two"], rich=True).float(), bags_of(9)
    half = PackedBags(bags.features.half(), bags.ptr, bags.graphs)
    wide = PackedBags(bags.features.half().float(), bags.ptr, bags.graphs)
    torch.testing.assert_close(reasons(student, half).influence, reasons(student, wide).influence)


def test_prototypes_are_cosines_with_the_codes() -> None:
    student, bags = student_of(TASKS["two"], rich=True), bags_of(4, 2)
    found = reasons(student, bags)
    memory = functional.normalize(student.memory.codes, dim=-1)
    torch.testing.assert_close(found.prototypes[MEMORY], torch.einsum("ns,cks->nck", found.output.patches, memory))
    programmes = student.programme_memories()["rna"]
    encoded = student.encoder(bags)
    z = functional.normalize(programmes.from_mean(bags.features) + programmes.from_pooled(encoded), dim=1)
    torch.testing.assert_close(found.prototypes["rna"], torch.einsum("nd,ckd->nck", z, programmes.codes))
    assert student_of(TASKS["two"], rich=False).programme_memories() == {}
