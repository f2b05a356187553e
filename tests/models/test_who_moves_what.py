"""The map of the paper's decoupling: which loss may move which part of the network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from momkd.experiment import ModelSettings
from momkd.models.momkd import Lesson, MoMKD
from momkd.models.outcome import Nominal
from momkd.models.packed import PackedBags, segment_mean

LABEL = 1


@pytest.fixture
def model() -> MoMKD:
    torch.manual_seed(0)
    settings = ModelSettings.model_validate(
        {
            "encoder": {"dim": 16, "dropout": 0.0, "attention_dropout": 0.0},
            "rna": {"hidden": 12, "dim": 8, "dropout": 0.0},
            "memory": {"codes": 3, "dim": 6},
            "classifier": {"hidden": 8, "dropout": 0.0},
        }
    )
    return MoMKD(5, Nominal(2), settings, {"rna": 7})


def _moved(model: MoMKD, loss: Tensor) -> dict[str, bool]:
    """Which parts get a gradient other than zero."""
    model.zero_grad()
    loss.backward()

    def any_gradient(*modules: torch.nn.Module) -> bool:
        gradients = [p.grad for m in modules for p in m.parameters() if p.grad is not None]
        return any(bool((g != 0).any()) for g in gradients)

    codes = model.student.memory.codes.grad
    rna = model.branches["rna"]
    return {
        "rna": any_gradient(rna),
        "encoder": any_gradient(model.student.encoder),
        "own memory": codes is not None and bool((codes[LABEL] != 0).any()),
        "other memory": codes is not None and bool((codes[1 - LABEL] != 0).any()),
        "classifier": any_gradient(model.student.classifier),
    }


def _row(*marks: str) -> dict[str, bool]:
    return dict.fromkeys(("rna", "encoder", "own memory", "other memory", "classifier"), False) | dict.fromkeys(
        marks, True
    )


def test_map(model: MoMKD) -> None:
    torch.manual_seed(1)
    x = torch.randn(6, 5)
    ring = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])
    bags, labels, rna = PackedBags.pack([x], [ring]), torch.tensor([LABEL]), torch.randn(1, 7)

    def losses() -> object:
        return model(bags, Lesson.of_classes(labels, rna, torch.tensor([True])))

    assert _moved(model, losses().task) == _row("encoder", "classifier")
    assert _moved(model, losses().rna) == _row("rna", "own memory", "other memory")
    assert _moved(model, losses().slide) == _row("encoder", "own memory", "other memory")
    assert _moved(model, losses().reconstruction) == _row("rna")

    memory = model.student.memory
    commitment = memory.commitment_loss(model.student.project_patches(bags), bags.bag_of_patch, labels).mean()
    assert _moved(model, commitment) == _row("encoder")
    assert _moved(model, memory.orthogonality()[LABEL]) == _row("own memory")
    assert _moved(model, losses().memory) == _row("encoder", "own memory")


def test_cross_entropy_moves_the_temperature(model: MoMKD) -> None:
    bags = PackedBags.pack([torch.randn(6, 5)], [torch.empty(2, 0, dtype=torch.int64)])
    model(bags, Lesson.of_classes(torch.tensor([1]), torch.randn(1, 7), torch.tensor([True]))).task.backward()
    assert float(model.student.log_temperature.grad) != 0.0


def test_unpaired_patients_take_part_in_all_but_the_rna_losses(model: MoMKD) -> None:
    torch.manual_seed(2)
    none = torch.empty(2, 0, dtype=torch.int64)
    bags = PackedBags.pack([torch.randn(4, 5), torch.randn(3, 5)], [none, none])
    labels, rna = torch.tensor([0, 1]), torch.randn(2, 7)
    half = model(bags, Lesson.of_classes(labels, rna, torch.tensor([True, False])))
    garbage = torch.stack([rna[0], torch.full((7,), torch.nan)])
    assert model(bags, Lesson.of_classes(labels, garbage, torch.tensor([True, False]))).values() == half.values()
    first = Lesson.of_classes(labels[:1], rna[:1], torch.tensor([True]))
    alone = model(PackedBags.pack([bags.features[:4]], [none]), first)
    assert half.values()["rna"] == pytest.approx(alone.values()["rna"])
    nobody = model(bags, Lesson.of_classes(labels, rna, torch.tensor([False, False]))).values()
    assert nobody["rna"] == nobody["reconstruction"] == 0.0
    assert nobody["slide"] > 0.0


def test_without_rna_only_cross_entropy_counts() -> None:
    torch.manual_seed(0)
    model = MoMKD(5, Nominal(2), ModelSettings(), {})
    bags = PackedBags.pack([torch.randn(4, 5)], [torch.empty(2, 0, dtype=torch.int64)])
    values = model(bags, Lesson.of_classes(torch.tensor([1]))).values()
    assert values["total"] == pytest.approx(0.5 * values["task"])
    assert not any(name.startswith("branches.") for name in model.state_dict())


def test_loss_of_a_batch_is_the_mean_of_its_slides(model: MoMKD) -> None:
    torch.manual_seed(3)
    sizes = [1, 5, 3]
    features = [torch.randn(n, 5) for n in sizes]
    edges = [torch.empty(2, 0, dtype=torch.int64), torch.tensor([[0, 1, 2], [1, 2, 4]]), torch.tensor([[2], [0]])]
    labels, rna, paired = torch.tensor([1, 0, 1]), torch.randn(3, 7), torch.ones(3, dtype=torch.bool)
    together = model(PackedBags.pack(features, edges), Lesson.of_classes(labels, rna, paired)).values()
    single = [
        model(
            PackedBags.pack([features[i]], [edges[i]]),
            Lesson.of_classes(labels[i : i + 1], rna[i : i + 1], paired[:1]),
        ).values()
        for i in range(3)
    ]
    for name, value in together.items():
        assert value == pytest.approx(sum(one[name] for one in single) / 3, rel=1e-5), name


def test_segment_mean_of_an_empty_segment_is_zero() -> None:
    values = segment_mean(torch.tensor([1.0, 3.0]), torch.tensor([2, 2]), 3)
    assert values.tolist() == [0.0, 0.0, 2.0]
